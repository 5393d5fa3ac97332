#include "tests/planner/eval_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "services/planner/eval/plan_columns.h"
#include "services/planner/eval/plan_eval_impl.h"
#include "services/planner/eval/plan_lp.h"
#include "tests/planner/lp_referee.h"

void eval_fixture_open(struct eval_fixture *fixture)
{
    plan_eval_destroy(&fixture->eval);
    plan_shapes_destroy(&fixture->shapes);
    fixture->shapes = plan_shapes_new(&fixture->base.problem);
    fixture->eval = plan_eval_new(fixture->shapes);
    plan_state_fini(&fixture->state);
    plan_state_init(&fixture->state);
}

void eval_fixture_reopen(struct eval_fixture *fixture)
{
    plan_eval_destroy(&fixture->eval);
    fixture->eval = plan_eval_new(fixture->shapes);
}

void eval_fixture_fini(struct eval_fixture *fixture)
{
    plan_eval_destroy(&fixture->eval);
    plan_shapes_destroy(&fixture->shapes);
    plan_state_fini(&fixture->state);
    planner_fixture_fini(&fixture->base);
}

void eval_fixture_groups(struct eval_fixture *fixture, const char *text)
{
    while (*text) {
        struct plan_group group = {.phase = *text == 'P'   ? TS_PHASE_PREFILL
                                            : *text == 'D' ? TS_PHASE_DECODE
                                                           : TS_PHASE_BOTH};
        char *end = (char *)(uintptr_t)text + 1;
        do {
            struct plan_part *part = &group.parts[group.part_count++];
            part->cell = (uint16_t)strtoul(end + 1, &end, 10);
            part->count = (uint8_t)strtoul(end + 1, &end, 10);
            part->tp = (uint8_t)strtoul(end + 1, &end, 10);
        } while (*end == '+');
        assert_true(plan_shape_find(fixture->shapes, &group));
        (void)plan_state_add(&fixture->state, &group);
        text = end + strspn(end, ", ");
    }
}

static bool random_group(struct eval_fixture *fixture, struct ts_rng *rng, const uint32_t *idle,
                         struct plan_group *group)
{
    uint32_t cells = fixture->base.cluster->cell_count;
    static const enum ts_phase phases[] = {TS_PHASE_PREFILL, TS_PHASE_DECODE, TS_PHASE_PREFILL,
                                           TS_PHASE_DECODE, TS_PHASE_BOTH};
    *group = (struct plan_group){.phase = phases[ts_rng_below(rng, 5)]};
    uint32_t parts = 1 + (uint32_t)ts_rng_below(rng, 3), first = (uint32_t)ts_rng_below(rng, cells);
    for (uint32_t c = first; c < cells && group->part_count < parts; c++) {
        if (idle[c] > 0) {
            uint32_t count = 1U << ts_rng_below(rng, 4);
            group->parts[group->part_count++] = (struct plan_part){
                .cell = (uint16_t)c, .count = (uint8_t)(count < idle[c] ? count : idle[c])};
        }
    }
    return group->part_count > 0 && plan_shape_choose(fixture->shapes, group);
}

void eval_fixture_random_groups(struct eval_fixture *fixture, uint64_t seed)
{
    struct ts_rng rng;
    uint32_t *idle = ts_xcalloc(fixture->base.cluster->cell_count, sizeof *idle);
    ts_rng_init(&rng, seed);
    fixture->state.count = 0;
    for (int attempt = 0; attempt < 60 && fixture->state.count < 8; attempt++) {
        struct plan_group group;
        plan_state_idle(&fixture->base.problem, &fixture->state, idle);
        if (random_group(fixture, &rng, idle, &group)) {
            (void)plan_state_add(&fixture->state, &group);
        }
    }
    ts_free(idle);
}

/* --- The program from its definitions --- */

struct full {
    const struct eval_fixture *fixture;
    struct plan_lp *lp;
    uint32_t class_row, group_row, out_row, in_row, link_row,
        attainment_row; /* first of each; groups have 3 */
    struct plan_lp_term terms[4096];
    uint32_t count;
    double s_per_byte, latency_s; /* of the path at hand */
};

static void term(struct full *full, uint32_t row, double value)
{
    assert_true(full->count < 4096);
    full->terms[full->count++] = (struct plan_lp_term){row, value};
}

static uint32_t stage_of_layer(const struct plan_group *group, uint32_t layer)
{
    uint32_t end = 0, stage = 0;
    while ((end += group->shape->stages[stage].layers) <= layer) {
        stage++;
    }
    return stage;
}

static const struct ts_cell *cell_of_layer(const struct eval_fixture *fixture, const struct plan_group *group,
                                           uint32_t layer)
{
    uint8_t order[PLAN_PARTS_MAX];
    plan_shape_parts(fixture->shapes, group, order);
    uint32_t stage = stage_of_layer(group, layer);
    return &fixture->base.cluster->cells[group->parts[order[group->shape->stages[stage].part]].cell];
}

/* What one byte of KV puts on adapters and links, layer by layer from each one's owner to its next owner. */
struct way {
    double *out, *in, *links;
};

static struct way way_new(const struct ts_cluster *cluster)
{
    size_t nodes = cluster->node_count;
    struct way way = {.out = ts_xcalloc(nodes * (nodes + 2), sizeof(double))};
    way.in = way.out + nodes;
    way.links = way.in + nodes;
    return way;
}

/* The slowest link or adapter, for its share, sets the pace. */
static void walk_path(struct full *full, const struct plan_group *a, const struct plan_group *b,
                      const struct way *way)
{
    const struct ts_cluster *cluster = full->fixture->base.cluster;
    uint32_t layers = full->fixture->base.model.layers, nodes = cluster->node_count;
    double inner[TS_MODEL_LAYERS_MAX] = {
        0}; /* layers of a stage that stay in a node, by where the run began */
    uint32_t run = 0;
    full->s_per_byte = full->latency_s = 0;
    for (uint32_t l = 0; l < layers; l++) {
        const struct ts_cell *from = cell_of_layer(full->fixture, a, l),
                             *to = cell_of_layer(full->fixture, b, l);
        const struct ts_link *links[] = {ts_cluster_inner(cluster, from->node, from->type),
                                         ts_cluster_inner(cluster, to->node, to->type)};
        run = l > 0 && stage_of_layer(a, l) == stage_of_layer(a, l - 1) &&
                      stage_of_layer(b, l) == stage_of_layer(b, l - 1)
                  ? run
                  : l;
        if (from->node != to->node) {
            links[0] = links[1] = ts_cluster_link(cluster, from->node, to->node);
            way->out[from->node] += 1.0 / layers;
            way->in[to->node] += 1.0 / layers;
            way->links[from->node * nodes + to->node] += 1.0 / layers;
        } else {
            inner[run] += 1.0 / layers;
            full->s_per_byte =
                fmax(full->s_per_byte, inner[run] / fmin(links[0]->bytes_per_s, links[1]->bytes_per_s));
        }
        full->latency_s = fmax(full->latency_s, fmax(links[0]->latency_s, links[1]->latency_s));
    }
    for (uint32_t n = 0; n < nodes; n++) {
        double out = way->out[n], in = way->in[n];
        full->s_per_byte = fmax(full->s_per_byte, out > 0 ? out / cluster->nodes[n].nic_out_bytes_per_s : 0);
        full->s_per_byte = fmax(full->s_per_byte, in > 0 ? in / cluster->nodes[n].nic_in_bytes_per_s : 0);
    }
    for (uint32_t i = 0; i < nodes * nodes; i++) {
        double load = way->links[i];
        full->s_per_byte = fmax(full->s_per_byte, load > 0 ? load / cluster->links[i].bytes_per_s : 0);
    }
}

static void hop_terms(struct full *full, const struct plan_group *group, double tokens)
{
    double bytes = ts_cost_hop_bytes(&full->fixture->base.model, tokens);
    for (uint32_t l = 1; l < full->fixture->base.model.layers; l++) {
        uint32_t from = cell_of_layer(full->fixture, group, l - 1)->node;
        uint32_t to = cell_of_layer(full->fixture, group, l)->node;
        if (from != to) {
            term(full, full->out_row + from, bytes);
            term(full, full->in_row + to, bytes);
            term(full, full->link_row + from * full->fixture->base.cluster->node_count + to, bytes);
        }
    }
}

static void full_column(struct full *full, uint32_t i, uint32_t j, uint32_t k, enum ts_cost_codec codec,
                        uint32_t p, uint32_t q, const struct way *way)
{
    const struct eval_fixture *f = full->fixture;
    const struct plan_shape *a = f->state.groups[i].shape, *b = f->state.groups[j].shape;
    const struct ts_class *class_ = &f->base.demand.classes[k];
    double bytes = class_->prompt_tokens * (double)ts_model_kv_token_bytes(&f->base.model) *
                   ts_cost_codec_ratio(codec, class_->prompt_tokens);
    const struct ts_link link = {.bytes_per_s = 1 / full->s_per_byte, .latency_s = full->latency_s};
    double visible = i == j ? 0 : ts_cost_kv_visible_s(&link, &f->base.model, bytes, a->prefill_s[k]);
    double gain = 1 - plan_miss_of(class_, a->prefill_s[k], &a->points[p], &b->points[q], visible).any -
                  (codec == TS_COST_CODEC_NONE ? 0 : PLAN_LOSSY_CHARGE);
    if (gain <= 0) {
        return;
    }
    full->count = 0;
    term(full, full->class_row + k, 1);
    term(full, full->group_row + 3 * i, a->points[p].prefill[k]);
    term(full, full->group_row + 3 * j + 1, b->points[q].compute[k]);
    term(full, full->group_row + 3 * j + 2, b->points[q].memory[k]);
    uint32_t nodes = f->base.cluster->node_count;
    for (uint32_t n = 0; n < nodes * (nodes + 2); n++) {
        if (way->out[n] > 0) { /* out, in and links lie one behind the other, as their rows do */
            term(full, full->out_row + n, way->out[n] * bytes);
        }
    }
    hop_terms(full, &f->state.groups[i], class_->prompt_tokens);
    hop_terms(full, &f->state.groups[j], class_->output_tokens);
    if (f->base.problem.objective == PLAN_GOODPUT) {
        term(full, full->attainment_row, -gain);
    }
    (void)plan_lp_add_column(full->lp, gain, full->terms, full->count);
}

static void full_pair(struct full *full, uint32_t i, uint32_t j)
{
    const struct eval_fixture *f = full->fixture;
    const struct plan_group *a = &f->state.groups[i], *b = &f->state.groups[j];
    struct way way = way_new(f->base.cluster);
    if (i != j) {
        walk_path(full, a, b, &way);
    }
    for (uint32_t k = 0; k < f->base.demand.class_count && isfinite(full->s_per_byte); k++) {
        for (enum ts_cost_codec c = 0; c < TS_COST_CODEC_COUNT; c++) {
            bool allowed = i == j ? c == TS_COST_CODEC_NONE : f->base.problem.codec_allowed[c];
            for (uint32_t p = 0; p < a->shape->point_count && allowed; p++) {
                for (uint32_t q = 0; q < b->shape->point_count; q++) {
                    if ((i != j || p == q) && a->shape->fits[k] && b->shape->fits[k]) {
                        full_column(full, i, j, k, c, p, q, &way);
                    }
                }
            }
        }
    }
    ts_free(way.out);
}

static void full_rows(struct full *full)
{
    const struct eval_fixture *f = full->fixture;
    bool goodput = f->base.problem.objective == PLAN_GOODPUT;
    double rate = ts_demand_rate(&f->base.demand);
    for (uint32_t k = 0; k < f->base.demand.class_count; k++) {
        (void)plan_lp_add_row(full->lp, goodput ? 0 : f->base.demand.classes[k].rate);
    }
    full->group_row = f->base.demand.class_count;
    for (uint32_t r = 0; r < 3 * f->state.count; r++) {
        (void)plan_lp_add_row(full->lp, 1);
    }
    full->out_row = full->group_row + 3 * f->state.count;
    full->in_row = full->out_row + f->base.cluster->node_count;
    for (uint32_t n = 0; n < f->base.cluster->node_count; n++) {
        (void)plan_lp_add_row(full->lp, PLAN_NIC_SHARE * f->base.cluster->nodes[n].nic_out_bytes_per_s);
    }
    for (uint32_t n = 0; n < f->base.cluster->node_count; n++) {
        (void)plan_lp_add_row(full->lp, PLAN_NIC_SHARE * f->base.cluster->nodes[n].nic_in_bytes_per_s);
    }
    full->link_row = full->in_row + f->base.cluster->node_count;
    for (uint32_t i = 0; i < f->base.cluster->node_count * f->base.cluster->node_count; i++) {
        (void)plan_lp_add_row(full->lp, PLAN_NIC_SHARE * f->base.cluster->links[i].bytes_per_s);
    }
    if (goodput) {
        full->attainment_row = plan_lp_add_row(full->lp, 0);
        full->count = 0;
        for (uint32_t k = 0; k < f->base.demand.class_count; k++) {
            term(full, k, -f->base.demand.classes[k].rate / rate);
        }
        term(full, full->attainment_row, f->base.problem.attainment);
        (void)plan_lp_add_column(full->lp, 0, full->terms, full->count);
    }
}

double eval_fixture_full(const struct eval_fixture *fixture)
{
    static struct full full;
    struct ts_error err = {0};
    full = (struct full){.fixture = fixture, .lp = plan_lp_new()};
    full_rows(&full);
    for (uint32_t i = 0; i < fixture->state.count; i++) {
        for (uint32_t j = 0; j < fixture->state.count; j++) {
            enum ts_phase a = fixture->state.groups[i].phase, b = fixture->state.groups[j].phase;
            if ((a == TS_PHASE_PREFILL && b == TS_PHASE_DECODE) || (i == j && a == TS_PHASE_BOTH)) {
                full.s_per_byte = 0;
                full_pair(&full, i, j);
            }
        }
    }
    if (plan_lp_solve(full.lp, &err) != TS_OK || !lp_verify(full.lp, &err)) {
        fail_msg("%s", err.text);
    }
    double objective = plan_lp_objective(full.lp);
    plan_lp_destroy(&full.lp);
    return fixture->base.problem.objective == PLAN_GOODPUT
               ? objective
               : objective / ts_demand_rate(&fixture->base.demand);
}

/* --- The evaluator's own answer --- */

/* Rows of one group, from the columns in use: an equal group has an equal share. */
static void check_groups(const struct eval_fixture *fixture)
{
    const struct plan_eval *eval = fixture->eval;
    double *use = ts_xcalloc((size_t)fixture->state.count * 3 + 1, sizeof *use);
    for (uint32_t c = 0; c < eval->column_count; c++) {
        const struct eval_column *column = &eval->columns[c];
        const struct eval_pair *pair = &eval->pairs[column->pair];
        double rate = eval_value(eval, c);
        uint32_t k = column->length_class;
        for (uint32_t g = 0; g < fixture->state.count; g++) {
            const struct plan_shape *shape = fixture->state.groups[g].shape;
            double mine = rate / eval->kinds[eval->kind_of_group[g]].count;
            if (eval->kind_of_group[g] == pair->prefill) {
                use[3 * g] += mine * shape->points[column->p].prefill[k];
            }
            if (eval->kind_of_group[g] == pair->decode) {
                use[3 * g + 1] += mine * shape->points[column->q].compute[k];
                use[3 * g + 2] += mine * shape->points[column->q].memory[k];
            }
        }
    }
    for (uint32_t r = 0; r < 3 * fixture->state.count; r++) {
        assert_true(use[r] <= 1 + 1e-7);
    }
    ts_free(use);
}

/* Class rates, phases and cards, from the flows. */
static void check_flows(const struct eval_fixture *fixture, const struct plan_result *result)
{
    const struct ts_cluster *cluster = fixture->base.cluster;
    double served[TS_CLASSES_MAX] = {0}, attained = 0, lossy = 0,
           total = ts_demand_rate(&fixture->base.demand);
    struct way way = way_new(cluster);
    for (uint32_t f = 0; f < result->flow_count; f++) {
        const struct ts_flow *flow = &result->flows[f];
        const struct plan_group *a = &fixture->state.groups[flow->prefill],
                                *b = &fixture->state.groups[flow->decode];
        const struct ts_class *class_ = &fixture->base.demand.classes[flow->length_class];
        assert_true((a->phase & TS_PHASE_PREFILL) && (b->phase & TS_PHASE_DECODE));
        assert_true((flow->prefill == flow->decode) == (a->phase == TS_PHASE_BOTH));
        assert_true(flow->rate > 0 && flow->attained >= 0 && flow->attained <= flow->rate * (1 + 1e-12));
        served[flow->length_class] += flow->rate;
        attained += flow->attained;
        lossy += flow->codec == TS_COST_CODEC_NONE ? 0 : flow->rate;
        double kv = class_->prompt_tokens * (double)ts_model_kv_token_bytes(&fixture->base.model) *
                    ts_cost_codec_ratio(flow->codec, class_->prompt_tokens);
        for (uint32_t l = 0; l < fixture->base.model.layers; l++) {
            uint32_t from = cell_of_layer(fixture, a, l)->node, to = cell_of_layer(fixture, b, l)->node;
            if (from != to) {
                way.out[from] += flow->rate * kv / fixture->base.model.layers;
                way.in[to] += flow->rate * kv / fixture->base.model.layers;
                way.links[from * cluster->node_count + to] += flow->rate * kv / fixture->base.model.layers;
            }
        }
    }
    for (uint32_t k = 0; k < fixture->base.demand.class_count; k++) {
        double asked = fixture->base.demand.classes[k].rate / total * result->rate;
        assert_true(served[k] <= asked * (1 + 1e-7) + 1e-12);
    }
    for (uint32_t n = 0; n < cluster->node_count; n++) {
        assert_true(way.out[n] <= PLAN_NIC_SHARE * cluster->nodes[n].nic_out_bytes_per_s * (1 + 1e-6));
        assert_true(way.in[n] <= PLAN_NIC_SHARE * cluster->nodes[n].nic_in_bytes_per_s * (1 + 1e-6));
    }
    for (uint32_t i = 0; i < cluster->node_count * cluster->node_count; i++) {
        assert_true(way.links[i] <= PLAN_NIC_SHARE * cluster->links[i].bytes_per_s * (1 + 1e-6));
    }
    double objective = attained - PLAN_LOSSY_CHARGE * lossy;
    objective /= fixture->base.problem.objective == PLAN_GOODPUT ? 1 : total;
    assert_true(fabs(objective - result->objective) <= 1e-6 * fmax(1, result->objective));
    ts_free(way.out);
}

double eval_fixture_run(struct eval_fixture *fixture, struct plan_result *out)
{
    struct plan_result own;
    struct plan_result *result = out ? out : &own;
    struct ts_error err = {0};
    double objective = plan_eval_run(fixture->eval, &fixture->state, result);
    assert_true(objective == result->objective && objective >= 0);
    if (!lp_verify(fixture->eval->lp, &err)) {
        fail_msg("%s", err.text);
    }
    check_groups(fixture);
    check_flows(fixture, result);
    return objective;
}
