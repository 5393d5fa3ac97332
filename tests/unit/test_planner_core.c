/* The planner core, as tables: terms, standing by, taking over, several routers, a search that takes long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "planner_core_fixture.h"

#define HELLO "planner:1 hello role=planner id=pl0"
/* id, host, model, relay, incarnation, phases, phase, ready */
#define WORKERS "workers=p0:h:m:r0:1:3:prefill:1,d0:h:m::2:3:decode:1"
#define MORE    WORKERS ",d1:h:m::3:3:decode:1"
#define PAIR    "replicas=0:p0:prefill,1:d0:decode shares=0:1:0:1.0"
#define START                                                                                                \
    {                                                                                                        \
        0, "start", "planner:1 connect endpoint=tcp://router\n" HELLO                                        \
    }

/* A snapshot is answered with a plan under a term of its own; each change of the cluster with the next
 * number. */
static void test_plans(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        START,
        {1, "planner:1 welcome term=4", ""},
        {2, "planner:1 snapshot version=7 term=4 number=9 holder=other " WORKERS,
         "planner:1 plan term=5 number=1 planner=pl0 algorithm=thunder snapshot_version=7 " PAIR},
        {3, "planner:1 plan_reply term=5 number=1 verdict=accepted", ""},
        {3, "planner:1 plan_reply term=5 number=1 verdict=applied", ""},
        {4, "planner:1 update version=8 term=5 number=1 holder=pl0 " WORKERS, ""}, /* as it was */
        {4, "planner:1 update version=9 term=5 number=1 holder=pl0 " MORE,
         "planner:1 plan term=5 number=2 snapshot_version=9"},
        {5, "planner:1 plan_reply term=5 number=2 verdict=refused reason=stale_snapshot",
         ""}, /* the newer one comes */
        {6, "planner:1 update version=10 term=5 holder=pl0 " MORE,
         "planner:1 plan number=3 snapshot_version=10"},
        {6, "planner:1 plan_reply term=5 number=2 verdict=refused reason=stale_snapshot",
         ""}, /* an old one */
        {7, "planner:1 plan_reply term=5 number=3 verdict=refused reason=bad_plan text=x", ""},
        {7, "planner:1 update version=11 term=5 holder=pl0 " MORE, ""},    /* it would be refused again */
        {8, "planner:1 update version=12 term=5 holder=pl0 workers=", ""}, /* nobody there: no plan */
        {9, "drain", "planner:1 drain\nstop"},
    };
    struct planner_settings settings = planner_test_settings();
    struct core_fixture *f = planner_begin(&settings);
    CORE_RUN(f, "plans", steps);
    planner_end(&f);
}

/* Superseded: it stands by while the other lives, and takes over when that is lost. */
static void test_standby(void **state)
{
    (void)state;
    static const struct core_step refused[] = {
        START,
        {1, "planner:1 welcome", ""},
        {2, "planner:1 snapshot version=1 " WORKERS, "planner:1 plan term=1 number=1"},
        {3, "planner:1 plan_reply term=1 number=1 verdict=refused reason=stale_plan", ""},
        {4, "planner:1 update version=2 term=3 holder=other " WORKERS, ""},
        {5, "planner:1 update version=3 term=3 holder=other " WORKERS, ""},
        {6, "planner:1 update version=4 term=3 holder= " WORKERS,
         "planner:1 plan term=4 number=1 snapshot_version=4"},
        {7, "planner:1 plan_reply term=1 number=1 verdict=refused reason=stale_plan",
         ""}, /* of an earlier term */
        {8, "planner:1 update version=5 term=4 holder=pl0 " MORE, "planner:1 plan term=4 number=2"},
    };
    static const struct core_step seen[] = {
        START,
        {1, "planner:1 welcome", ""},
        {2, "planner:1 snapshot version=1 " WORKERS, "planner:1 plan term=1 number=1"},
        {3, "planner:1 update version=2 term=2 holder=other " WORKERS, ""}, /* a newer term is in force */
        {4, "planner:1 update version=3 term=2 holder=other " WORKERS, ""},
        {5, "planner:1 update version=4 term=2 holder= " WORKERS, "planner:1 plan term=3 number=1"},
    };
    struct planner_settings settings = planner_test_settings();
    struct core_fixture *f = planner_begin(&settings);
    CORE_RUN(f, "refused", refused);
    planner_end(&f);
    f = planner_begin(&settings);
    CORE_RUN(f, "seen", seen);
    planner_end(&f);
}

static void test_sessions(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        START,
        {500, "planner:1 unreachable", ""}, /* a Hello that could not be sent: when it is due again */
        {1000, "tick", HELLO},
        {1001, "planner:1 welcome", ""},
        {1002, "planner:1 snapshot version=1 " WORKERS, "planner:1 plan term=1 number=1"},
        {1502, "tick", "planner:1 heartbeat"},
        {1503, "gap planner:1 update version=3 " WORKERS, HELLO},
        {1504, "planner:1 welcome term=1", ""},
        {1505, "planner:1 snapshot version=3 term=1 holder=pl0 " WORKERS,
         "planner:1 plan term=1 number=2"}, /* the term is kept */
        {1600, "planner:1 reset fenced=1", HELLO},
        {1601, "planner:1 welcome term=1", ""},
        {1700, "planner:1 unreachable", HELLO},
        {1701, "planner:1 welcome term=1", ""},
        {4700, "tick", "planner:1 heartbeat"},
        {4701, "tick", HELLO}, /* silence */
        {4702, "planner:7 heartbeat", ""},
        {4703, "planner:1 welcome", ""},
        {4704, "planner:1 drain", "planner:1 drain\nstop"},
    };
    struct planner_settings settings = planner_test_settings();
    settings.heartbeat_ms = 500;
    settings.timeout_ms = 3000;
    struct core_fixture *f = planner_begin(&settings);
    CORE_RUN(f, "sessions", steps);
    planner_end(&f);
}

/* Several routers: one term above all of them, numbers that rise over all, equal for what is planned at once.
 */
static void test_two_routers(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start",
         "planner:1 connect\nplanner:2 connect endpoint=tcp://second\nplanner:1 hello\nplanner:2 hello"},
        {1, "planner:1 welcome term=2", ""},
        {1, "planner:2 welcome term=8", ""},
        {2, "planner:1 snapshot version=5 term=2 holder=other " WORKERS,
         "planner:1 plan term=9 number=1 snapshot_version=5"},
        {3, "planner:2 snapshot version=6 term=8 holder=other " WORKERS,
         "planner:2 plan term=9 number=2 snapshot_version=6"},
        /* A third router's planner had the higher term: superseded everywhere, until that one is lost. */
        {4, "planner:2 update version=7 term=10 holder=third " WORKERS, ""},
        {5, "planner:1 update version=6 term=9 holder=pl0 " WORKERS, ""},
        {6, "planner:2 update version=8 term=10 holder= " WORKERS,
         "planner:1 plan term=11 number=1 snapshot_version=6\nplanner:2 plan term=11 number=1 "
         "snapshot_version=8"},
    };
    struct planner_settings settings = planner_test_settings();
    settings.routers[1] = "tcp://second";
    settings.router_count = 2;
    struct core_fixture *f = planner_begin(&settings);
    CORE_RUN(f, "two routers", steps);
    planner_end(&f);
}

/* Routers that know different workers: one plan, over those of the router that knows most; the other one gets
 * the part that it knows, whole again. */
static void test_two_clusters(void **state)
{
    (void)state;
    static const struct core_step steps[] = {
        {0, "start", "planner:1 connect\nplanner:2 connect\nplanner:1 hello\nplanner:2 hello"},
        {1, "planner:1 welcome", ""},
        {1, "planner:2 welcome", ""},
        {2, "planner:1 snapshot version=1 " WORKERS, "planner:1 plan term=1 number=1 " PAIR},
        {3, "planner:2 snapshot version=4 " MORE,
         "planner:2 plan term=1 number=2 snapshot_version=4 replicas=*3 shares=0:1:0:0.5,0:2:0:0.5"},
        {4, "planner:1 unreachable", "planner:1 hello"},
        {5, "planner:1 welcome term=1", ""},
        {6, "planner:1 snapshot version=9 term=1 holder=pl0 " WORKERS,
         "planner:1 plan term=1 number=3 snapshot_version=9 " PAIR},
        {7, "planner:1 update version=10 term=1 holder=pl0 " MORE,
         "planner:1 plan term=1 number=4 snapshot_version=10 replicas=*3"},
    };
    struct planner_settings settings = planner_test_settings();
    settings.routers[1] = "tcp://second";
    settings.router_count = 2;
    struct core_fixture *f = planner_begin(&settings);
    CORE_RUN(f, "two clusters", steps);
    planner_end(&f);
}

/* --- a search that needs several steps --- */

struct plan_search {
    const struct plan_problem *problem;
    uint64_t left;
};

static int open_searches;

static struct plan_search *slow_open(const struct plan_problem *problem, struct ts_error *err)
{
    (void)err;
    struct plan_search *s = ts_xcalloc(1, sizeof *s);
    s->problem = problem;
    s->left = 25;
    open_searches++;
    return s;
}

static bool slow_step(struct plan_search *s, uint64_t budget)
{
    assert_int_equal(budget, 10);
    s->left = s->left > budget ? s->left - budget : 0;
    return s->left == 0;
}

/* The workers as they are, with half of the requests in time. */
static struct ts_plan *slow_best(struct plan_search *s)
{
    const struct ts_plan *current = s->problem->current;
    struct ts_plan *plan = ts_plan_new(current->group_count, 1);
    for (uint32_t i = 0; i < current->group_count; i++)
        plan->groups[i] = current->groups[i];
    plan->flows[0] = (struct ts_flow){.prefill = 0, .decode = 1, .rate = 4, .attained = 2};
    plan->objective = 2;
    return plan;
}

static void slow_close(struct plan_search **s)
{
    ts_free(*s);
    *s = NULL;
    open_searches--;
}

/* The same two workers, with the shape of their model. */
#define SHAPED_MORE SHAPED ",d1:h:m::3:3:decode:1:0:0:cpu:4:256:512:4:2:64:1000:3:100"
#define SHAPED                                                                                               \
    "workers=p0:h:m:r0:1:3:prefill:1:0:0:cpu:4:256:512:4:2:64:1000:3:100,"                                   \
    "d0:h:m::2:3:decode:1:0:0:cpu:4:256:512:4:2:64:1000:3:100"

static void test_slow_search(void **state)
{
    (void)state;
    static const struct plan_algorithm slow = {.version = PLAN_ALGORITHM_VERSION,
                                               .name = "slow",
                                               .summary = "",
                                               .open = slow_open,
                                               .step = slow_step,
                                               .best = slow_best,
                                               .close = slow_close};
    static const struct core_step steps[] = {
        START,
        {1, "planner:1 welcome", ""},
        {2, "planner:1 snapshot version=1 " SHAPED, ""},
        {2, "tick", ""}, /* it asks to go on at once */
        {2, "tick", "planner:1 plan term=1 number=1 snapshot_version=1 algorithm=slow attainment=0.5"},
        {3, "planner:1 update version=2 term=1 holder=pl0 " SHAPED_MORE, ""},
        {4, "planner:1 update version=3 term=1 holder=pl0 " SHAPED, ""}, /* over: it is as it was */
        {4, "planner:1 update version=4 term=1 holder=pl0 " SHAPED_MORE, ""},
        {4, "tick", ""},
        {4, "planner:1 update version=5 term=1 holder=pl0 " SHAPED_MORE,
         "planner:1 plan number=2 snapshot_version=5"}, /* nothing that matters: it goes on */
        {5, "planner:1 update version=6 term=1 holder=pl0 " SHAPED, ""},
    };
    struct planner_settings settings = planner_test_settings();
    settings.plan.algorithm = &slow;
    settings.step_work = 10;
    struct core_fixture *f = planner_begin(&settings);
    f->busy = true;
    CORE_RUN(f, "slow search", steps);
    assert_int_equal(planner_core_deadline(f->driver.core), f->now);
    /* Superseded in the middle of it: there is nothing to search for, and no reason to wake. */
    f->busy = false;
    core_step_one(f, 6, "planner:1 plan_reply term=1 number=2 verdict=refused reason=stale_plan", "");
    assert_int_equal(open_searches, 0);
    core_step_one(f, 7, "planner:1 unreachable", HELLO);
    planner_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans),       cmocka_unit_test(test_standby),
        cmocka_unit_test(test_sessions),    cmocka_unit_test(test_two_routers),
        cmocka_unit_test(test_slow_search), cmocka_unit_test(test_two_clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
