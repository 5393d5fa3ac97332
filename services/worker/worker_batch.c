/*
 * The engine: one batch at a time, decode rows first (streams wait for them), then prefill chunks.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/decode/decode_batch.h"
#include "services/prefill/prefill_batch.h"
#include "services/worker/worker_impl.h"

static uint32_t pending_of(const struct task *t)
{
    return t->prompt_count + (uint32_t)t->output_count - t->kv_length;
}

static struct task *youngest_ready(struct worker_core *core)
{
    for (struct task *t = core->tail; t; t = t->prev) {
        if (t->state == TASK_READY)
            return t;
    }
    return NULL;
}

/* Room for what is pending. Out of blocks, the youngest gives way until this one fits or is itself the
 * youngest. */
static bool make_room(struct worker_core *core, struct task *t)
{
    while (!task_take_blocks(core, t, t->prompt_count + (uint32_t)t->output_count)) {
        struct task *victim = youngest_ready(core);
        bool self = victim == t;
        core->counts.preempted++;
        task_fail(core, victim, TS_REASON_PREEMPTED, false, "preempted: the KV pool is full");
        if (self)
            return false;
    }
    return true;
}

static bool uses_penalties(const struct ts_sampling *s)
{
    return s->repetition_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0;
}

static void add_row(struct worker_core *core, struct task *t, uint32_t position, const uint32_t *tokens,
                    uint32_t count, bool sample)
{
    struct ts_batch_row *row = &core->rows[core->row_count];
    *row = (struct ts_batch_row){.tag = t->tag,
                                 .position = position,
                                 .tokens = {tokens, count},
                                 .blocks = {t->blocks, t->block_count},
                                 .sample = sample,
                                 .sample_index = (uint32_t)t->output_count};
    if (sample)
        row->sampling = t->sampling;
    if (sample && uses_penalties(&t->sampling)) {
        row->prompt_ids = (struct ts_u32s){t->prompt, t->prompt_count};
        row->output_ids = (struct ts_u32s){t->outputs, (uint32_t)t->output_count};
    }
    core->row_tasks[core->row_count++] = t;
    t->in_batch = true;
    t->taken = count;
}

static uint32_t collect(struct worker_core *core, enum task_state state, struct task **out)
{
    uint32_t count = 0;
    for (struct task *t = core->head, *next; t; t = next) {
        next = t->next;
        if (t->state == state && count < core->settings.max_rows)
            out[count++] = t;
    }
    return count;
}

static uint32_t add_decode_rows(struct worker_core *core, uint32_t budget)
{
    uint32_t max = core->settings.max_rows, used = 0;
    struct task **tasks = ts_arena_alloc(&core->out->arena, max * sizeof(struct task *));
    uint32_t *pending = ts_arena_alloc(&core->out->arena, max * sizeof *pending),
             *take = ts_arena_zalloc(&core->out->arena, max * sizeof *take);
    for (struct task *t = core->head; t;
         t = t->next) { /* memory first, oldest first: it may cost the youngest their place */
        if (t->state == TASK_READY && !make_room(core, t))
            break; /* it was the youngest, and is gone */
    }
    uint32_t count = collect(core, TASK_READY, tasks), fit = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (ts_kv_blocks_for(tasks[i]->prompt_count + (uint32_t)tasks[i]->output_count) >
            tasks[i]->block_count)
            continue;
        tasks[fit] = tasks[i];
        pending[fit++] = pending_of(tasks[i]);
    }
    decode_batch(pending, fit, budget, max, take);
    for (uint32_t i = 0; i < fit; i++) {
        struct task *t = tasks[i];
        if (take[i] > 0)
            add_row(core, t, t->kv_length, t->outputs + (t->kv_length - t->prompt_count), take[i],
                    take[i] == pending[i]);
        used += take[i];
    }
    return used;
}

static bool add_prefill_rows(struct worker_core *core, uint32_t budget)
{
    uint32_t max = core->settings.max_rows, before = core->row_count;
    struct task **tasks = ts_arena_alloc(&core->out->arena, max * sizeof(struct task *));
    struct prefill_candidate *candidates = ts_arena_zalloc(&core->out->arena, max * sizeof *candidates);
    uint32_t *take = ts_arena_zalloc(&core->out->arena, max * sizeof *take);
    uint32_t count = collect(core, TASK_PREFILLING, tasks);
    for (uint32_t i = 0; i < count; i++)
        candidates[i] = (struct prefill_candidate){tasks[i]->done, tasks[i]->prompt_count};
    prefill_batch(candidates, count, budget, max - core->row_count, take);
    for (uint32_t i = 0; i < count; i++) {
        struct task *t = tasks[i];
        bool sample = t->done + take[i] == t->prompt_count && t->output_count == 0;
        if (take[i] > 0)
            add_row(core, t, t->done, t->prompt + t->done, take[i], sample);
    }
    return core->row_count > before;
}

void batch_start(struct worker_core *core)
{
    if (core->batch)
        return;
    core->row_count = 0;
    uint32_t used = add_decode_rows(core, core->settings.max_batch_tokens);
    bool prefill = add_prefill_rows(core, core->settings.max_batch_tokens - used);
    if (core->row_count == 0)
        return;
    core->batch = core->next_batch++;
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_BATCH);
    a->batch = (struct ts_action_batch){
        .batch = core->batch, .rows = {core->rows, core->row_count}, .report_layers = prefill};
}

static const struct ts_batch_sample *sample_of(const struct ts_event_batch_done *m, uint64_t tag,
                                               uint32_t *cursor)
{
    for (; *cursor < m->samples.count; (*cursor)++) { /* in row order */
        if (m->samples.data[*cursor].tag == tag)
            return &m->samples.data[(*cursor)++];
    }
    return NULL;
}

void batch_done(struct worker_core *core, const struct ts_event_batch_done *m)
{
    uint32_t cursor = 0;
    if (m->batch != core->batch)
        return;
    core->batch = 0;
    for (uint32_t i = 0; i < core->row_count; i++) {
        struct task *t = core->row_tasks[i];
        const struct ts_batch_sample *sample = core->rows[i].sample ? sample_of(m, t->tag, &cursor) : NULL;
        t->in_batch = false;
        if (t->state == TASK_DYING)
            task_settle(core, t);
        else if (m->reason != TS_REASON_NONE || (core->rows[i].sample && !sample))
            task_fail(core, t, TS_REASON_ENGINE, false, "the engine failed");
        else if (t->role == TS_PHASE_PREFILL)
            prefill_done(core, t, sample);
        else
            decode_done(core, t, t->taken, sample);
    }
    core->row_count = 0;
}
