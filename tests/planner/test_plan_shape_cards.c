/* Real cards by the catalogues of conf/devices, through the whole lower level. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "common/inputs/ts_inputs.h"
#include "services/planner/shape/plan_shape.h"
#include "tests/planner/planner_fixture.h"

/* Four cards of one kind in one node, two by two. */
static const struct plan_shape *shape_of(struct planner_fixture *fixture, struct plan_shapes **shapes,
                                         const char *devices, const char *name, enum ts_phase phase)
{
    struct ts_error err;
    struct ts_catalogue *catalogue = NULL;
    assert_int_equal(ts_catalogue_load(TS_CONF_DIR, devices, &catalogue, &err), TS_OK);
    const struct ts_device_type *type = ts_catalogue_device(catalogue, name);
    assert_non_null(type);
    planner_fixture_init(fixture, planner_fixture_cluster("4xA40", 10), PLANNER_FIXTURE_CONVERSATION, 10);
    struct ts_link peer = fixture->cluster->types[0].peer; /* the same for all: cards are compared */
    fixture->cluster->types[0] = *type;
    fixture->cluster->types[0].peer = peer;
    ts_catalogue_destroy(&catalogue);
    fixture->demand = planner_fixture_demand(PLANNER_FIXTURE_CONVERSATION, 4, 10, 10);
    *shapes = plan_shapes_new(&fixture->problem);
    struct plan_group group = {.phase = phase, .part_count = 1, .parts = {{0, 4, 2}}};
    assert_true(plan_shape_find(*shapes, &group));
    assert_true(group.shape->point_count > 0);
    return group.shape;
}

/* Least time per token of four cards, or the prefill of the mean prompt. */
static double time_of(const char *devices, const char *name, enum ts_phase phase)
{
    struct planner_fixture fixture;
    struct plan_shapes *shapes;
    const struct plan_shape *shape = shape_of(&fixture, &shapes, devices, name, phase);
    double time = phase == TS_PHASE_PREFILL ? shape->prefill_s[2] : shape->points[0].step_s;
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&fixture);
    return time;
}

/* More bandwidth against more arithmetic: section 2 of the paper is built on this. */
static void test_3090_against_a40(void **state)
{
    (void)state;
    static const char *const catalogues[] = {"measured", "paper"};
    for (size_t i = 0; i < 2; ++i) {
        assert_true(time_of(catalogues[i], "3090Ti", TS_PHASE_DECODE) <
                    0.95 * time_of(catalogues[i], "A40", TS_PHASE_DECODE));
        assert_true(time_of(catalogues[i], "3090Ti", TS_PHASE_PREFILL) >
                    1.3 * time_of(catalogues[i], "A40", TS_PHASE_PREFILL));
    }
}

/* A newer card of the same kind is better at both. */
static void test_generations(void **state)
{
    (void)state;
    static const enum ts_phase phases[] = {TS_PHASE_PREFILL, TS_PHASE_DECODE};
    for (size_t p = 0; p < 2; ++p) {
        assert_true(time_of("measured", "A100-80G", phases[p]) < time_of("measured", "A40", phases[p]));
        assert_true(time_of("measured", "H100", phases[p]) < time_of("measured", "A100-80G", phases[p]));
    }
    assert_true(time_of("measured", "H200", TS_PHASE_DECODE) < time_of("measured", "H100", TS_PHASE_DECODE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_3090_against_a40),
        cmocka_unit_test(test_generations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
