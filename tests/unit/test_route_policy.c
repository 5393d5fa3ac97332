/* Who serves a request: by the plan's shares and the load, and without a plan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_terms.h"
#include "services/router/route_policy.h"

#define WORKERS_MAX 6

static const struct route_limits limits = {10, 10};

static struct route_worker worker(enum ts_phase phases)
{
    return (struct route_worker){.key = 100, .model = 5, .phases = phases, .sends = true, .kv_blocks = 1000};
}

struct any_case {
    const char *name;
    struct route_worker workers[WORKERS_MAX]; /* phases, then what differs; NONE ends the list */
    uint64_t model, avoid[2];
    int p, d; /* -1 = nobody */
};

#define P .phases = TS_PHASE_PREFILL, .sends = true
#define D .phases = TS_PHASE_DECODE
#define B .phases = TS_PHASE_BOTH, .sends = true

static const struct any_case any_cases[] = {
    {"nobody", {{0}}, 0, {0}, -1, -1},
    {"no decode", {{P}}, 0, {0}, -1, -1},
    {"one pair", {{P}, {D}}, 0, {0}, 0, 1},
    {"first of equals", {{P}, {P}, {D}, {D}}, 0, {0}, 0, 2},
    {"least prompt tokens", {{P, .prompt_tokens = 30}, {P, .prompt_tokens = 10}, {D}}, 0, {0}, 1, 2},
    {"not fewest requests",
     {{P, .unstarted = 1, .prompt_tokens = 30}, {P, .unstarted = 9}, {D}},
     0,
     {0},
     1,
     2},
    {"the faster one, though it has more",
     {{P, .prompt_tokens = 900, .prompt_tokens_per_s = 100},
      {P, .prompt_tokens = 1900, .prompt_tokens_per_s = 400},
      {D}},
     0,
     {0},
     1,
     2},
    {"a rate that is not known of all does not count",
     {{P, .prompt_tokens = 900}, {P, .prompt_tokens = 1900, .prompt_tokens_per_s = 400}, {D}},
     0,
     {0},
     0,
     2},
    {"fewest sequences", {{P}, {D, .rows = 5}, {D, .rows = 4}}, 0, {0}, 0, 2},
    {"for its memory",
     {{P}, {D, .rows = 5, .kv_blocks = 1000}, {D, .rows = 4, .kv_blocks = 500}},
     0,
     {0},
     0,
     1},
    {"no room for its KV",
     {{P}, {D, .kv_blocks = 100, .kv_used = 95}, {D, .rows = 9, .kv_blocks = 100}},
     0,
     {0},
     0,
     2},
    {"just room",
     {{P}, {D, .kv_blocks = 100, .kv_used = 90}, {D, .rows = 9, .kv_blocks = 100}},
     0,
     {0},
     0,
     1},
    {"nowhere room", {{P}, {D, .kv_blocks = 100, .kv_used = 95}}, 0, {0}, 0, 1},
    {"at its limit", {{P, .unstarted = 10}, {P, .prompt_tokens = 99, .unstarted = 9}, {D}}, 0, {0}, 1, 2},
    {"all at their limit", {{P, .unstarted = 10}, {D}}, 0, {0}, -1, -1},
    {"decode at its limit", {{P}, {D, .rows = 10}}, 0, {0}, -1, -1},
    {"no relay", {{.phases = TS_PHASE_PREFILL}, {P, .prompt_tokens = 9}, {D}}, 0, {0}, 1, 2},
    {"other KV", {{P}, {.phases = TS_PHASE_DECODE, .fingerprint = 8}, {D, .rows = 9}}, 0, {0}, 0, 2},
    {"kinds apart", {{P}, {.phases = TS_PHASE_DECODE, .fingerprint = 8}}, 0, {0}, -1, -1},
    {"the best has no partner",
     {{P, .fingerprint = 8}, {P, .fingerprint = 8, .prompt_tokens = 1}, {P, .prompt_tokens = 50}, {D}},
     0,
     {0},
     2,
     3},
    {"the model that is asked for",
     {{P, .model = 4}, {P, .model = 5, .prompt_tokens = 9}, {D, .model = 4}, {D, .model = 5}},
     5,
     {0},
     1,
     3},
    {"any model", {{P, .model = 4}, {P}, {D, .model = 4}, {D}}, 0, {0}, 0, 2},
    {"avoided", {{P, .key = 1}, {P, .prompt_tokens = 99}, {D}}, 0, {1}, 1, 2},
    {"all avoided", {{P, .key = 1}, {D, .key = 2}}, 0, {1, 2}, 0, 1},
    {"rather full than avoided",
     {{P}, {D, .key = 2, .kv_blocks = 100}, {D, .kv_blocks = 100, .kv_used = 100}},
     0,
     {2},
     0,
     2},
    {"two are preferred to one", {{B}, {P, .prompt_tokens = 99}, {D, .rows = 9}}, 0, {0}, 0, 2},
    {"one that prefills for another", {{B}, {P, .prompt_tokens = 99}}, 0, {0}, 1, 0},
    {"two of both are no pair", {{B, .rows = 2}, {B, .rows = 1}}, 0, {0}, 1, 1},
    {"one alone needs no relay", {{.phases = TS_PHASE_BOTH}}, 0, {0}, 0, 0},
    {"one alone by prompt tokens too", {{B, .prompt_tokens = 900, .rows = 1}, {B, .rows = 2}}, 0, {0}, 1, 1},
    {"one alone rather than a pair that failed", {{B}, {D, .key = 2}}, 0, {2}, 0, 0},
};

static void test_any(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(any_cases); i++) {
        const struct any_case *c = &any_cases[i];
        struct route_worker copies[WORKERS_MAX], *list[WORKERS_MAX];
        struct route_pair pair = {9, 9, 9};
        size_t count = 0;
        for (; count < WORKERS_MAX && c->workers[count].phases; count++) {
            copies[count] = c->workers[count];
            list[count] = &copies[count];
        }
        struct route_request r = {.model = c->model,
                                  .prompt_tokens = 10,
                                  .kv_blocks = 10,
                                  .avoid = c->avoid,
                                  .avoid_count = (c->avoid[0] > 0) + (c->avoid[1] > 0)};
        bool found = route_pick_any(list, count, &r, limits, &pair);
        if (found != (c->p >= 0) || (found && (pair.prefill != (size_t)c->p || pair.decode != (size_t)c->d)))
            fail_msg("%s: found %d, %zu and %zu", c->name, found, pair.prefill, pair.decode);
    }
}

struct share_case {
    const char *name;
    struct route_worker workers[WORKERS_MAX];
    struct route_share shares[4];
    uint64_t avoid;
    int picked; /* -1 = none */
};

static const struct share_case share_cases[] = {
    {"the larger share", {{P}, {D}, {D}}, {{0, 1, 0.25, 0, ""}, {0, 2, 0.75, 0, ""}}, 0, 1},
    {"no share", {{P}, {D}, {D, .rows = 9}}, {{0, 1, 0, 0, ""}, {0, 2, 1, 0, ""}}, 0, 1},
    {"none but a share of nothing", {{P}, {D}}, {{0, 1, 0, 0, ""}}, 0, -1},
    {"gone", {{P}, {D}, {.phases = TS_PHASE_NONE}}, {{0, 2, 1, 0, ""}}, 0, -1},
    {"at its limit", {{P}, {D, .rows = 10}, {D}}, {{0, 1, 0.9, 0, ""}, {0, 2, 0.1, 0, ""}}, 0, 1},
    {"behind with its share", {{P}, {D}, {D}}, {{0, 1, 0.25, 0, ""}, {0, 2, 0.75, 9, ""}}, 0, 0},
    {"prompt tokens wait",
     {{P, .prompt_tokens = 90}, {P}, {D}},
     {{0, 2, 0.6, 0, ""}, {1, 2, 0.4, 0, ""}},
     0,
     1},
    {"sequences", {{P}, {D, .rows = 9}, {D, .rows = 2}}, {{0, 1, 0.5, 0, ""}, {0, 2, 0.5, 0, ""}}, 0, 1},
    {"no room", {{P}, {D, .kv_blocks = 9}, {D, .rows = 9}}, {{0, 1, 0.5, 0, ""}, {0, 2, 0.5, 0, ""}}, 0, 1},
    {"failed before",
     {{P}, {D, .key = 3}, {D, .kv_blocks = 9}},
     {{0, 1, 0.5, 0, ""}, {0, 2, 0.5, 0, ""}},
     3,
     1},
    {"both phases on one", {{B}, {D}}, {{0, 0, 1, 0, ""}}, 0, 0},
    {"not by one that decodes only", {{P}, {D}}, {{0, 0, 1, 0, ""}}, 0, -1},
    {"no relay", {{.phases = TS_PHASE_PREFILL}, {D}}, {{0, 1, 1, 0, ""}}, 0, -1},
    {"other KV", {{P}, {D, .fingerprint = 8}}, {{0, 1, 1, 0, ""}}, 0, -1},
};

static void flows(struct route_replica *replicas, const struct route_share *shares, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        replicas[shares[i].prefill].prompt_flow += shares[i].share * 100;
        replicas[shares[i].decode].row_flow += shares[i].share * 100;
    }
}

static void test_share(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(share_cases); i++) {
        const struct share_case *c = &share_cases[i];
        struct route_replica replicas[WORKERS_MAX] = {{NULL, 0, 0}};
        struct route_class of = {.prompt_flow = 100, .row_flow = 100, .shares = c->shares};
        struct route_request r = {
            .prompt_tokens = 10, .kv_blocks = 10, .avoid = &c->avoid, .avoid_count = c->avoid != 0};
        unsigned avoided = 9;
        while (of.share_count < 4 && c->shares[of.share_count].codec)
            of.share_count++;
        for (size_t w = 0; w < WORKERS_MAX && c->workers[w].phases; w++)
            replicas[w].worker = &c->workers[w];
        flows(replicas, c->shares, of.share_count);
        size_t picked = route_pick_share(&of, replicas, &r, limits, &avoided);
        if (picked != (c->picked < 0 ? ROUTE_NONE : (size_t)c->picked))
            fail_msg("%s: share %zu", c->name, picked);
        if (picked != ROUTE_NONE)
            assert_int_equal(avoided, 0);
    }
}

/* Over many requests the shares hold exactly, also when nothing ever waits. */
static void test_follows_shares(void **state)
{
    (void)state;
    struct route_worker p = worker(TS_PHASE_PREFILL), d0 = worker(TS_PHASE_DECODE), d1 = d0;
    struct route_share shares[] = {{0, 1, 0.2, 0, ""}, {0, 2, 0.8, 0, ""}};
    struct route_replica replicas[] = {{&p, 100, 0}, {&d0, 0, 20}, {&d1, 0, 80}};
    const struct route_class of = {.prompt_flow = 100, .row_flow = 100, .shares = shares, .share_count = 2};
    const struct route_request r = {.prompt_tokens = 10, .kv_blocks = 1};
    unsigned avoided;
    for (int i = 0; i < 1000; i++)
        shares[route_pick_share(&of, replicas, &r, limits, &avoided)].sent++;
    assert_in_range((uint64_t)shares[0].sent, 199, 201);
}

/* Two prefill workers of equal shares, one of which is twice as fast: it does more, and nobody starves. */
static void test_corrects_load(void **state)
{
    (void)state;
    struct route_worker p0 = worker(TS_PHASE_PREFILL), p1 = p0, d = worker(TS_PHASE_DECODE);
    struct route_share shares[] = {{0, 2, 0.5, 0, ""}, {1, 2, 0.5, 0, ""}};
    struct route_replica replicas[] = {{&p0, 50, 0}, {&p1, 50, 0}, {&d, 0, 100}};
    const struct route_class of = {.prompt_flow = 100, .row_flow = 100, .shares = shares, .share_count = 2};
    const struct route_request r = {.prompt_tokens = 100, .kv_blocks = 1};
    const struct route_limits none = {1000000, 1000000};
    unsigned avoided;
    for (int i = 0; i < 3000; i++) {
        size_t picked = route_pick_share(&of, replicas, &r, none, &avoided);
        shares[picked].sent++;
        (picked == 0 ? &p0 : &p1)->prompt_tokens += 100;
        p0.prompt_tokens -= p0.prompt_tokens < 65 ? p0.prompt_tokens : 65;
        p1.prompt_tokens -= p1.prompt_tokens < 32 ? p1.prompt_tokens : 32;
    }
    assert_in_range((uint64_t)shares[0].sent, 1600, 2050);
}

/* Nearest in the logarithms: 300 is nearer to 1000 than to 50; ties go to the first. */
static void test_classes(void **state)
{
    (void)state;
    const struct route_class classes[] = {
        {.log_prompt = 3.912, .log_output = 4.605}, /* 50, 100 */
        {.log_prompt = 6.908, .log_output = 4.605}, /* 1000, 100 */
        {.log_prompt = 6.908, .log_output = 6.908}, /* 1000, 1000 */
    };
    assert_int_equal(route_class_of(classes, 3, 10, 10), 0);
    assert_int_equal(route_class_of(classes, 3, 200, 100), 0);
    assert_int_equal(route_class_of(classes, 3, 300, 100), 1);
    assert_int_equal(route_class_of(classes, 3, 5000, 300), 1);
    assert_int_equal(route_class_of(classes, 3, 5000, 350), 2);
    assert_int_equal(route_class_of(classes, 3, 0, 0), 0);
    assert_int_equal(route_class_of(classes, 1, 5000, 5000), 0);
    const struct route_class ranges[] = {
        {.log_prompt = 4, .log_output = 3, .prompt_end = 100},
        {.log_prompt = 5, .log_output = 3, .prompt_begin = 100, .prompt_end = 300},
        {.log_prompt = 5, .log_output = 7, .prompt_begin = 100, .prompt_end = 300}};
    assert_int_equal(route_class_of(ranges, 3, 99, 1000),
                     0); /* the range counts, however near another centre is */
    assert_int_equal(route_class_of(ranges, 3, 100, 10), 1);
    assert_int_equal(route_class_of(ranges, 3, 299, 1000), 2); /* of two that hold it the nearer one */
    assert_int_equal(route_class_of(ranges, 3, 300, 1000), 2); /* of none the nearest of all */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_any), cmocka_unit_test(test_share),
                                       cmocka_unit_test(test_follows_shares),
                                       cmocka_unit_test(test_corrects_load), cmocka_unit_test(test_classes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
