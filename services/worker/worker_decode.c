/*
 * The decode role: grant memory, take chunks, verify, then draw one token after the other. Colocated tasks
 * enter when their prompt is computed (worker_prefill.c).
 */
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/worker/worker_impl.h"

#define WHOLE_TRANSFER  UINT64_MAX
#define CHUNK_BYTES_MAX ((uint64_t)64 << 20)

static void nack(struct worker_core *core, struct kv_peer *peer, struct ts_rid rid, uint64_t chunk,
                 enum ts_reason reason, const char *text)
{
    struct ts_action_send *s = worker_send_kv(core, peer, TS_MSG_KV_NACK);
    core->counts.nacked++;
    if (s)
        s->msg.kv_nack =
            (struct ts_msg_kv_nack){.rid = rid, .chunk = chunk, .reason = reason, .text = ts_str_of(text)};
}

/* And gives the attempt back to the router. */
void decode_fail(struct worker_core *core, struct task *t, struct kv_peer *peer, enum ts_reason reason,
                 const char *text)
{
    if (peer)
        nack(core, peer, t->rid, WHOLE_TRANSFER, reason, text);
    for (uint32_t i = 0; i < t->part_count; i++) {
        struct part *p = &t->parts[i];
        if (p->sender && !peer)
            nack(core, p->sender, t->rid, WHOLE_TRANSFER, reason, text);
        if (p->sender == peer || !peer)
            p->sender = NULL;
    }
    task_fail(core, t, reason, false, text);
}

const char *decode_open_fault(const struct worker_core *core, const struct task *t,
                              const struct ts_msg_kv_open *m)
{
    const struct ts_profile *p = &core->settings.profile;
    const struct ts_msg_pool *kv = &core->settings.pool;
    if (m->decode_incarnation != t->router->session.self)
        return "the transfer means another incarnation of this worker";
    if (m->fingerprint != p->fingerprint)
        return "the model fingerprints differ";
    if (m->layers != kv->layers || m->kv_heads != kv->kv_heads || m->head_dim != kv->head_dim ||
        m->kv_dtype != kv->kv_dtype || m->block_tokens != TS_KV_BLOCK_TOKENS)
        return "the KV layouts differ";
    const struct ts_codec codec = ts_codec_for_prompt(&t->codec, m->token_count);
    if (!ts_schema_equal(&ts_codec_schema, &m->codec, &codec))
        return "the codec is not the one of the assignment";
    if (m->token_begin != 0 || m->token_count == 0 || m->token_count >= p->context_tokens)
        return "the transfer's tokens do not fit the context";
    return NULL;
}

void decode_count(struct worker_core *core, struct ts_rid rid, uint64_t wire_bytes)
{
    struct task *t = task_find(core, rid, TS_PHASE_DECODE);
    if (t)
        t->kv_bytes += wire_bytes;
}

static ts_time lease_end(const struct worker_core *core, const struct task *t)
{
    return t->waiting_since + core->settings.grant_wait_ms * TS_MS;
}

void decode_wait_grant(struct worker_core *core, struct task *t)
{
    ts_time due = lease_end(core, t);
    task_state_set(core, t, TASK_GRANT_WAIT);
    core->grant_due = due < core->grant_due ? due : core->grant_due;
}

void decode_send_grant(struct worker_core *core, const struct task *t, const struct part *p)
{
    struct ts_action_send *s = worker_send_kv(core, p->sender, TS_MSG_KV_GRANT);
    if (s)
        s->msg.kv_grant = (struct ts_msg_kv_grant){.rid = t->rid,
                                                   .token_begin = t->present * TS_KV_BLOCK_TOKENS,
                                                   .credit_bytes = core->settings.credit_bytes,
                                                   .have = resume_have(core, p)};
}

/* The first part: the task waits for memory from now on. */
static void begin(struct worker_core *core, struct task *t, struct kv_peer *peer,
                  const struct ts_msg_kv_open *m)
{
    if (ts_kv_blocks_for(m->token_count + 1) > core->kv.blocks) {
        decode_fail(core, t, peer, TS_REASON_PROMPT_TOO_LONG,
                    "the prompt is larger than the KV pool of the decode worker");
        return;
    }
    t->codec = ts_codec_for_prompt(&t->codec, m->token_count);
    t->prompt_count = m->token_count;
    prefix_remember(core, t, m->chain);
    part_add(t, peer, m);
    t->waiting_since = core->now;
    task_clip(core, t);
    decode_wait_grant(core, t);
}

/* Verified in the meantime, and the relay could not be told. */
static void tell_again(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_open *m)
{
    struct ts_action_send *s = m->resume ? worker_send_kv(core, peer, TS_MSG_KV_DONE) : NULL;
    if (s)
        s->msg.kv_done.rid = m->rid;
}

static void open_part(struct worker_core *core, struct task *t, struct kv_peer *peer,
                      const struct ts_msg_kv_open *m)
{
    const char *fault = decode_open_fault(core, t, m);
    if (!fault)
        fault = part_fault(core, t, m);
    if (fault) {
        decode_fail(core, t, peer, TS_REASON_KV_MISMATCH, fault);
    } else if (t->part_count == 0) {
        begin(core, t, peer, m);
    } else {
        part_add(t, peer, m);
        if (!t->granted)
            return;
        part_granted(t, &t->parts[t->part_count - 1]);
        decode_send_grant(core, t, &t->parts[t->part_count - 1]);
    }
}

void decode_open(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_open *m)
{
    struct task *t = task_find(core, m->rid, TS_PHASE_DECODE);
    if (!t) {
        nack(core, peer, m->rid, WHOLE_TRANSFER, TS_REASON_NO_ASSIGN, "");
        return;
    }
    struct part *p = part_of_relay(t, peer->session.remote);
    if (t->state == TASK_READY || t->state == TASK_FINISHED)
        tell_again(core, peer, m);
    else if (p && !p->sender)
        resume_open(core, peer, t, p, m);
    else if (!p) /* else repeated in the same session */
        open_part(core, t, peer, m);
}

static void grant(struct worker_core *core, struct task *t)
{
    t->granted = true;
    t->began_at = core->now;
    t->present = t->shared;
    for (uint32_t i = 0; i < t->part_count; i++) {
        part_granted(t, &t->parts[i]);
        decode_send_grant(core, t, &t->parts[i]);
    }
    task_state_set(core, t, TASK_RECEIVING);
}

/* All or nothing, oldest first. */
static void grant_oldest(struct worker_core *core)
{
    struct task *t;
    while ((t = core->lists[TASK_GRANT_WAIT].head) && task_admit_blocks(core, t, t->prompt_count + 1))
        grant(core, t);
}

/* Those that have waited too long: an older request that began to wait later does not make them wait on. */
static void end_leases(struct worker_core *core)
{
    core->grant_due = TS_TIME_NEVER;
    for (struct task *t = core->lists[TASK_GRANT_WAIT].head, *next; t; t = next) {
        next = t->alike_next;
        if (lease_end(core, t) <= core->now)
            decode_fail(core, t, NULL, TS_REASON_KV_NO_MEMORY,
                        "no memory for the transfer became free in time");
        else if (lease_end(core, t) < core->grant_due)
            core->grant_due = lease_end(core, t);
    }
}

void decode_admit(struct worker_core *core)
{
    grant_oldest(core);
    if (core->now < core->grant_due)
        return;
    end_leases(core);
    grant_oldest(core);
}

/* What this peer brings of the transfer, if it may come now, and its task. */
static struct part *receiving(const struct worker_core *core, const struct kv_peer *peer, struct ts_rid rid,
                              struct task **task)
{
    struct task *t = *task = task_find(core, rid, TS_PHASE_DECODE);
    bool comes = t && t->granted && (t->state == TASK_RECEIVING || t->state == TASK_SUSPENDED);
    return comes ? part_of(t, peer) : NULL;
}

/* Nothing is written to shared blocks: a sender that does not skip what is there fills the scratch block. */
static struct ts_u32s blocks_for_chunk(struct worker_core *core, const struct task *t, uint32_t token_begin)
{
    struct ts_u32s all = {t->blocks, t->block_count};
    if (token_begin >= t->shared * TS_KV_BLOCK_TOKENS)
        return all;
    uint32_t *blocks = ts_arena_copy(&core->out->arena, t->blocks, t->block_count * sizeof *blocks);
    for (uint32_t i = 0; i < t->shared; i++)
        blocks[i] = t->scratch - 1;
    return (struct ts_u32s){blocks, t->block_count};
}

static void scatter(struct worker_core *core, struct task *t, struct part *p, const struct ts_msg_kv_chunk *m,
                    struct ts_bulk bulk, uint64_t bytes)
{
    struct scatter *job = ts_xcalloc(1, sizeof *job);
    *job = (struct scatter){.job = core->next_job++,
                            .task = t,
                            .part = p,
                            .number = m->number,
                            .bytes = bytes,
                            .layer = m->layer,
                            .head_begin = m->head_begin,
                            .head_count = m->head_count,
                            .token_begin = m->token_begin,
                            .token_count = m->token_count};
    ts_map_put_u64(core->scatters, job->job, job);
    t->scatters++;
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_SCATTER);
    a->scatter = (struct ts_action_scatter){.job = job->job,
                                            .bulk = bulk,
                                            .declared_bytes = m->declared_bytes,
                                            .codec = ts_codec_for_layer(&t->codec, m->layer),
                                            .blocks = blocks_for_chunk(core, t, m->token_begin),
                                            .layer = m->layer,
                                            .head_begin = m->head_begin,
                                            .head_count = m->head_count,
                                            .token_begin = m->token_begin,
                                            .token_count = m->token_count,
                                            .crc32c = m->crc32c};
}

void decode_chunk(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_chunk *m,
                  struct ts_bulk bulk)
{
    struct task *t;
    struct part *p = receiving(core, peer, m->rid, &t);
    uint64_t bytes = bulk.slot ? bulk.bytes : core->settings.profile.modelled ? m->declared_bytes : 0;
    if (!p)
        return;
    if (bytes == 0 || bytes > CHUNK_BYTES_MAX || !part_chunk_fits(p, m)) {
        decode_fail(core, t, peer, TS_REASON_KV_MISMATCH, "a chunk lies outside of its transfer");
        return;
    }
    if (p->chunk_seen[m->number / 8] >> m->number % 8 & 1) /* sent twice: the first one counts */
        return;
    p->chunk_seen[m->number / 8] |= (uint8_t)(1u << m->number % 8);
    scatter(core, t, p, m, bulk, bytes);
}

static void report(struct worker_core *core, struct task *t)
{
    struct ts_action_send *s = worker_send_router(core, t->router, TS_MSG_REPORT);
    uint64_t raw = 0;
    for (uint32_t i = 0; i < t->part_count; i++)
        raw += t->parts[i].end.bytes_raw;
    if (s)
        s->msg.report = (struct ts_msg_report){.rid = t->rid,
                                               .role = TS_PHASE_DECODE,
                                               .prompt_tokens = t->prompt_count,
                                               .queue_ns = t->began_at - t->waiting_since,
                                               .run_ns = core->now - t->began_at,
                                               .kv_bytes_raw = raw,
                                               .kv_bytes_sent = t->kv_bytes};
}

static void start(struct worker_core *core, struct task *t)
{
    for (uint32_t i = 0; i < t->part_count; i++) {
        struct ts_action_send *s = worker_send_kv(core, t->parts[i].sender, TS_MSG_KV_DONE);
        if (s)
            s->msg.kv_done.rid = t->rid;
        t->parts[i].sender = NULL;
    }
    task_give_scratch(core, t);
    prefix_share(core, t);
    t->kv_length = t->prompt_count;
    report(core, t);
    task_text_open(core, t);
    task_state_set(core, t, TASK_READY);
    if (t->item_count > 0) /* token 0 again, so that it survives the prefill worker */
        task_send_output(core, t, 0);
}

/* Starts the task once every part has come, and only if every digest agrees. */
static void verify(struct worker_core *core, struct task *t)
{
    bool agrees = true;
    if ((t->state != TASK_RECEIVING && t->state != TASK_SUSPENDED) || !part_all_came(t))
        return;
    for (uint32_t i = 0; i < t->part_count; i++)
        agrees = agrees && part_agrees(t, &t->parts[i]);
    if (agrees)
        start(core, t);
    else
        decode_fail(core, t, NULL, TS_REASON_KV_CORRUPT, "the digests of the transfer do not agree");
}

void decode_end(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_end *m)
{
    struct task *t;
    struct part *p = receiving(core, peer, m->rid, &t);
    if (!p || p->ended)
        return;
    if (m->digests.count != part_rows(p)) {
        decode_fail(core, t, peer, TS_REASON_KV_MISMATCH,
                    "the end of the transfer brings another number of digests");
        return;
    }
    p->end = *m;
    p->end.digests.data =
        ts_arena_copy(&t->arena, m->digests.data, m->digests.count * sizeof *m->digests.data);
    p->ended = true;
    verify(core, t); /* the commit comes from another process and may be there first */
}

/* What the sender said it would bring is what the prompt's tokens are. */
static bool chain_agrees(const struct worker_core *core, const struct task *t, const uint32_t *prompt)
{
    uint64_t hash = core->settings.profile.fingerprint;
    for (uint32_t i = 0; t->chain && i < t->prompt_count / TS_KV_BLOCK_TOKENS; i++) {
        hash = ts_kv_chain(hash, prompt + i * TS_KV_BLOCK_TOKENS);
        if (hash != t->chain[i])
            return false;
    }
    return true;
}

void decode_commit(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_commit *m)
{
    struct task *t;
    if (!receiving(core, peer, m->rid, &t) || t->committed)
        return;
    if (m->senders != t->senders || m->prompt_ids.count != t->prompt_count ||
        (t->output_count == 0 && m->produced.count == 0) || !chain_agrees(core, t, m->prompt_ids.data)) {
        decode_fail(core, t, peer, TS_REASON_KV_MISMATCH, "the commit does not fit the transfer");
        return;
    }
    t->prompt = ts_xcalloc(m->prompt_ids.count, sizeof *t->prompt);
    memcpy(t->prompt, m->prompt_ids.data, m->prompt_ids.count * sizeof *t->prompt);
    if (t->output_count == 0) {
        task_add_output(t, m->produced.data[0]);
        task_add_item(t, &m->first);
    } else {
        t->item_first = (uint32_t)t->output_count;
    }
    t->committed = true;
    verify(core, t);
}

void decode_abort(struct worker_core *core, struct kv_peer *peer, const struct ts_msg_kv_abort *m)
{
    struct task *t = task_find(core, m->rid, TS_PHASE_DECODE);
    struct part *p = t ? part_of(t, peer) : NULL;
    if (!p)
        return;
    p->sender = NULL;
    task_fail(core, t, m->reason == TS_REASON_NONE ? TS_REASON_PEER_LOST : m->reason, false,
              "the sender aborted the transfer");
}

void decode_scattered(struct worker_core *core, const struct ts_event_scattered *m)
{
    struct scatter *job = ts_map_remove_u64(core->scatters, m->job);
    if (!job)
        return;
    struct task *t = job->task;
    struct part *p = job->part;
    t->scatters--;
    if (t->state == TASK_DYING) {
        task_settle(core, t);
    } else if (m->reason == TS_REASON_KV_NO_MEMORY || m->reason == TS_REASON_ENGINE) {
        decode_fail(core, t, NULL, m->reason, "the device of this worker could not restore a chunk");
    } else if (m->reason != TS_REASON_NONE) {
        p->chunk_seen[job->number / 8] &= (uint8_t) ~(1u << job->number % 8);
        if (p->sender) /* else it is among those that the sender hears to be missing */
            nack(core, p->sender, t->rid, job->number, TS_REASON_KV_CORRUPT,
                 "a chunk does not fit its checksum");
    } else {
        part_restored(t, job, m->digests);
        struct ts_action_send *s = worker_send_kv(core, p->sender, TS_MSG_KV_CREDIT);
        if (s)
            s->msg.kv_credit =
                (struct ts_msg_kv_credit){.rid = t->rid, .bytes = job->bytes, .chunk = job->number + 1};
        verify(core, t);
    }
    ts_free(job);
}

/* A colocated task whose prompt is there: `sample` is token 0, or NULL where tokens were produced already,
 * which are computed again. */
void decode_prefilled(struct worker_core *core, struct task *t, const struct ts_batch_sample *sample)
{
    t->kv_length = t->prompt_count;
    t->item_first = (uint32_t)t->output_count;
    task_state_set(core, t, TASK_READY);
    decode_done(core, t, 0, sample);
}

void decode_done(struct worker_core *core, struct task *t, uint32_t computed,
                 const struct ts_batch_sample *sample)
{
    t->kv_length += computed;
    if (!sample)
        return;
    uint32_t first = (uint32_t)t->output_count;
    if (!sample->complete) {
        task_add_output(t, sample->item.token);
        task_add_item(t, &sample->item);
        core->done_tokens++;
    }
    t->finish = sample->finish;
    task_send_output(core, t, first);
    if (t->finish == TS_FINISH_NONE)
        return;
    task_state_set(core, t, TASK_FINISHED);
    task_text_close(core, t);
    task_give_blocks(core, t);
}
