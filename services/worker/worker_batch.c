/*
 * The engine: up to batches_max batches under way, which end in the order of issue; decode rows first
 * (streams wait for them), then prefill chunks. A sequence is in one batch at a time; a prompt may have
 * chunks in several.
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

/* Who can give its blocks back at once or with its batch: ready ones, and colocated ones that are on the way
 * there. */
static struct task *youngest(const struct worker_core *core)
{
    struct task *ready = core->lists[TASK_READY].tail, *t = core->lists[TASK_PREFILLING].tail;
    while (t && t->role != TS_PHASE_BOTH)
        t = t->alike_prev;
    return t && task_younger(t, ready) ? t : ready;
}

/* Room for what is pending. Out of blocks, the youngest gives way until this one fits or is itself the
 * youngest. One that is in a batch gives its blocks when that is over: until then nobody else takes any. */
static bool make_room(struct worker_core *core, struct task *t)
{
    uint32_t tokens = t->prompt_count + (uint32_t)t->output_count;
    uint32_t need = ts_kv_blocks_for(tokens);
    if (need <= t->block_count)
        return true;
    while (!core->starved) {
        if (task_take_blocks(core, t, tokens))
            return true;
        if (need - t->block_count <= prefix_room(core) + core->returning) {
            core->starved = true;
            break;
        }
        struct task *victim = youngest(core);
        core->counts.preempted++;
        task_fail(core, victim, TS_REASON_PREEMPTED, false, "preempted: the KV pool is full");
        if (victim == t)
            break;
    }
    return false;
}

static bool uses_penalties(const struct ts_sampling *s)
{
    return s->repetition_penalty != 1 || s->presence_penalty != 0 || s->frequency_penalty != 0;
}

static void add_row(struct batch *batch, struct task *t, uint32_t position, struct ts_u32s tokens,
                    bool sample)
{
    struct ts_batch_row *row = &batch->rows[batch->count];
    *row = (struct ts_batch_row){.tag = t->tag,
                                 .position = position,
                                 .tokens = tokens,
                                 .blocks = {t->blocks, t->block_count},
                                 .sample = sample,
                                 .sample_index = (uint32_t)t->output_count};
    if (sample)
        row->sampling = t->sampling;
    if (sample && uses_penalties(&t->sampling)) {
        row->prompt_ids = (struct ts_u32s){t->prompt, t->prompt_count};
        row->output_ids = (struct ts_u32s){t->outputs, (uint32_t)t->output_count};
    }
    batch->tasks[batch->count++] = t;
    t->in_batch++;
}

/* How many sequences the next batch takes. What is ready is spread over the batches that may run, so that the
 * stages of a pipeline have equal work: a fair part of all, and of those that are free to go. */
static uint32_t decode_share(const struct worker_core *core)
{
    uint32_t max = core->settings.batches_max, ready = core->lists[TASK_READY].count;
    uint32_t idle = ready - core->flying, slots = max - core->running;
    uint32_t fair = (ready + max - 1) / max, now = (idle + slots - 1) / slots;
    uint32_t share = fair < now ? fair : now;
    return share < core->settings.max_rows ? share : core->settings.max_rows;
}

static uint32_t add_decode_rows(struct worker_core *core, struct batch *batch, uint32_t budget)
{
    uint32_t share = decode_share(core), count = 0, used = 0;
    struct task **tasks = ts_arena_alloc(&core->out->arena, share * sizeof(struct task *));
    uint32_t *pending = ts_arena_alloc(&core->out->arena, share * sizeof *pending),
             *take = ts_arena_zalloc(&core->out->arena, share * sizeof *take);
    core->starved = false;
    /* Memory first, oldest first: it may cost the youngest their place. */
    for (struct task *t = core->lists[TASK_READY].head, *next; t && count < share; t = next) {
        bool room = !t->in_batch && make_room(core, t);
        if (t->state != TASK_READY)
            break; /* it was the youngest, and is gone */
        next = t->alike_next;
        if (!room)
            continue;
        tasks[count] = t;
        pending[count++] = pending_of(t);
    }
    decode_batch(pending, count, budget, share, take);
    for (uint32_t i = 0; i < count; i++) {
        struct task *t = tasks[i];
        if (take[i] == 0)
            continue;
        struct ts_u32s tokens = {t->outputs + (t->kv_length - t->prompt_count), take[i]};
        add_row(batch, t, t->kv_length, tokens, take[i] == pending[i]);
        core->flying++;
        used += take[i];
    }
    return used;
}

/* Says whether the relay has to hear of the layers. */
static ts_time due_of(const struct worker_core *core, const struct task *t)
{
    return prefill_due(t->accepted_at, t->prompt_count, core->settings.prefill_patience_us * TS_US);
}

/* Those with prompt left, by due time; of equal ones the older first. */
static uint32_t by_due(const struct worker_core *core, struct task **out)
{
    uint32_t count = 0, at;
    for (struct task *t = core->lists[TASK_PREFILLING].head; t; t = t->alike_next) {
        ts_time due = due_of(core, t);
        if (t->issued == t->prompt_count)
            continue;
        for (at = count++; at > 0 && due_of(core, out[at - 1]) > due; at--)
            out[at] = out[at - 1];
        out[at] = t;
    }
    return count;
}

static bool add_prefill_rows(struct worker_core *core, struct batch *batch, uint32_t budget)
{
    uint32_t rows = core->settings.max_rows - batch->count, most = core->lists[TASK_PREFILLING].count;
    bool report = false;
    struct task **tasks = ts_arena_alloc(&core->out->arena, most * sizeof(struct task *));
    struct prefill_candidate *candidates = ts_arena_zalloc(&core->out->arena, most * sizeof *candidates);
    uint32_t *take = ts_arena_zalloc(&core->out->arena, most * sizeof *take);
    uint32_t count = by_due(core, tasks);
    for (uint32_t i = 0; i < count; i++)
        candidates[i] = (struct prefill_candidate){tasks[i]->issued, tasks[i]->prompt_count};
    prefill_batch(candidates, count, budget, rows, take);
    for (uint32_t i = 0; i < count; i++) {
        struct task *t = tasks[i];
        if (take[i] == 0)
            continue;
        bool sample = t->issued + take[i] == t->prompt_count && t->output_count == 0;
        add_row(batch, t, t->issued, (struct ts_u32s){t->prompt + t->issued, take[i]}, sample);
        t->issued += take[i];
        report |= t->role == TS_PHASE_PREFILL;
    }
    return report;
}

static struct batch *running(struct worker_core *core, uint32_t i) /* in the order of issue */
{
    return &core->batches[(core->first + i) % core->settings.batches_max];
}

static bool start_one(struct worker_core *core)
{
    struct batch *batch = running(core, core->running);
    batch->count = 0;
    uint32_t used = add_decode_rows(core, batch, core->settings.max_batch_tokens);
    bool report = add_prefill_rows(core, batch, core->settings.max_batch_tokens - used);
    if (batch->count == 0)
        return false;
    batch->id = core->next_batch++;
    core->running++;
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_BATCH);
    a->batch = (struct ts_action_batch){
        .batch = batch->id, .rows = {batch->rows, batch->count}, .report_layers = report};
    return true;
}

void batch_start(struct worker_core *core)
{
    while (core->running < core->settings.batches_max && start_one(core))
        ;
}

void batch_layer_done(struct worker_core *core, const struct ts_event_layer_done *m)
{
    for (uint32_t i = 0; i < core->running; i++) {
        if (running(core, i)->id == m->batch)
            prefill_layer_done(core, running(core, i), m->layer);
    }
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

static const char *failure_of(struct worker_core *core, const struct ts_event_batch_done *m)
{
    return m->text.count ? ts_arena_printf(&core->out->arena, "the engine failed: %.*s", (int)m->text.count,
                                           m->text.data)
                         : "the engine failed";
}

/* They end in the order of issue: anything else is not of this core. */
void batch_done(struct worker_core *core, const struct ts_event_batch_done *m)
{
    struct batch *batch = running(core, 0);
    uint32_t cursor = 0;
    if (core->running == 0 || m->batch != batch->id)
        return;
    core->first = (core->first + 1) % core->settings.batches_max;
    core->running--;
    task_outputs_begin(core, batch->count);
    for (uint32_t i = 0; i < batch->count; i++) {
        struct task *t = batch->tasks[i];
        const struct ts_batch_row *row = &batch->rows[i];
        const struct ts_batch_sample *sample = row->sample ? sample_of(m, t->tag, &cursor) : NULL;
        t->in_batch--;
        if (t->state == TASK_READY)
            core->flying--;
        if (t->state == TASK_DYING)
            task_settle(core, t);
        else if (m->reason != TS_REASON_NONE || (row->sample && !sample))
            task_fail(core, t, TS_REASON_ENGINE, false, failure_of(core, m));
        else if (t->state == TASK_PREFILLING)
            prefill_done(core, t, row->tokens.count, sample);
        else
            decode_done(core, t, row->tokens.count, sample);
    }
    task_outputs_end(core);
}
