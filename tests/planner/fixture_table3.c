#include "tests/planner/fixture_table3.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

struct row { /* `replicas` equal ones; their stages in order, each of tp devices of the type */
    enum ts_phase phase;
    uint32_t replicas, tp, stages;
    const char *types[2];
};

static const struct row coding_rows[] = {
    {TS_PHASE_PREFILL, 4, 2, 1, {"A40"}},
    {TS_PHASE_PREFILL, 1, 4, 1, {"A5000"}},
    {TS_PHASE_PREFILL, 2, 2, 1, {"A6000"}},
    {TS_PHASE_PREFILL, 1, 2, 2, {"A5000", "3090Ti"}},
    {TS_PHASE_DECODE, 1, 2, 2, {"3090Ti", "3090Ti"}},
    {TS_PHASE_DECODE, 2, 1, 2, {"A6000", "A6000"}},
    {TS_PHASE_DECODE, 1, 2, 2, {"A5000", "3090Ti"}},
};

static const struct row conversation_rows[] = {
    {TS_PHASE_PREFILL, 3, 2, 1, {"A40"}},
    {TS_PHASE_PREFILL, 1, 2, 2, {"A5000", "3090Ti"}},
    {TS_PHASE_DECODE, 1, 2, 2, {"3090Ti", "3090Ti"}},
    {TS_PHASE_DECODE, 1, 1, 2, {"A40", "A40"}},
    {TS_PHASE_DECODE, 1, 2, 2, {"A5000", "A5000"}},
    {TS_PHASE_DECODE, 4, 1, 2, {"A6000", "A6000"}},
    {TS_PHASE_DECODE, 1, 2, 2, {"A5000", "3090Ti"}},
};

struct taking {
    const struct ts_cluster *cluster;
    bool *used;
};

static uint32_t free_in(const struct taking *t, uint32_t cell)
{
    uint32_t count = 0;
    for (uint32_t g = 0; g < t->cluster->gpu_count; g++)
        count += !t->used[g] && t->cluster->gpus[g].alive &&
                 t->cluster->gpus[g].node == t->cluster->cells[cell].node &&
                 t->cluster->gpus[g].type == t->cluster->cells[cell].type;
    return count;
}

/* Catalogues say "3090Ti" or "RTX3090Ti". */
static bool is_type(const struct ts_device_type *type, const char *name)
{
    size_t length = strlen(type->name), end = strlen(name);
    return length >= end && strcmp(type->name + length - end, name) == 0;
}

/* From the cell of the type that has least to spare, after `near` when that one has enough. */
static uint32_t pick_cell(const struct taking *t, const char *type, uint32_t need, uint32_t near)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t c = 0; c < t->cluster->cell_count; c++) {
        if (!is_type(&t->cluster->types[t->cluster->cells[c].type], type) || free_in(t, c) < need)
            continue;
        if (best == UINT32_MAX || c == near || (best != near && free_in(t, c) < free_in(t, best)))
            best = c;
    }
    TS_ASSERT(best != UINT32_MAX);
    return best;
}

static void take(struct taking *t, uint32_t cell, struct ts_stage *stage)
{
    uint32_t taken = 0;
    for (uint32_t g = 0; g < t->cluster->gpu_count && taken < stage->tp; g++) {
        const struct ts_gpu *gpu = &t->cluster->gpus[g];
        if (!t->used[g] && gpu->alive && gpu->node == t->cluster->cells[cell].node &&
            gpu->type == t->cluster->cells[cell].type) {
            stage->gpus[taken++] = g;
            t->used[g] = true;
        }
    }
}

struct ts_plan *fixture_table3(const struct ts_cluster *cluster, const struct ts_model *model, bool coding)
{
    const struct row *rows = coding ? coding_rows : conversation_rows;
    const uint32_t count = TS_ARRAY_SIZE(coding_rows);
    struct taking t = {cluster, ts_xcalloc(cluster->gpu_count, sizeof(bool))};
    uint32_t groups = 0, group = 0;
    _Static_assert(TS_ARRAY_SIZE(coding_rows) == TS_ARRAY_SIZE(conversation_rows), "both tables");
    for (uint32_t r = 0; r < count; r++)
        groups += rows[r].replicas;
    struct ts_plan *plan = ts_plan_new(groups, 0);
    (void)snprintf(plan->algorithm, sizeof plan->algorithm, "table 3");
    for (uint32_t r = 0; r < count; r++) {
        for (uint32_t i = 0; i < rows[r].replicas; i++) {
            struct ts_group *to = &plan->groups[group++];
            uint32_t cell = UINT32_MAX;
            to->phase = rows[r].phase;
            to->stage_count = rows[r].stages;
            for (uint32_t s = 0; s < rows[r].stages; s++) {
                to->stages[s].tp = rows[r].tp;
                to->stages[s].layers = model->layers / rows[r].stages;
                cell = pick_cell(&t, rows[r].types[s], rows[r].tp, cell);
                take(&t, cell, &to->stages[s]);
            }
        }
    }
    ts_free(t.used);
    return plan;
}
