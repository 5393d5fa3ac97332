/* Who serves a request: the pair with the least load for its share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "services/router/route_policy.h"

#define W(id, in_flight)                                                                                     \
    {                                                                                                        \
        id, 7, in_flight, 10, false                                                                          \
    }
#define FULL(id)                                                                                             \
    {                                                                                                        \
        id, 7, 10, 10, false                                                                                 \
    }
#define AVOID(id)                                                                                            \
    {                                                                                                        \
        id, 7, 0, 10, true                                                                                   \
    }
#define OTHER(id)                                                                                            \
    {                                                                                                        \
        id, 8, 0, 10, false                                                                                  \
    } /* another model */

struct pick_case {
    const char *name;
    struct route_worker prefill[3], decode[3];
    struct route_share shares[4];
    int p, d; /* chosen; -1 = nobody */
    const char *codec;
};

static const struct pick_case cases[] = {
    {"nobody", {{0}}, {{0}}, {{0}}, -1, -1, NULL},
    {"no decode", {W("p0", 0)}, {{0}}, {{0}}, -1, -1, NULL},
    {"one pair", {W("p0", 0)}, {W("d0", 0)}, {{0}}, 0, 0, NULL},
    {"first of equals", {W("p0", 0), W("p1", 0)}, {W("d0", 0), W("d1", 0)}, {{0}}, 0, 0, NULL},
    {"least load", {W("p0", 3), W("p1", 1)}, {W("d0", 5), W("d1", 6)}, {{0}}, 1, 0, NULL},
    {"at its limit", {FULL("p0"), W("p1", 9)}, {W("d0", 0)}, {{0}}, 1, 0, NULL},
    {"all full", {FULL("p0")}, {W("d0", 0)}, {{0}}, -1, -1, NULL},
    {"other model", {W("p0", 0)}, {OTHER("d0"), W("d1", 9)}, {{0}}, 0, 1, NULL},
    {"models apart", {W("p0", 0)}, {OTHER("d0")}, {{0}}, -1, -1, NULL},
    {"avoided", {AVOID("p0"), W("p1", 9)}, {W("d0", 0)}, {{0}}, 1, 0, NULL},
    {"all avoided", {AVOID("p0")}, {AVOID("d0")}, {{0}}, 0, 0, NULL},
    {"fewest avoided", {AVOID("p0"), W("p1", 9)}, {AVOID("d0"), AVOID("d1")}, {{0}}, 1, 0, NULL},
    {"the larger share",
     {W("p0", 0)},
     {W("d0", 0), W("d1", 0)},
     {{"p0", "d0", 0.25, ""}, {"p0", "d1", 0.75, "none"}},
     0,
     1,
     "none"},
    {"share against load: (1+0)/0.25 < (1+3)/0.75",
     {W("p0", 0)},
     {W("d0", 0), W("d1", 3)},
     {{"p0", "d0", 0.25, "i4"}, {"p0", "d1", 0.75, ""}},
     0,
     0,
     "i4"},
    {"no share",
     {W("p0", 0)},
     {W("d0", 0), W("d1", 9)},
     {{"p0", "d0", 0, ""}, {"p0", "d1", 1, ""}},
     0,
     1,
     NULL},
    {"the plan's are gone",
     {W("p0", 0)},
     {W("d2", 1)},
     {{"p0", "d0", 0.5, ""}, {"p0", "d1", 0.5, ""}},
     0,
     0,
     NULL},
    {"the plan's are full", {W("p0", 0)}, {FULL("d0"), W("d1", 1)}, {{"p0", "d0", 1, ""}}, 0, 1, NULL},
    {"the plan's failed before", {W("p0", 0)}, {AVOID("d0"), W("d1", 1)}, {{"p0", "d0", 1, ""}}, 0, 1, NULL},
};

static size_t workers_in(const struct route_worker *list)
{
    size_t n = 0;
    while (n < 3 && list[n].id)
        n++;
    return n;
}

static void test_pick(void **state)
{
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        const struct pick_case *c = &cases[i];
        struct route_choice choice = {9, 9, NULL};
        size_t shares = 0;
        while (shares < 4 && c->shares[shares].prefill)
            shares++;
        bool found = route_pick(c->prefill, workers_in(c->prefill), c->decode, workers_in(c->decode),
                                c->shares, shares, &choice);
        if (found != (c->p >= 0) ||
            (found && (choice.prefill != (size_t)c->p || choice.decode != (size_t)c->d)))
            fail_msg("%s: found %d, %zu and %zu", c->name, found, choice.prefill, choice.decode);
        if (found && c->codec)
            assert_string_equal(choice.codec, c->codec);
        else if (found)
            assert_null(choice.codec);
    }
}

/* Over many requests the load follows the shares. */
static void test_follows_shares(void **state)
{
    (void)state;
    struct route_worker p[] = {{"p0", 7, 0, 100000, false}},
                        d[] = {{"d0", 7, 0, 100000, false}, {"d1", 7, 0, 100000, false}};
    const struct route_share shares[] = {{"p0", "d0", 0.2, ""}, {"p0", "d1", 0.8, ""}};
    for (int i = 0; i < 1000; i++) {
        struct route_choice choice;
        assert_true(route_pick(p, 1, d, 2, shares, 2, &choice));
        d[choice.decode].in_flight++;
    }
    assert_in_range(d[0].in_flight, 198, 202);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pick), cmocka_unit_test(test_follows_shares)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
