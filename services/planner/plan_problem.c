#include "services/planner/plan_problem.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"

#define STAGES_DEFAULT 8

struct plan_problem plan_problem_defaults(const struct ts_cluster *cluster, const struct ts_model *model,
                                          const struct ts_demand *demand)
{
    return (struct plan_problem){
        .cluster = cluster,
        .model = model,
        .demand = demand,
        .objective = PLAN_ATTAINMENT,
        .attainment = 0.9,
        .colocate = true,
        .codec_allowed = {[TS_COST_CODEC_NONE] = true, [TS_COST_CODEC_I4] = true},
        .max_stages = STAGES_DEFAULT,
        .depth = PLAN_REGROUP,
        .seed = 1,
        .effort = 1,
    };
}

static enum ts_status check_model(const struct ts_model *model, struct ts_error *err)
{
    const struct {
        const char *key;
        uint32_t value, max;
    } counts[] = {{"layers", model->layers, TS_MODEL_LAYERS_MAX},
                  {"hidden", model->hidden, 1 << 20},
                  {"intermediate", model->intermediate, 1 << 24},
                  {"heads", model->heads, 1 << 16},
                  {"kv_heads", model->kv_heads, 1 << 16},
                  {"head_dim", model->head_dim, 1 << 16},
                  {"vocab", model->vocab, 1 << 26}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(counts); i++) {
        if (counts[i].value == 0 || counts[i].value > counts[i].max)
            return ts_error_set(err, TS_EINVAL, "model \"%s\": %s is %u; it must lie in 1 to %u", model->name,
                                counts[i].key, counts[i].value, counts[i].max);
    }
    return TS_OK;
}

/* Necessary, not sufficient: all devices together hold the weights. Whether some group really does is found
 * out by the search. */
static enum ts_status check_fits(const struct plan_problem *problem, struct ts_error *err)
{
    const struct ts_cluster *cluster = problem->cluster;
    double need = problem->model->layers * ts_cost_layer_weight_bytes(problem->model) +
                  ts_cost_head_weight_bytes(problem->model);
    double have = 0;
    for (uint32_t i = 0; i < cluster->cell_count; i++)
        have += cluster->cells[i].count * ts_cost_usable_bytes(&cluster->types[cluster->cells[i].type]);
    if (need > have)
        return ts_error_set(err, TS_EINVAL,
                            "model \"%s\" does not fit: its weights take %.1f GB and all devices of cluster "
                            "\"%s\" together have %.1f GB usable; add devices or take a smaller model",
                            problem->model->name, need / 1e9, cluster->name, have / 1e9);
    return TS_OK;
}

enum ts_status plan_problem_check(const struct plan_problem *problem, struct ts_error *err)
{
    if (problem->cluster->cell_count == 0)
        return ts_error_set(err, TS_EINVAL, "cluster \"%s\": no device is alive; add one",
                            problem->cluster->name);
    enum ts_status status = check_model(problem->model, err);
    if (status == TS_OK)
        status = ts_demand_check(problem->demand, err);
    if (status != TS_OK)
        return status;
    if (!(ts_demand_rate(problem->demand) > 0))
        return ts_error_set(err, TS_EINVAL,
                            "workload \"%s\": its rate is 0, so there is nothing to plan for; set a rate",
                            problem->demand->name);
    if (!(problem->attainment > 0 && problem->attainment <= 1))
        return ts_error_set(err, TS_EINVAL, "attainment is %g; it must lie above 0 and up to 1",
                            problem->attainment);
    if (problem->max_stages > TS_STAGES_MAX)
        return ts_error_set(err, TS_EINVAL, "max_stages is %u; at most %d", problem->max_stages,
                            TS_STAGES_MAX);
    if (!(problem->effort >= 0 && problem->effort <= 1e6))
        return ts_error_set(err, TS_EINVAL, "effort is %g; it must lie in 0 to 1e6", problem->effort);
    if (problem->depth != PLAN_REGROUP && !problem->current)
        return ts_error_set(err, TS_EINVAL, "to re-route or flip, the plan in force is needed");
    return check_fits(problem, err);
}

void plan_state_init(struct plan_state *state)
{
    *state = (struct plan_state){0};
}

void plan_state_fini(struct plan_state *state)
{
    ts_free(state->groups);
    *state = (struct plan_state){0};
}

static void reserve(struct plan_state *state, uint32_t need)
{
    void *items = state->groups;
    size_t capacity = state->capacity;
    ts_array_reserve(&items, &capacity, need, sizeof *state->groups);
    state->groups = items;
    state->capacity = (uint32_t)capacity;
}

void plan_state_copy(struct plan_state *into, const struct plan_state *from)
{
    reserve(into, from->count);
    if (from->count)
        memcpy(into->groups, from->groups, from->count * sizeof *into->groups);
    into->count = from->count;
}

struct plan_group *plan_state_add(struct plan_state *state, const struct plan_group *group)
{
    reserve(state, state->count + 1);
    state->groups[state->count] = *group;
    return &state->groups[state->count++];
}

void plan_state_remove(struct plan_state *state, uint32_t index)
{
    TS_ASSERT(index < state->count);
    state->groups[index] = state->groups[--state->count];
}

static uint64_t group_hash(const struct plan_group *group)
{
    uint64_t hash = ts_splitmix64((uint64_t)group->phase + 1);
    for (uint32_t i = 0; i < group->part_count; i++) {
        const struct plan_part *part = &group->parts[i];
        hash = ts_splitmix64(hash ^ ((uint64_t)part->cell << 16 | (uint64_t)part->count << 8 | part->tp));
    }
    return hash;
}

/* A sum, so that the order of the groups does not matter; each term is mixed once more, so that equal groups
 * do not cancel out as they would under exclusive or. */
uint64_t plan_state_hash(const struct plan_state *state)
{
    uint64_t sum = state->count;
    for (uint32_t i = 0; i < state->count; i++)
        sum += ts_splitmix64(group_hash(&state->groups[i]));
    return sum;
}

void plan_state_idle(const struct plan_problem *problem, const struct plan_state *state, uint32_t *idle)
{
    for (uint32_t i = 0; i < problem->cluster->cell_count; i++)
        idle[i] = problem->cluster->cells[i].count;
    for (uint32_t i = 0; i < state->count; i++) {
        const struct plan_group *group = &state->groups[i];
        for (uint32_t p = 0; p < group->part_count; p++) {
            TS_ASSERT(idle[group->parts[p].cell] >= group->parts[p].count);
            idle[group->parts[p].cell] -= group->parts[p].count;
        }
    }
}
