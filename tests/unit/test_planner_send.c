/* Whether a plan is worth a message: requests that go elsewhere, or whose KV goes as another codec. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "services/planner/planner_impl.h"

#define STR(text)                                                                                            \
    {                                                                                                        \
        text, sizeof text - 1                                                                                \
    }

static const struct ts_plan_replica replicas[] = {{.id = 0, .worker = STR("p0"), .phase = TS_PHASE_PREFILL},
                                                  {.id = 1, .worker = STR("d0"), .phase = TS_PHASE_DECODE},
                                                  {.id = 2, .worker = STR("d1"), .phase = TS_PHASE_DECODE}};

struct shares { /* of p0: to d0 exact, to d0 in four bits, to d1 exact */
    double exact, bits, elsewhere;
};

static struct ts_msg_plan plan_of(const struct shares *shares, struct ts_plan_share *items)
{
    items[0] = (struct ts_plan_share){0, 1, 0, shares->exact, STR("none")};
    items[1] = (struct ts_plan_share){0, 1, 0, shares->bits, STR("i4")};
    items[2] = (struct ts_plan_share){0, 2, 0, shares->elsewhere, STR("none")};
    return (struct ts_msg_plan){.replicas = {replicas, 3}, .shares = {items, 3}};
}

static void test_differs(void **state)
{
    (void)state;
    static const struct {
        struct shares before, after;
        bool differs; /* by more than a tenth */
    } cases[] = {
        {{0.5, 0, 0.5}, {0.5, 0, 0.5}, false},     {{0.5, 0, 0.5}, {0.45, 0, 0.55}, false},
        {{0.5, 0, 0.5}, {0.35, 0, 0.65}, true},    {{0.5, 0, 0.5}, {0, 0.5, 0.5}, true},
        {{0.5, 0, 0.5}, {0.45, 0.05, 0.5}, false}, {{0.2, 0.8, 0}, {0.8, 0.2, 0}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ts_plan_share before[3], after[3];
        struct ts_msg_plan a = plan_of(&cases[i].before, before), b = plan_of(&cases[i].after, after);
        if (plan_differs(&a, &b, 0.1) != cases[i].differs)
            fail_msg("case %zu", i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_differs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
