/* Plans as documents: JSON read back, carried over to another cluster, compared, drawn. The plan is the
 * paper's for coding (MLSys 2025, table 3), its flows made up. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_plan.h"
#include "tests/planner/planner_fixture.h"

struct world {
    struct planner_fixture fixture;
    struct ts_plan *plan;
    struct tsctl_plan_doc doc;
};

/* Stages of `tp` devices each from these on, with equal layers. */
static struct ts_group group_of(enum ts_phase phase, uint32_t tp, uint32_t pp, uint32_t first,
                                uint32_t second)
{
    struct ts_group group = {.phase = phase, .stage_count = pp};
    for (uint32_t s = 0; s < pp; s++) {
        group.stages[s].tp = tp;
        group.stages[s].layers = 60 / pp;
        for (uint32_t i = 0; i < tp; i++)
            group.stages[s].gpus[i] = (s ? second : first) + i;
    }
    return group;
}

/* Devices of the fixture: 8 A40 in n0, 4 + 4 A6000 in n1 and n2, 8 A5000 in n3, 4 + 4 3090Ti in n4 and n5. */
static struct ts_plan *coding_plan(void)
{
    const struct ts_group groups[] = {
        group_of(TS_PHASE_PREFILL, 2, 1, 0, 0),  group_of(TS_PHASE_PREFILL, 2, 1, 2, 0),
        group_of(TS_PHASE_PREFILL, 2, 1, 4, 0),  group_of(TS_PHASE_PREFILL, 2, 1, 6, 0),
        group_of(TS_PHASE_PREFILL, 4, 1, 16, 0), group_of(TS_PHASE_PREFILL, 2, 1, 8, 0),
        group_of(TS_PHASE_PREFILL, 2, 1, 10, 0), group_of(TS_PHASE_PREFILL, 2, 2, 20, 24),
        group_of(TS_PHASE_DECODE, 2, 2, 28, 30), group_of(TS_PHASE_DECODE, 1, 2, 12, 13),
        group_of(TS_PHASE_DECODE, 1, 2, 14, 15), group_of(TS_PHASE_DECODE, 2, 2, 22, 26),
    };
    uint32_t count = sizeof groups / sizeof *groups, flows = 0;
    struct ts_plan *plan = ts_plan_new(count, 8 * 4 * 2);
    memcpy(plan->groups, groups, sizeof groups);
    for (uint32_t p = 0; p < 8; p++)
        for (uint32_t d = 8; d < 12; d++)
            for (uint32_t k = 0; k < 2; k++)
                plan->flows[flows++] =
                    (struct ts_flow){.prefill = p,
                                     .decode = d,
                                     .length_class = k,
                                     .rate = 0.05 + 0.01 * p,
                                     .attained = 0.04 + 0.01 * p,
                                     .codec = (p + d) % 2 ? TS_COST_CODEC_I4 : TS_COST_CODEC_NONE};
    plan->objective = 0.93;
    plan->rate = 9;
    plan->bound = 0.95;
    plan->attained_ttft = 0.94;
    plan->attained_tpot = 0.97;
    plan->attained_e2e = 0.96;
    plan->price_per_hour = 11.328;
    snprintf(plan->algorithm, sizeof plan->algorithm, "paper");
    snprintf(plan->limit, sizeof plan->limit, "decode of 2x A6000 & \"more\" <full>");
    return plan;
}

static int set_up(void **state)
{
    struct world *w = ts_xcalloc(1, sizeof *w);
    planner_fixture_init(&w->fixture, planner_fixture_paper_cloud(40), PLANNER_FIXTURE_CODING, 9);
    w->plan = coding_plan();
    w->doc = (struct tsctl_plan_doc){.inputs = {.cluster = "paper-cloud",
                                                .devices = "measured",
                                                .model = "llama-30b",
                                                .workload = "azure-code",
                                                .slo = "ttft=2s",
                                                .conf_dir = "conf",
                                                .objective = "attainment",
                                                .codec = "auto",
                                                .attainment = 0.9,
                                                .link_gbit = -1,
                                                .scale_lengths = 1,
                                                .seed = 7},
                                     .cluster = w->fixture.cluster,
                                     .model = &w->fixture.model,
                                     .demand = &w->fixture.demand,
                                     .plan = w->plan,
                                     .work = 1234,
                                     .finished = true};
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    ts_plan_destroy(&w->plan);
    planner_fixture_fini(&w->fixture);
    ts_free(w);
    return 0;
}

static struct tsctl_plan_doc *read_back(const struct tsctl_plan_doc *doc)
{
    struct ts_json *json = tsctl_plan_json(doc);
    struct tsctl_plan_doc *out = NULL;
    struct ts_error err = {0};
    if (tsctl_plan_parse(json, &out, &err) != TS_OK)
        fail_msg("%s", err.text);
    ts_json_destroy(&json);
    return out;
}

static char *dump(const struct tsctl_plan_doc *doc)
{
    struct ts_json *json = tsctl_plan_json(doc);
    char *text = ts_json_dump(json, true);
    ts_json_destroy(&json);
    return text;
}

static char *drawn(const struct tsctl_plan_doc *doc)
{
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    tsctl_plan_svg(doc, to);
    fclose(to);
    return text;
}

static void json_is_read_back_whole(void **state)
{
    struct world *w = *state;
    w->plan->groups[8] = w->plan->groups[--w->plan->group_count]; /* so that n5 is free, with a dead device */
    w->fixture.cluster->gpus[31].alive = false;
    for (uint32_t f = 0; f < w->plan->flow_count; f++)
        w->plan->flows[f].decode = w->plan->flows[f].decode == 11 ? 8 : w->plan->flows[f].decode;
    struct tsctl_plan_doc *back = read_back(&w->doc);
    char *a = dump(&w->doc), *b = dump(back), *drawn_a = drawn(&w->doc), *drawn_b = drawn(back);
    assert_string_equal(a, b);
    assert_string_equal(drawn_a, drawn_b);
    assert_non_null(strstr(drawn_a, ">dead<"));
    assert_int_equal(back->plan->group_count, 11);
    assert_memory_equal(back->plan->flows, w->plan->flows, w->plan->flow_count * sizeof *w->plan->flows);
    assert_string_equal(back->inputs.workload, "azure-code");
    assert_int_equal(back->inputs.seed, 7);
    ts_free(a);
    ts_free(b);
    free(drawn_a);
    free(drawn_b);
    tsctl_plan_doc_destroy(&back);
}

static void no_bound_is_null(void **state)
{
    struct world *w = *state;
    w->plan->bound = NAN;
    struct tsctl_plan_doc *back = read_back(&w->doc);
    char *text = dump(back);
    assert_true(isnan(back->plan->bound) && isnan(tsctl_plan_gap(back->plan)));
    assert_non_null(strstr(text, "\"bound\": null"));
    assert_non_null(strstr(text, "\"gap\": null"));
    ts_free(text);
    tsctl_plan_doc_destroy(&back);
}

/* One line of the document is replaced; the reader must name what is wrong. */
static void what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *from, *to, *words;
    } cases[] = {
        {"\"phase\": \"prefill\"", "\"phase\": \"sleep\"", "replicas[0]: phase = \"sleep\""},
        {"\"replicas\"", "\"replicates\"", "no \"replicas\""},
        {"\"codec\": \"i4\"", "\"codec\": \"i3\"", "flows[2]: codec = \"i3\""},
        {"\"index\": 1\n", "\"index\": 9\n", "has no A40 at place 9"},
        {"\"tp\": 2", "\"tp\": 99", "replicas[0]"},
        {"\"objective\": 0.", "\"objective\": -0.", "objective"},
        {"\"heads\": 52", "\"heads\": 0", "model_shape"},
        {"\"pp\": 1,\n      \"layers\": [\n        60", "\"pp\": 1,\n      \"layers\": [\n        59",
         "59 layers"},
    };
    struct world *w = *state;
    char *text = dump(&w->doc);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *at = strstr(text, cases[i].from);
        if (!at)
            fail_msg("no %s", cases[i].from);
        char *changed =
            ts_xasprintf("%.*s%s%s", (int)(at - text), text, cases[i].to, at + strlen(cases[i].from));
        struct ts_json *json = NULL;
        struct tsctl_plan_doc *doc = NULL;
        struct ts_error err = {0};
        if (ts_json_parse(changed, strlen(changed), "plan", &json, &err) != TS_OK)
            fail_msg("%s", err.text);
        assert_int_not_equal(tsctl_plan_parse(json, &doc, &err), TS_OK);
        assert_null(doc);
        if (!strstr(err.text, cases[i].words))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].words);
        ts_json_destroy(&json);
        ts_free(changed);
    }
    ts_free(text);
}

/* P7 has devices 24 and 25, D11 26 and 27: one dead device loses one replica and its flows. */
static void a_dead_device_loses_its_replica(void **state)
{
    struct world *w = *state;
    struct tsctl_plan_doc *back = read_back(&w->doc);
    struct ts_cluster *other = ts_cluster_copy(w->fixture.cluster);
    struct ts_plan *plan = NULL;
    uint32_t lost;
    assert_int_equal(tsctl_plan_bind(back, other, &plan, &lost, NULL), TS_OK);
    assert_int_equal(lost, 0);
    assert_memory_equal(plan->groups, w->plan->groups, 12 * sizeof *plan->groups);
    ts_plan_destroy(&plan);
    other->gpus[25].alive = false;
    assert_int_equal(tsctl_plan_bind(back, other, &plan, &lost, NULL), TS_OK);
    assert_int_equal(lost, 1);
    assert_int_equal(plan->group_count, 11);
    assert_int_equal(plan->flow_count, 7 * 4 * 2);
    for (uint32_t f = 0; f < plan->flow_count; f++)
        assert_true(plan->groups[plan->flows[f].prefill].phase == TS_PHASE_PREFILL &&
                    plan->groups[plan->flows[f].decode].phase == TS_PHASE_DECODE);
    ts_plan_destroy(&plan);
    for (uint32_t i = 0; i < other->gpu_count; i++)
        other->gpus[i].alive = false;
    assert_int_not_equal(tsctl_plan_bind(back, other, &plan, &lost, NULL), TS_OK);
    ts_cluster_destroy(&other);
    tsctl_plan_doc_destroy(&back);
}

static int64_t count_of(const struct ts_json *diff, const char *key)
{
    int64_t value = -1;
    assert_true(ts_json_integer(ts_json_get(diff, key), &value));
    return value;
}

/* P0 becomes a decode replica, D9 and D10 (12, 13 | 14, 15) become one of four devices, P7 goes. */
static void differences_are_of_their_kind(void **state)
{
    struct world *w = *state;
    struct tsctl_plan_doc *before = read_back(&w->doc);
    struct ts_json *diff = tsctl_plan_diff(before, &w->doc);
    assert_int_equal(count_of(diff, "kept"), 12);
    assert_int_equal(count_of(diff, "reload_gpus"), 0);
    ts_json_destroy(&diff);
    w->plan->groups[0].phase = TS_PHASE_DECODE;
    w->plan->groups[9] = group_of(TS_PHASE_DECODE, 2, 2, 12, 14);
    w->plan->groups[10] = w->plan->groups[11];
    w->plan->groups[7] = w->plan->groups[10];
    w->plan->group_count = 10;
    w->plan->flow_count = 0;
    w->plan->price_per_hour -= 1;
    diff = tsctl_plan_diff(before, &w->doc);
    assert_int_equal(count_of(diff, "kept"), 8); /* six of prefill, D8, D11 */
    assert_int_equal(count_of(diff, "flipped"), 1);
    assert_int_equal(count_of(diff, "regrouped"), 1);
    assert_int_equal(count_of(diff, "new"), 0);
    assert_int_equal(count_of(diff, "gone"), 1);
    assert_int_equal(count_of(diff, "reload_gpus"), 4);
    double bytes = 0, whole = 60 * ts_cost_layer_weight_bytes(&w->fixture.model) +
                              ts_cost_head_weight_bytes(&w->fixture.model);
    assert_true(ts_json_number(ts_json_get(diff, "reload_bytes"), &bytes));
    assert_true(fabs(bytes / whole - 1) < 1e-12); /* the four hold the model once */
    assert_true(ts_json_number(ts_json_get(ts_json_get(diff, "price_per_hour"), "change"), &bytes));
    assert_true(fabs(bytes + 1) < 1e-9);
    ts_json_destroy(&diff);
    tsctl_plan_doc_destroy(&before);
}

/* D9 lies whole in n2, P0 in n0: all KV crosses. P7 and D11 share n3 and n4 stage by stage: none does. */
static void bytes_between_nodes(void **state)
{
    struct world *w = *state;
    struct ts_flow flow = {
        .prefill = 0, .decode = 9, .length_class = 1, .rate = 1, .codec = TS_COST_CODEC_NONE};
    double tokens = w->fixture.demand.classes[1].prompt_tokens;
    double kv = tokens * (double)ts_model_kv_token_bytes(&w->fixture.model) *
                ts_cost_codec_ratio(TS_COST_CODEC_NONE, tokens);
    assert_true(fabs(tsctl_plan_flow_bytes(&w->doc, &flow, true) / kv - 1) < 1e-12);
    flow.codec = TS_COST_CODEC_I4;
    assert_true(tsctl_plan_flow_bytes(&w->doc, &flow, true) < kv * 0.35);
    flow = (struct ts_flow){.prefill = 7, .decode = 11, .length_class = 1, .rate = 1};
    assert_true(tsctl_plan_flow_bytes(&w->doc, &flow, true) == 0);
    assert_true(tsctl_plan_flow_bytes(&w->doc, &flow, false) > 0);
    flow.decode = 8; /* another pair of nodes, but the second stages of 7 and of 11 share n4 */
    assert_true(tsctl_plan_flow_bytes(&w->doc, &flow, true) == tsctl_plan_flow_bytes(&w->doc, &flow, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(json_is_read_back_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_bound_is_null, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_wrong_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_dead_device_loses_its_replica, set_up, tear_down),
        cmocka_unit_test_setup_teardown(differences_are_of_their_kind, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bytes_between_nodes, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
