#include "services/tsctl/tsctl_validate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_cost.h"
#include "common/inputs/ts_inputs.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_csv.h"
#include "services/tsctl/tsctl_simulate.h"

#define EXIT_UNKNOWN_NAMES 3
#define SEQUENCES_MAX      256  /* vLLM's max_num_seqs */
#define BATCH_TOKENS_MAX   2048 /* and max_num_batched_tokens */
/* tests/data/profiles/README.md: prompts of 550 +- 150 tokens, outputs of 150 +- 10. */
#define PROMPT_SPREAD (150.0 / 550)
#define OUTPUT_SPREAD (10.0 / 150)
#define SPREAD_STEPS  4

struct flags {
    struct ts_conf *conf;
    const char *conf_dir, *devices;
    uint64_t seed;
    double noise;
    bool json;
};

static const struct ts_option options[] = {
    {"conf_dir", TS_OPTION_STRING, offsetof(struct flags, conf_dir), "", 0, 0,
     "folder with devices and models (default: conf, here or above the program)"},
    {"devices", TS_OPTION_STRING, offsetof(struct flags, devices), "measured", 0, 0, "catalogue of devices"},
    {"seed", TS_OPTION_U64, offsetof(struct flags, seed), "1", 0, 9e15, "of lengths and noise"},
    {"noise", TS_OPTION_F64, offsetof(struct flags, noise), "0", 0, 2,
     "of batch times, as of tsctl simulate"},
    {"json", TS_OPTION_BOOL, offsetof(struct flags, json), "false", 0, 0, "print one document"},
};

static const char *const columns[] = {"out_tok_per_s", "ttft_p50", "ttft_mean", "ttft_p99", "itl_p50",
                                      "itl_mean",      "itl_p99",  "e2e_p50",   "e2e_mean", "e2e_p99"};

const char *validate_figure_name(enum validate_figure figure)
{
    return columns[figure];
}

struct asked { /* of one row */
    const struct ts_device_type *device;
    struct ts_model model;
    bool eight_bits; /* weights of one byte */
    uint32_t loop;
    double prompt, output;
};

/* --- Rows --- */

static void note_unknown(struct validate_table *table, const char *kind, const char *name)
{
    char *text = ts_xasprintf("%s \"%s\"", kind, name);
    for (size_t i = 0; i < table->unknown_count; i++) {
        if (strcmp(table->unknown[i], text) == 0) {
            ts_free(text);
            return;
        }
    }
    void *unknown = table->unknown;
    ts_array_reserve(&unknown, &table->unknown_capacity, table->unknown_count + 1, sizeof *table->unknown);
    table->unknown = unknown;
    table->unknown[table->unknown_count++] = text;
}

/* "neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8" is the model without its owner and what was done to it. */
static bool find_model(struct validate_table *table, const char *conf_dir, const char *name,
                       struct ts_model *out)
{
    const char *slash = strrchr(name, '/');
    char *bare = ts_xstrdup(slash ? slash + 1 : name);
    for (char *at = bare; *at; at++)
        if (strncasecmp(at, "-FP8", 4) == 0)
            *at-- = '\0';
    bool found = ts_inputs_model(conf_dir, bare, out, NULL) == TS_OK;
    if (!found)
        note_unknown(table, "model", name);
    ts_free(bare);
    return found;
}

static enum ts_status read_figures(const struct tsctl_csv *csv, struct validate_row *row,
                                   struct ts_error *err)
{
    for (int i = 0; i < VALIDATE_FIGURES; i++) {
        const char *cell = tsctl_csv_cell(csv, columns[i]);
        row->measured[i] = row->simulated[i] = row->spread[i] = NAN;
        if (cell && *cell && tsctl_csv_number(csv, columns[i], 0, 1e9, &row->measured[i], err) != TS_OK)
            return TS_EINVAL;
    }
    double per_min = 0, completed = 0;
    const char *cell = tsctl_csv_cell(csv, "req_per_min");
    row->run_s = row->spread_s = row->under_way = NAN;
    if (!cell || !*cell)
        return TS_OK;
    enum ts_status status = tsctl_csv_number(csv, "req_per_min", 0, 1e9, &per_min, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "completed", 0, 1e6, &completed, err);
    if (status != TS_OK || per_min * completed == 0)
        return status;
    row->run_s = 60 * completed / per_min;
    row->under_way = per_min / 60 * row->measured[VALIDATE_E2E_MEAN];
    return TS_OK;
}

static void copy(char *into, size_t size, const char *text)
{
    (void)snprintf(into, size, "%s", text ? text : "");
}

/* Fills the row; `*known` = it can be simulated. */
static enum ts_status read_row(struct validate_table *table, const struct tsctl_csv *csv,
                               const struct ts_catalogue *catalogue, const char *conf_dir,
                               struct asked *asked, bool *known, struct ts_error *err)
{
    void *rows = table->rows;
    ts_array_reserve(&rows, &table->capacity, table->count + 1, sizeof *table->rows);
    table->rows = rows;
    struct validate_row *row = &table->rows[table->count++];
    *row = (struct validate_row){.line = csv->line};
    copy(row->gpu, sizeof row->gpu, tsctl_csv_cell(csv, "gpu"));
    copy(row->site, sizeof row->site, tsctl_csv_cell(csv, "site"));
    copy(row->model, sizeof row->model, tsctl_csv_cell(csv, "model"));
    copy(row->dtype, sizeof row->dtype, tsctl_csv_cell(csv, "dtype"));
    enum ts_status status = tsctl_csv_whole(csv, "concurrency", 1e5, &asked->loop, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "mean_in", 1, 1e6, &asked->prompt, err);
    if (status == TS_OK)
        status = tsctl_csv_number(csv, "mean_out", 1, 1e6, &asked->output, err);
    if (status == TS_OK)
        status = read_figures(csv, row, err);
    if (status != TS_OK)
        return status;
    asked->eight_bits = strcasecmp(row->dtype, "FP8") == 0;
    asked->device = ts_catalogue_device(catalogue, row->gpu);
    if (!asked->device)
        note_unknown(table, "gpu", row->gpu);
    bool model = find_model(table, conf_dir, row->model, &asked->model);
    *known = asked->device && model;
    if (!*known)
        copy(row->skipped, sizeof row->skipped, "unknown name");
    else if (!asked->eight_bits && strcasecmp(row->dtype, "BF16") != 0 && strcasecmp(row->dtype, "FP16") != 0)
        copy(row->skipped, sizeof row->skipped, "the cost model knows weights of 16 and of 8 bits only");
    *known = *known && !*row->skipped;
    return TS_OK;
}

/* --- A row simulated --- */

/* Weights of one byte as the cost model can say it: they are read in half the time and leave half of their
 * room. Products are taken to run as those of 16 bits. */
static struct ts_device_type as_run(const struct asked *a)
{
    struct ts_device_type type = *a->device;
    if (a->eight_bits) {
        type.fit.memory_efficiency *= 2;
        type.memory_bytes += 0.5 * ts_cost_stage_weight_bytes(&a->model, true, true, a->model.layers);
    }
    return type;
}

struct lengths {
    struct ts_rng rng;
    const struct asked *asked;
    double gap_s;
    uint32_t sent;
};

static uint32_t draw(struct ts_rng *rng, double mean, double spread)
{
    double value = floor(mean * (1 + spread * ts_rng_normal(rng)) + 0.5);
    return (uint32_t)fmax(1, value);
}

static bool next_item(void *stream, struct ts_request_item *out)
{
    struct lengths *l = stream;
    if (l->sent == l->asked->loop)
        return false;
    out->at_s = l->gap_s * l->sent++;
    out->prompt_tokens = draw(&l->rng, l->asked->prompt, PROMPT_SPREAD);
    out->output_tokens = draw(&l->rng, l->asked->output, OUTPUT_SPREAD);
    return true;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median, mean and 99th percentile into three neighbouring figures. */
static void spread_of(double *values, size_t count, double out[3])
{
    double sum = 0;
    if (count == 0)
        return;
    qsort(values, count, sizeof *values, by_value);
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    out[0] = values[(count - 1) / 2];
    out[1] = sum / (double)count;
    out[2] = values[(size_t)ceil(0.99 * (double)count) - 1];
}

static void take_figures(const struct tsctl_records *records, struct validate_row *row,
                         double out[VALIDATE_FIGURES])
{
    size_t count = 0;
    double tokens = 0, end_s = tsctl_records_end(records);
    double *values = ts_xmalloc((3 * records->count + 1) * sizeof *values);
    double *ttft = values, *itl = values + records->count, *e2e = values + 2 * records->count;
    for (size_t i = 0; i < records->count; i++) {
        const struct tsctl_record *r = &records->items[i];
        if (!tsctl_record_completed(r))
            continue;
        tokens += r->output_tokens;
        ttft[count] = (double)r->ttft_s;
        itl[count] = (double)r->e2e_s / r->output_tokens;
        e2e[count++] = (double)r->e2e_s;
    }
    if (count < records->count)
        (void)snprintf(row->skipped, sizeof row->skipped, "%zu of %zu requests did not complete",
                       records->count - count, records->count);
    out[VALIDATE_TOKENS] = end_s > 0 ? tokens / end_s : 0;
    spread_of(ttft, count, &out[VALIDATE_TTFT_P50]);
    spread_of(itl, count, &out[VALIDATE_ITL_P50]);
    spread_of(e2e, count, &out[VALIDATE_E2E_P50]);
    ts_free(values);
}

static struct ts_cluster *one_device(const struct asked *asked, struct ts_error *err)
{
    struct ts_cluster *cluster = ts_cluster_new(1, 1, 1);
    (void)snprintf(cluster->name, sizeof cluster->name, "one device");
    (void)snprintf(cluster->nodes[0].name, sizeof cluster->nodes[0].name, "host");
    cluster->nodes[0].nic_out_bytes_per_s = cluster->nodes[0].nic_in_bytes_per_s = 1e9;
    cluster->types[0] = as_run(asked);
    cluster->gpus[0] = (struct ts_gpu){.alive = true};
    if (ts_cluster_seal(cluster, err) != TS_OK)
        ts_cluster_destroy(&cluster);
    return cluster;
}

static struct ts_plan *one_replica(const struct ts_model *model)
{
    struct ts_plan *plan = ts_plan_new(1, 1);
    plan->groups[0] = (struct ts_group){.phase = TS_PHASE_BOTH, .stage_count = 1};
    plan->groups[0].stages[0] = (struct ts_stage){.gpus = {0}, .tp = 1, .layers = model->layers};
    plan->flows[0] = (struct ts_flow){.rate = 1, .attained = 1};
    plan->rate = 1;
    return plan;
}

struct stage { /* what a row runs on */
    struct ts_cluster *cluster;
    struct ts_plan *plan;
    struct ts_demand demand;
};

/* Requests start evenly over `spread_s`. Writes how long the run took. */
static enum ts_status play(const struct flags *f, const struct asked *asked, const struct stage *on,
                           double spread_s, struct validate_row *row, double out[VALIDATE_FIGURES],
                           double *run_s, struct ts_error *err)
{
    struct lengths lengths = {.asked = asked, .gap_s = asked->loop > 1 ? spread_s / (asked->loop - 1) : 0};
    struct tsctl_simulation s = {
        .site = cloud_site_defaults(), .next = next_item, .stream = &lengths, .patience_s = 36000};
    ts_rng_init(&lengths.rng, ts_splitmix64(f->seed));
    s.site.cluster = on->cluster;
    s.site.model = &asked->model;
    s.site.plan = on->plan;
    s.site.demand = &on->demand;
    s.site.noise = f->noise;
    s.site.cloud.seed = f->seed;
    s.site.worker.max_rows = SEQUENCES_MAX;
    s.site.worker.max_batch_tokens = BATCH_TOKENS_MAX;
    enum ts_status status = tsctl_simulation_run(&s, err);
    if (status == TS_OK) {
        take_figures(&s.records, row, out);
        *run_s = tsctl_records_end(&s.records);
    }
    tsctl_simulation_fini(&s);
    return status;
}

/* Both ways. The spread at which the run lasts as long as measured is found by steps: a longer one lasts
 * longer by almost as much. */
static enum ts_status simulate(const struct flags *f, const struct asked *asked, struct validate_row *row,
                               struct ts_error *err)
{
    double run_s = 0;
    struct stage on = {.cluster = one_device(asked, err), .demand = {.class_count = 1, .burst = 1}};
    if (!on.cluster)
        return err->status;
    on.plan = one_replica(&asked->model);
    on.demand.classes[0] = (struct ts_class){.rate = 1,
                                             .prompt_tokens = asked->prompt,
                                             .prompt_tokens_sq = asked->prompt * asked->prompt,
                                             .output_tokens = asked->output,
                                             .output_tokens_sq = asked->output * asked->output};
    enum ts_status status = play(f, asked, &on, 0, row, row->simulated, &run_s, err);
    memcpy(row->spread, row->simulated, sizeof row->spread);
    if (!isnan(row->run_s))
        row->spread_s = 0;
    for (int i = 0; i < SPREAD_STEPS && status == TS_OK && !isnan(row->run_s); i++) {
        row->spread_s = fmax(0, row->spread_s + row->run_s - run_s);
        status = play(f, asked, &on, row->spread_s, row, row->spread, &run_s, err);
    }
    ts_plan_destroy(&on.plan);
    ts_cluster_destroy(&on.cluster);
    return status;
}

/* --- The verb --- */

static enum ts_status validate(const struct flags *f, const char *path, struct validate_table *table,
                               struct ts_error *err)
{
    static const char *const needed[] = {"gpu",     "model",    "dtype",         "concurrency",
                                         "mean_in", "mean_out", "out_tok_per_s", NULL};
    struct tsctl_csv csv;
    struct ts_catalogue *catalogue = NULL;
    enum ts_status status = tsctl_csv_open(&csv, path, err);
    if (status == TS_OK && !tsctl_csv_has(&csv, needed))
        status = ts_error_set(err, TS_EINVAL,
                              "%s:1: these are not the columns of serving_dev.csv; see "
                              "tests/data/profiles/README.md",
                              path);
    if (status == TS_OK)
        status = ts_catalogue_load(f->conf_dir, f->devices, &catalogue, err);
    while (status == TS_OK && (status = tsctl_csv_next(&csv, err)) == TS_OK) {
        struct asked asked = {.loop = 0};
        struct ts_error why = {0};
        bool known = false;
        status = read_row(table, &csv, catalogue, f->conf_dir, &asked, &known, err);
        struct validate_row *row = &table->rows[table->count - 1];
        if (status == TS_OK && known && simulate(f, &asked, row, &why) != TS_OK)
            (void)snprintf(row->skipped, sizeof row->skipped, "%.199s", why.text);
    }
    tsctl_csv_close(&csv);
    ts_catalogue_destroy(&catalogue);
    return status == TS_ENOTFOUND && table->count > 0 ? TS_OK : status;
}

static int run(struct flags *f, const struct ts_conf_strings *arguments)
{
    struct validate_table table = {.count = 0};
    struct ts_error err = {0};
    char *found = *f->conf_dir ? NULL : tsctl_conf_dir();
    int code = 0;
    if (found)
        f->conf_dir = found;
    if (arguments->count != 1)
        code = tsctl_fail("simulate validate", 2, "usage: tsctl simulate validate FILE.csv [--json]");
    else if (validate(f, arguments->items[0], &table, &err) != TS_OK)
        code = tsctl_fail("simulate validate", 1, err.text);
    else
        validate_print(&table, f->json);
    for (size_t i = 0; i < table.unknown_count; i++) {
        if (code == 0 || code == EXIT_UNKNOWN_NAMES)
            code = tsctl_fail("simulate validate: unknown", EXIT_UNKNOWN_NAMES, table.unknown[i]);
        ts_free(table.unknown[i]);
    }
    ts_free(table.unknown);
    ts_free(table.rows);
    ts_free(found);
    return code;
}

int tsctl_validate(int argc, char **argv)
{
    static char program[] = "tsctl simulate validate";
    struct flags f = {.conf = NULL};
    struct ts_conf_strings arguments = {.count = 0};
    struct ts_error err = {0};
    int code = 0;
    argv[0] = program;
    switch (ts_conf_load("validate", options, TS_ARRAY_SIZE(options), argc, argv, &f, &arguments, &f.conf,
                         &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail("simulate validate", 2, err.text);
    case TS_CONF_RUN:
        code = run(&f, &arguments);
    }
    ts_conf_destroy(&f.conf);
    return code;
}
