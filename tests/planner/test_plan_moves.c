/* Moves as values: what goes and comes when one is applied; the tabu list; remembered picks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "services/planner/thunder/plan_moves.h"
#include "tests/planner/planner_fixture.h"

static struct plan_group group_of(uint16_t cell, uint8_t count, uint8_t tp, enum ts_phase phase)
{
    return (struct plan_group){.phase = phase, .part_count = 1, .parts = {{cell, count, tp}}};
}

/* How often a group of this cell is in the state. */
static uint32_t count_of(const struct plan_state *state, uint16_t cell)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < state->count; i++)
        count += state->groups[i].parts[0].cell == cell;
    return count;
}

static bool goes(const struct plan_move *move, uint32_t group)
{
    for (uint32_t i = 0; i < move->out_count; i++) {
        if (move->out[i] == group)
            return true;
    }
    return false;
}

/* Random moves of all sizes (0..3 out, 0..3 in) on states of 0..6 groups, each of its own cell. What goes is
 * gone, what comes is there, the rest stays; and where as many come as go, at its index. */
static void test_apply(void **unused)
{
    (void)unused;
    struct ts_rng rng;
    struct plan_state state;
    ts_rng_init(&rng, 3);
    plan_state_init(&state);
    for (int round = 0; round < 3000; round++) {
        struct plan_move move = {0};
        while (state.count > 0)
            plan_state_remove(&state, 0);
        for (uint64_t i = ts_rng_below(&rng, 7); i > 0; i--) {
            struct plan_group group = group_of((uint16_t)state.count, 1, 1, TS_PHASE_PREFILL);
            plan_state_add(&state, &group);
        }
        const uint32_t before = state.count;
        for (uint32_t i = 0; i < before && move.out_count < PLAN_MOVE_GROUPS; i++) {
            if (ts_rng_below(&rng, 2))
                move.out[move.out_count++] = i;
        }
        move.in_count = (uint8_t)ts_rng_below(&rng, PLAN_MOVE_GROUPS + 1);
        for (uint32_t i = 0; i < move.in_count; i++)
            move.in[i] = group_of((uint16_t)(100 + i), 2, 2, TS_PHASE_DECODE);
        plan_move_apply(&state, &move);
        assert_int_equal(state.count, before - move.out_count + move.in_count);
        for (uint32_t i = 0; i < move.in_count; i++)
            assert_int_equal(count_of(&state, (uint16_t)(100 + i)), 1);
        for (uint32_t i = 0; i < before; i++) {
            assert_int_equal(count_of(&state, (uint16_t)i), !goes(&move, i));
            if (!goes(&move, i) && move.out_count <= move.in_count)
                assert_int_equal(state.groups[i].parts[0].cell, i);
        }
    }
    plan_state_fini(&state);
}

static void test_tabu_forgets_the_oldest(void **unused)
{
    (void)unused;
    struct plan_tabu tabu;
    struct plan_state groups;
    plan_state_init(&groups);
    plan_tabu_reset(&tabu, 3);
    for (uint32_t i = 0; i < 4; i++) {
        struct plan_group group = group_of((uint16_t)i, 4, 2, TS_PHASE_PREFILL);
        plan_state_add(&groups, &group);
        plan_tabu_add(&tabu, &groups, &(struct plan_move){.out_count = 1, .out = {i}});
    }
    for (uint32_t i = 0; i < 4; i++) {
        struct plan_move move = {.in_count = 1, .in = {groups.groups[i]}};
        assert_int_equal(plan_tabu_has(&tabu, &move), i != 0);
        move.in[0].phase = TS_PHASE_DECODE;
        assert_false(plan_tabu_has(&tabu, &move));
    }
    plan_state_fini(&groups);
}

/* Picks of one part are what plan_shape_choose answers, those of two are never better than it, but for those
 * that split a part into two TP degrees: there are some, and one part is split only for the better. Asked
 * again, they are the same; without a grant, only what was asked before is answered. */
static void test_picks(void **unused)
{
    (void)unused;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("8xA40|4xA5000+4x3090Ti", 40), PLANNER_FIXTURE_CODING,
                         1);
    struct plan_shapes *shapes = plan_shapes_new(&f.problem);
    struct plan_picks *picks = plan_picks_new(shapes);
    uint32_t made = 0, refused = 0, split = 0;
    for (int round = 0; round < 3; round++) {
        if (round == 1)
            plan_picks_grant(picks, 0);
        for (uint8_t a = 0; a <= 8; a++) {
            for (uint8_t b = 0; b <= 4; b++) {
                struct plan_group group = {.phase = TS_PHASE_DECODE}, asked;
                if (a)
                    group.parts[group.part_count++] = (struct plan_part){0, a, 0};
                if (b)
                    group.parts[group.part_count++] = (struct plan_part){2, b, 0};
                if (!group.part_count)
                    continue;
                asked = group;
                bool fits = plan_shape_choose(shapes, &asked);
                bool found = plan_picks_find(picks, &group); /* also where only a split one fits */
                assert_true(found || !fits);
                made += fits;
                refused += !fits;
                bool whole = group.part_count == asked.part_count;
                split += fits && !whole;
                if (fits && group.part_count == 1)
                    assert_ptr_equal(group.shape, asked.shape);
                if (fits && whole)
                    assert_true(group.shape->score <= asked.shape->score);
                if (fits && !whole && asked.part_count == 1)
                    assert_true(group.shape->score > asked.shape->score);
            }
        }
    }
    assert_true(made > 0 && refused > 0 && split > 0);
    struct plan_group unseen = {.phase = TS_PHASE_PREFILL, .part_count = 1, .parts = {{0, 8, 0}}};
    assert_false(plan_picks_find(picks, &unseen));
    plan_picks_grant(picks, 1);
    assert_true(plan_picks_find(picks, &unseen));
    plan_picks_destroy(&picks);
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&f);
}

/* One node: as many requests as the weaker side; two nodes: what the cards let through; more of the other
 * side gains little; colocated groups need neither. */
static void test_gauge(void **unused)
{
    (void)unused;
    struct planner_fixture f;
    planner_fixture_init(&f, planner_fixture_cluster("8xA40|8xA40", 0.1), PLANNER_FIXTURE_CODING, 1e6);
    struct plan_shapes *shapes = plan_shapes_new(&f.problem);
    struct plan_picks *picks = plan_picks_new(shapes);
    struct plan_gauge *gauge = plan_gauge_new(shapes);
    struct plan_state state;
    plan_state_init(&state);
    struct plan_group prefill = {.phase = TS_PHASE_PREFILL, .part_count = 1, .parts = {{0, 4, 0}}};
    struct plan_group here = {.phase = TS_PHASE_DECODE, .part_count = 1, .parts = {{0, 4, 0}}}, far = here;
    struct plan_group both = {.phase = TS_PHASE_BOTH, .part_count = 1, .parts = {{1, 8, 0}}};
    far.parts[0].cell = 1;
    assert_true(plan_picks_find(picks, &prefill) && plan_picks_find(picks, &here));
    assert_true(plan_picks_find(picks, &far) && plan_picks_find(picks, &both));
    const struct plan_group *all[] = {&prefill, &here, &far, &both};
    plan_gauge_set(gauge, &state);
    double weaker = prefill.shape->score < here.shape->score ? prefill.shape->score : here.shape->score;
    double one = plan_gauge_of(gauge, NULL, 0, &all[0], 2);
    assert_true(one > 0.8 * weaker && one <= weaker);
    assert_true(plan_gauge_of(gauge, NULL, 0, &all[0], 1) == 0);
    const struct plan_group *apart[] = {&prefill, &far};
    assert_true(plan_gauge_of(gauge, NULL, 0, apart, 2) < 0.2 * one);
    plan_state_add(&state, &prefill);
    plan_state_add(&state, &here);
    plan_gauge_set(gauge, &state);
    assert_true(plan_gauge_of(gauge, NULL, 0, NULL, 0) == one);
    double with_both = plan_gauge_of(gauge, NULL, 0, &all[3], 1);
    assert_true(with_both > one + 0.99 * both.shape->score && with_both < one + 1.01 * both.shape->score);
    assert_true(plan_gauge_of(gauge, &all[1], 1, &all[1], 1) == one);
    plan_state_fini(&state);
    plan_gauge_destroy(&gauge);
    plan_picks_destroy(&picks);
    plan_shapes_destroy(&shapes);
    planner_fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_apply),
        cmocka_unit_test(test_tabu_forgets_the_oldest),
        cmocka_unit_test(test_picks),
        cmocka_unit_test(test_gauge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
