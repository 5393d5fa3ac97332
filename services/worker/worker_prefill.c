/*
 * The prefill role: tokenise, blocks, chunks; tell the relay what is ready; draw token 0; seal. A colocated
 * task needs no relay and goes on as a ready one (worker_decode.c).
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/worker/worker_impl.h"

void prefill_assigned(struct worker_core *core, struct task *t, struct ts_bulk prompt)
{
    if (t->role == TS_PHASE_PREFILL && !core->pool.usable) {
        task_fail(core, t, TS_REASON_PEER_LOST, false, "this worker has no relay at the moment");
        return;
    }
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_TOKENISE);
    a->tokenise =
        (struct ts_action_tokenise){.job = t->tag, .prompt_kind = t->assign.prompt_kind, .bulk = prompt};
    t->tokenising = true;
}

void prefill_tokenised(struct worker_core *core, const struct ts_event_tokenised *m)
{
    struct task *t = task_by_tag(core, m->job);
    char words[300];
    if (!t) {
        tokenize_done(core, m);
        return;
    }
    t->tokenising = false;
    if (t->state == TASK_DYING) {
        task_settle(core, t);
        return;
    }
    if (m->reason != TS_REASON_NONE) {
        snprintf(words, sizeof words, "%.*s", m->text.count < 280 ? (int)m->text.count : 280,
                 m->text.count ? m->text.data : "");
        task_fail(core, t, m->reason, true, words);
        return;
    }
    if (m->ids.count == 0) {
        task_fail(core, t, TS_REASON_BAD_REQUEST, true, "the prompt has no tokens");
        return;
    }
    if (m->ids.count >= core->settings.profile.context_tokens) {
        snprintf(words, sizeof words, "the prompt has %u tokens, the model's context holds %u: shorten it",
                 m->ids.count, core->settings.profile.context_tokens);
        task_fail(core, t, TS_REASON_PROMPT_TOO_LONG, true, words);
        return;
    }
    if (ts_kv_blocks_for(m->ids.count + (t->role == TS_PHASE_BOTH)) > core->kv.blocks) {
        task_fail(core, t, TS_REASON_PROMPT_TOO_LONG, false,
                  "the prompt is larger than the KV pool of the prefill worker");
        return;
    }
    t->prompt = ts_xcalloc(m->ids.count, sizeof *t->prompt);
    memcpy(t->prompt, m->ids.data, m->ids.count * sizeof *t->prompt);
    t->prompt_count = m->ids.count;
    task_clip(core, t);
    task_state_set(core, t, TASK_WAITING);
}

static struct ts_u64s chain_of(struct worker_core *core, const struct task *t)
{
    uint32_t count = t->prompt_count / TS_KV_BLOCK_TOKENS;
    uint64_t *chain = ts_arena_alloc(&core->out->arena, (count + 1) * sizeof *chain),
             hash = core->settings.profile.fingerprint;
    for (uint32_t i = 0; i < count; i++)
        chain[i] = hash = ts_kv_chain(hash, t->prompt + i * TS_KV_BLOCK_TOKENS);
    return (struct ts_u64s){chain, count};
}

static struct ts_u32s generations_of(struct worker_core *core, const struct task *t)
{
    uint32_t *generations = ts_arena_alloc(&core->out->arena, t->block_count * sizeof *generations);
    for (uint32_t i = 0; i < t->block_count; i++)
        generations[i] = core->kv.generation[t->blocks[i]];
    return (struct ts_u32s){generations, t->block_count};
}

static void tell_relay(struct worker_core *core, struct task *t)
{
    struct ts_action_send *s = worker_send_pool(core, TS_MSG_KV_BEGIN);
    TS_ASSERT(s);
    s->msg.kv_begin = (struct ts_msg_kv_begin){.rid = t->rid,
                                               .decode = t->assign.decode,
                                               .endpoint = t->assign.decode_endpoint,
                                               .decode_incarnation = t->assign.decode_incarnation,
                                               .codec = ts_codec_for_prompt(&t->codec, t->prompt_count),
                                               .token_count = t->prompt_count,
                                               .blocks = {t->blocks, t->block_count},
                                               .generations = generations_of(core, t),
                                               .chain = chain_of(core, t)};
    t->begun = t->relay_knows = true;
}

static void begin(struct worker_core *core, struct task *t)
{
    if (t->role == TS_PHASE_PREFILL)
        tell_relay(core, t);
    t->began_at = core->now;
    if (t->output_count == 0 || t->role == TS_PHASE_BOTH)
        task_text_open(core, t);
    task_state_set(core, t, TASK_PREFILLING);
}

void prefill_admit(struct worker_core *core)
{
    for (struct task *t = core->lists[TASK_WAITING].head, *next; t; t = next) {
        next = t->alike_next;
        if (t->role == TS_PHASE_PREFILL && !core->pool.usable)
            continue;
        if (!task_admit_blocks(core, t, t->prompt_count + (t->role == TS_PHASE_BOTH)))
            return; /* in order of age: a large prompt is not starved by small ones */
        begin(core, t);
    }
}

void prefill_layer_done(struct worker_core *core, const struct batch *batch, uint32_t layer)
{
    uint32_t count = 0;
    struct ts_ready_item *items = ts_arena_zalloc(&core->out->arena, (batch->count + 1) * sizeof *items);
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct task *t = batch->tasks[i];
        const struct ts_batch_row *row = &batch->rows[i];
        if (t->state == TASK_PREFILLING && t->begun)
            items[count++] = (struct ts_ready_item){
                .rid = t->rid, .token_begin = row->position, .token_count = row->tokens.count};
    }
    struct ts_action_send *s = count ? worker_send_pool(core, TS_MSG_KV_READY) : NULL;
    if (s)
        s->msg.kv_ready =
            (struct ts_msg_kv_ready){.layer_begin = layer, .layer_end = layer + 1, .items = {items, count}};
}

static void report(struct worker_core *core, struct task *t)
{
    struct ts_action_send *s = worker_send_router(core, t->router, TS_MSG_REPORT);
    struct ts_str relay = t->role == TS_PHASE_PREFILL ? core->settings.profile.relay : ts_str_of("");
    if (s)
        s->msg.report = (struct ts_msg_report){.rid = t->rid,
                                               .role = t->role,
                                               .prompt_tokens = t->prompt_count,
                                               .queue_ns = t->began_at - t->arrived_at,
                                               .run_ns = core->now - t->began_at,
                                               .relay = relay};
}

static void seal(struct worker_core *core, struct task *t)
{
    struct ts_action_send *s = worker_send_pool(core, TS_MSG_KV_SEAL);
    TS_ASSERT(s);
    s->msg.kv_seal = (struct ts_msg_kv_seal){.rid = t->rid,
                                             .prompt_ids = {t->prompt, t->prompt_count},
                                             .produced = {t->outputs, (uint32_t)t->output_count}};
    if (t->item_count > 0)
        s->msg.kv_seal.first = t->items[0];
}

void prefill_done(struct worker_core *core, struct task *t, uint32_t computed,
                  const struct ts_batch_sample *sample)
{
    t->done += computed;
    if (t->done < t->prompt_count)
        return;
    report(core, t);
    if (t->role == TS_PHASE_BOTH) {
        decode_prefilled(core, t, sample);
        return;
    }
    task_state_set(core, t, TASK_SEALED);
    task_text_close(core, t);
    if (t->output_count == 0) {
        TS_ASSERT(sample);
        task_add_output(t, sample->item.token);
        task_add_item(t, &sample->item);
        t->finish = sample->finish;
        core->done_tokens++;
        task_send_output(core, t, 0);
    }
    if (t->finish == TS_FINISH_NONE)
        seal(core, t);
}

/* Also one that dies: its blocks are here until KvFreed. */
static struct task *read_by_relay(const struct worker_core *core, struct ts_rid rid)
{
    struct task *t = task_find(core, rid, TS_PHASE_PREFILL);
    for (struct task *d = core->lists[TASK_DYING].head; d && !t; d = d->alike_next)
        t = d->begun && ts_rid_equal(d->rid, rid) ? d : NULL;
    return t && t->begun ? t : NULL;
}

void prefill_encode(struct worker_core *core, const struct ts_msg_kv_encode *m)
{
    struct task *t = read_by_relay(core, m->rid);
    if (!t) {
        worker_send_pool(core, TS_MSG_KV_ENCODED)->msg.kv_encoded =
            (struct ts_msg_kv_encoded){.job = m->job, .reason = TS_REASON_CANCELLED};
        return;
    }
    struct encode *job = ts_xcalloc(1, sizeof *job);
    *job = (struct encode){
        .job = core->next_job++, .relay_job = m->job, .session = core->pool.session.id, .task = t};
    ts_map_put_u64(core->encodes, job->job, job);
    t->encodes++;
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_ENCODE);
    a->encode = (struct ts_action_encode){.job = job->job,
                                          .codec = m->codec,
                                          .blocks = {t->blocks, t->block_count},
                                          .generations = generations_of(core, t),
                                          .layer = m->layer,
                                          .head_begin = m->head_begin,
                                          .head_count = m->head_count,
                                          .token_begin = m->token_begin,
                                          .token_count = m->token_count};
}

/* To the relay that asked, if it is still there: in another session it knows nothing of it. */
void prefill_encoded(struct worker_core *core, const struct ts_event_encoded *m)
{
    struct encode *job = ts_map_remove_u64(core->encodes, m->job);
    struct ts_action_send *s = NULL;
    if (job && core->pool.session.up && core->pool.session.id == job->session)
        s = worker_send_pool(core, TS_MSG_KV_ENCODED);
    if (s) {
        s->bulk = m->bulk;
        s->msg.kv_encoded = (struct ts_msg_kv_encoded){.job = job->relay_job,
                                                       .reason = m->reason,
                                                       .declared_bytes = m->declared_bytes,
                                                       .crc32c = m->crc32c,
                                                       .escapes = m->escapes,
                                                       .digests = m->digests};
    }
    ts_actions_drop(core->out, m->bulk);
    if (!job)
        return;
    job->task->encodes--;
    task_settle(core, job->task);
    ts_free(job);
}

void prefill_freed(struct worker_core *core, const struct ts_msg_kv_freed *m)
{
    struct task *t = task_find(core, m->rid, TS_PHASE_PREFILL);
    if (t && t->begun) {
        t->begun = false;
        if (t->state == TASK_SEALED)
            task_give_blocks(core, t);
        else /* the relay gave up on it */
            task_fail(core, t, TS_REASON_PEER_LOST, false, "the relay ended the transfer");
    }
    for (struct task *next = core->lists[TASK_DYING].head; (t = next);) {
        next = t->alike_next;
        if (!t->begun || !ts_rid_equal(t->rid, m->rid))
            continue;
        t->begun = false;
        task_settle(core, t);
    }
}

/* The blocks stay until KvFreed. */
void prefill_transfer_failed(struct worker_core *core, const struct ts_msg_release *m)
{
    struct task *t = task_find(core, m->rid, TS_PHASE_PREFILL);
    if (!t || !t->relay_knows)
        return;
    t->relay_knows = false;
    task_fail(core, t, m->reason, false, "the relay ended the transfer");
}

/* The session is over and with it all transfers: nothing reads our blocks for them any more that anybody
 * would believe. */
void prefill_pool_lost(struct worker_core *core)
{
    for (struct task *t = core->head, *next; t; t = next) {
        next = t->next;
        if (t->role != TS_PHASE_PREFILL || (!t->begun && !t->relay_knows))
            continue;
        t->begun = t->relay_knows = false;
        if (t->state == TASK_DYING)
            task_settle(core, t);
        else
            task_fail(core, t, TS_REASON_PEER_LOST, false, "the session with the relay was lost");
    }
}
