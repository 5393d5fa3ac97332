#include "tests/planner/planner_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_rng.h"

#define GPUS_MAX  1024
#define NODES_MAX 1024

struct sheet { /* GB, GB/s, TFLOPS of dense 16-bit products, $/h, GB/s and microseconds to a neighbour */
    const char *name;
    double memory, bandwidth, tflops, price, peer, peer_us;
};

static const struct sheet sheets[] = {
    {"A40", 48, 696, 149.7, 0.403, 24, 10},   {"A6000", 48, 768, 154.8, 0.483, 24, 10},
    {"A5000", 24, 768, 111.1, 0.223, 24, 10}, {"3090Ti", 24, 1008, 80, 0.307, 12, 12},
    {"A100", 80, 2039, 312, 1.753, 250, 6},   {"4090", 24, 1008, 165, 0.45, 20, 12},
    {"L4", 24, 300, 121, 0.35, 20, 12},       {"H100", 80, 3350, 989, 2.9, 400, 5},
};

struct ts_device_type planner_fixture_device(const char *name)
{
    const struct sheet *sheet = NULL;
    for (size_t i = 0; i < TS_ARRAY_SIZE(sheets); ++i) {
        if (strcmp(sheets[i].name, name) == 0) {
            sheet = &sheets[i];
        }
    }
    TS_ASSERT(sheet != NULL);
    struct ts_device_type type = {
        .memory_bytes = sheet->memory * 1e9,
        .memory_bytes_per_s = sheet->bandwidth * 1e9,
        .flops = sheet->tflops * 1e12,
        .price_per_hour = sheet->price,
        .fit = {.flops_efficiency = 0.7,
                .memory_efficiency = 0.8,
                .context_efficiency = 0.6,
                .attention_efficiency = 0.4,
                .layer_s = 15e-6,
                .step_s = 2e-3,
                .tokens_half = 64},
        .peer = {.name = "peer", .bytes_per_s = sheet->peer * 1e9, .latency_s = sheet->peer_us * 1e-6},
    };
    (void)snprintf(type.name, sizeof type.name, "%s", sheet->name);
    return type;
}

struct ts_model planner_fixture_llama_30b(void)
{
    return (struct ts_model){.name = "llama-30b",
                             .layers = 60,
                             .hidden = 6656,
                             .intermediate = 17920,
                             .heads = 52,
                             .kv_heads = 52,
                             .head_dim = 128,
                             .vocab = 32000,
                             .context_tokens = 8192,
                             .weight_dtype = TS_DTYPE_F16,
                             .kv_dtype = TS_DTYPE_F16};
}

struct ts_model planner_fixture_llama_8b(void)
{
    return (struct ts_model){.name = "llama-8b",
                             .layers = 32,
                             .hidden = 4096,
                             .intermediate = 14336,
                             .heads = 32,
                             .kv_heads = 8,
                             .head_dim = 128,
                             .vocab = 128256,
                             .context_tokens = 8192,
                             .weight_dtype = TS_DTYPE_BF16,
                             .kv_dtype = TS_DTYPE_BF16};
}

static uint16_t type_index(struct ts_cluster *cluster, uint32_t *types, const char *name)
{
    for (uint32_t i = 0; i < *types; ++i) {
        if (strcmp(cluster->types[i].name, name) == 0) {
            return (uint16_t)i;
        }
    }
    cluster->types[*types] = planner_fixture_device(name);
    return (uint16_t)(*types)++;
}

static void join_nodes(struct ts_cluster *cluster, uint32_t a, uint32_t b, double gbit)
{
    struct ts_link link = {.name = "network", .bytes_per_s = gbit * 1e9 / 8, .latency_s = 50e-6};
    cluster->links[a * cluster->node_count + b] = link;
    cluster->links[b * cluster->node_count + a] = link;
}

static void set_nic(struct ts_node *node, double gbit)
{
    node->nic_out_bytes_per_s = gbit * 1e9 / 8;
    node->nic_in_bytes_per_s = gbit * 1e9 / 8;
}

static void seal(struct ts_cluster *cluster)
{
    struct ts_error err;
    enum ts_status status = ts_cluster_seal(cluster, &err);
    if (status != TS_OK) {
        (void)fprintf(stderr, "fixture: %s\n", err.text);
    }
    TS_ASSERT(status == TS_OK);
}

/* Devices of one node of the text, by order of their types' first mention. Returns how many. */
static uint32_t parse_node(struct ts_cluster *cluster, char *text, uint32_t node, uint32_t *types,
                           struct ts_gpu *gpus)
{
    uint32_t count = 0;
    char *rest = NULL;
    for (char *item = strtok_r(text, "+", &rest); item != NULL; item = strtok_r(NULL, "+", &rest)) {
        char *end = NULL;
        unsigned long of = strtoul(item, &end, 10);
        TS_ASSERT(end != item && *end == 'x' && of > 0 && count + of <= GPUS_MAX);
        uint16_t type = type_index(cluster, types, end + 1);
        for (unsigned long i = 0; i < of; ++i) {
            gpus[count++] = (struct ts_gpu){.type = type, .node = (uint16_t)node, .alive = true};
        }
    }
    for (uint32_t i = 1; i < count; ++i) { /* by type, as the cluster wants it */
        for (uint32_t j = i; j > 0 && gpus[j].type < gpus[j - 1].type; --j) {
            struct ts_gpu swap = gpus[j];
            gpus[j] = gpus[j - 1];
            gpus[j - 1] = swap;
        }
    }
    return count;
}

struct ts_cluster *planner_fixture_cluster(const char *spec, double gbit)
{
    static struct ts_gpu gpus[GPUS_MAX * 2];
    char text[4096];
    TS_ASSERT(strlen(spec) < sizeof text);
    (void)snprintf(text, sizeof text, "%s", spec);
    struct ts_cluster *scratch = ts_cluster_new(TS_ARRAY_SIZE(sheets), 1, 1);
    uint32_t nodes = 0, types = 0, count = 0;
    char *rest = NULL;
    for (char *item = strtok_r(text, "|", &rest); item != NULL; item = strtok_r(NULL, "|", &rest)) {
        count += parse_node(scratch, item, nodes++, &types, gpus + count);
        TS_ASSERT(nodes <= NODES_MAX && count <= GPUS_MAX);
    }
    struct ts_cluster *cluster = ts_cluster_new(types, nodes, count);
    (void)snprintf(cluster->name, sizeof cluster->name, "fixture");
    memcpy(cluster->types, scratch->types, types * sizeof *cluster->types);
    memcpy(cluster->gpus, gpus, count * sizeof *gpus);
    ts_cluster_destroy(&scratch);
    for (uint32_t i = 0; i < nodes; ++i) {
        (void)snprintf(cluster->nodes[i].name, sizeof cluster->nodes[i].name, "n%u", i);
        set_nic(&cluster->nodes[i], gbit);
        for (uint32_t j = 0; j < i; ++j) {
            join_nodes(cluster, i, j, gbit);
        }
    }
    seal(cluster);
    return cluster;
}

struct ts_cluster *planner_fixture_paper_cloud(double gbit)
{
    return planner_fixture_cluster("8xA40|4xA6000|4xA6000|8xA5000|4x3090Ti|4x3090Ti", gbit);
}

struct ts_demand planner_fixture_demand(enum planner_fixture_work work, uint32_t classes, double rate,
                                        double scale)
{
    /* Midpoints of 8 equal slices of the standard normal distribution. */
    static const double normal[8] = {-1.534, -0.887, -0.489, -0.157, 0.157, 0.489, 0.887, 1.534};
    const bool coding = work == PLANNER_FIXTURE_CODING;
    struct ts_demand demand = {.class_count = classes, .burst = 1};
    TS_ASSERT(classes >= 1 && classes <= 8);
    (void)snprintf(demand.name, sizeof demand.name, coding ? "coding" : "conversation");
    for (uint32_t i = 0; i < classes; ++i) {
        double z = classes == 1 ? 0 : normal[i * 7 / (classes - 1)];
        double y = classes == 1 ? 0 : normal[(i * 5 + 3) % classes * 7 / (classes - 1)];
        struct ts_class *c = &demand.classes[i];
        c->rate = rate / classes;
        c->prompt_tokens = round((coding ? 1600 : 900) * exp(0.6 * z));
        c->output_tokens = round((coding ? 26 : 180) * exp(0.5 * y));
        c->prompt_tokens_sq = c->prompt_tokens * c->prompt_tokens * 1.1;
        c->output_tokens_sq = c->output_tokens * c->output_tokens * 1.2;
        c->ttft_s = scale * (0.15 + 0.4e-3 * c->prompt_tokens);
        c->tpot_s = scale * 0.03;
        c->e2e_s = c->ttft_s + c->tpot_s * c->output_tokens;
    }
    return demand;
}

void planner_fixture_init(struct planner_fixture *fixture, struct ts_cluster *cluster,
                          enum planner_fixture_work work, double rate)
{
    fixture->cluster = cluster;
    fixture->model = planner_fixture_llama_30b();
    fixture->demand = planner_fixture_demand(work, 4, rate, 5);
    fixture->problem = plan_problem_defaults(cluster, &fixture->model, &fixture->demand);
}

static double log_uniform(struct ts_rng *rng, double least, double most)
{
    return least * pow(most / least, ts_rng_unit(rng));
}

/* Fills `gpus` with nodes of 1, 2, 4 or 8 devices until there are `count`; returns the number of nodes. */
static uint32_t random_nodes(struct ts_rng *rng, struct ts_gpu *gpus, uint32_t count, uint32_t types)
{
    uint32_t nodes = 0;
    for (uint32_t at = 0; at < count; ++nodes) {
        uint32_t size = 1u << ts_rng_below(rng, 4);
        size = size < count - at ? size : count - at;
        uint16_t a = (uint16_t)ts_rng_below(rng, types), b = (uint16_t)ts_rng_below(rng, types);
        bool mixed = ts_rng_below(rng, 5) == 0;
        uint16_t first = a < b ? a : b, second = a < b ? b : a;
        for (uint32_t i = 0; i < size; ++i) {
            uint16_t type = !mixed ? a : i < (size + 1) / 2 ? first : second;
            gpus[at++] = (struct ts_gpu){.type = type, .node = (uint16_t)nodes, .alive = true};
        }
    }
    return nodes;
}

static struct ts_cluster *random_cluster(struct ts_rng *rng, uint32_t count, uint32_t types)
{
    static struct ts_gpu gpus[GPUS_MAX];
    uint32_t nodes = random_nodes(rng, gpus, count, types);
    struct ts_cluster *cluster = ts_cluster_new(types, nodes, count);
    (void)snprintf(cluster->name, sizeof cluster->name, "random");
    memcpy(cluster->gpus, gpus, count * sizeof *gpus);
    uint32_t shift = (uint32_t)ts_rng_below(rng, TS_ARRAY_SIZE(sheets));
    for (uint32_t i = 0; i < types; ++i) {
        cluster->types[i] = planner_fixture_device(sheets[(i + shift) % TS_ARRAY_SIZE(sheets)].name);
        cluster->types[i].price_per_hour *= 0.6 + 0.8 * ts_rng_unit(rng);
    }
    double most = log_uniform(rng, 1, 100); /* half of the clusters have one speed everywhere */
    bool even = ts_rng_below(rng, 2) == 0;
    for (uint32_t i = 0; i < nodes; ++i) {
        (void)snprintf(cluster->nodes[i].name, sizeof cluster->nodes[i].name, "n%u", i);
        set_nic(&cluster->nodes[i], even ? most : log_uniform(rng, most, 100));
        for (uint32_t j = 0; j < i; ++j) {
            join_nodes(cluster, i, j, even ? most : log_uniform(rng, 1, most));
        }
    }
    seal(cluster);
    return cluster;
}

void planner_fixture_random(struct planner_fixture *fixture, uint64_t seed, uint32_t gpus_min,
                            uint32_t gpus_max)
{
    TS_ASSERT(gpus_min >= 1 && gpus_min <= gpus_max && gpus_max <= GPUS_MAX);
    struct ts_rng rng;
    ts_rng_init(&rng, seed);
    uint32_t count = gpus_min + (uint32_t)ts_rng_below(&rng, gpus_max - gpus_min + 1);
    uint32_t types = 1 + (uint32_t)ts_rng_below(&rng, 8);
    fixture->cluster = random_cluster(&rng, count, types);
    bool small = ts_rng_below(&rng, 2) == 0;
    fixture->model = small ? planner_fixture_llama_8b() : planner_fixture_llama_30b();
    enum planner_fixture_work work = (enum planner_fixture_work)ts_rng_below(&rng, 2);
    uint32_t classes = 2 + (uint32_t)ts_rng_below(&rng, 5);
    double per_gpu = log_uniform(&rng, 0.05, 1) * (small ? 4 : 1);
    double scale = small ? log_uniform(&rng, 1, 4) : log_uniform(&rng, 2, 10);
    fixture->demand = planner_fixture_demand(work, classes, per_gpu * count, scale);
    fixture->demand.burst = 1 + 2 * ts_rng_unit(&rng);
    fixture->problem = plan_problem_defaults(fixture->cluster, &fixture->model, &fixture->demand);
    fixture->problem.seed = seed;
}

void planner_fixture_fini(struct planner_fixture *fixture)
{
    ts_cluster_destroy(&fixture->cluster);
}
