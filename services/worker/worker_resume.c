/*
 * What a lost session with a relay leaves of the transfers it brought: their blocks and what is in them. They
 * wait for that relay to open them again, and tell it which chunks they have.
 */
#include "services/worker/worker_impl.h"

static ts_time resume_end(const struct worker_core *core, const struct task *t)
{
    return t->suspended_at + core->settings.resume_wait_ms * TS_MS;
}

void resume_peer_lost(struct worker_core *core, struct kv_peer *peer)
{
    for (struct task *t = core->head; t; t = t->next) {
        if (t->sender != peer)
            continue;
        t->sender = NULL;
        t->relay = peer->session.remote;
        t->relay_name = peer->name;
        t->suspended_at = core->now;
        task_state_set(core, t, TASK_SUSPENDED);
        core->resume_due = resume_end(core, t) < core->resume_due ? resume_end(core, t) : core->resume_due;
    }
}

static void give_up(struct worker_core *core, struct task *t)
{
    task_fail(core, t, TS_REASON_PEER_LOST, false, "the session of the sending relay was lost");
}

void resume_peer_came(struct worker_core *core, const struct kv_peer *peer)
{
    for (struct task *t = core->lists[TASK_SUSPENDED].head, *next; t; t = next) {
        next = t->alike_next;
        if (t->relay_name == peer->name && t->relay != peer->session.remote)
            give_up(core, t);
    }
}

static bool same_transfer(const struct ts_msg_kv_open *a, const struct ts_msg_kv_open *b)
{
    return a->token_count == b->token_count && a->layer_begin == b->layer_begin &&
           a->layer_end == b->layer_end && a->head_begin == b->head_begin && a->head_end == b->head_end;
}

/* Verified in the meantime, and the relay could not be told. */
static bool told_again(struct worker_core *core, struct kv_peer *peer, const struct task *t)
{
    if (t->state != TASK_READY && t->state != TASK_FINISHED)
        return false;
    worker_send_kv(core, peer, TS_MSG_KV_DONE)->msg.kv_done.rid = t->rid;
    return true;
}

void resume_open(struct worker_core *core, struct kv_peer *peer, struct task *t,
                 const struct ts_msg_kv_open *m)
{
    if ((m->resume && told_again(core, peer, t)) || t->state != TASK_SUSPENDED)
        return;
    t->sender = peer;
    const char *fault = decode_open_fault(core, t, m);
    if (!fault && (t->relay != peer->session.remote || !same_transfer(m, &t->open)))
        fault = "another transfer than the one that was under way";
    if (fault) {
        decode_fail(core, t, TS_REASON_KV_MISMATCH, fault);
        return;
    }
    core->counts.resumed++;
    if (!t->digests) { /* it had no memory yet */
        decode_wait_grant(core, t);
        return;
    }
    task_state_set(core, t, TASK_RECEIVING);
    decode_send_grant(core, t);
}

void resume_tick(struct worker_core *core)
{
    if (core->now < core->resume_due)
        return;
    core->resume_due = TS_TIME_NEVER;
    for (struct task *t = core->lists[TASK_SUSPENDED].head, *next; t; t = next) {
        next = t->alike_next;
        if (resume_end(core, t) <= core->now)
            give_up(core, t);
        else if (resume_end(core, t) < core->resume_due)
            core->resume_due = resume_end(core, t);
    }
}

struct ts_u64s resume_have(struct worker_core *core, const struct task *t)
{
    uint64_t words = t->chunk_limit / 64 + 1, most = words < TS_LIST_MAX ? words : TS_LIST_MAX;
    uint64_t *have = ts_arena_zalloc(&core->out->arena, most * sizeof *have);
    uint32_t count = 0;
    for (uint64_t i = 0; i < t->chunk_limit && i / 64 < most; i++) {
        if (!(t->chunk_seen[i / 8] >> i % 8 & 1))
            continue;
        have[i / 64] |= (uint64_t)1 << i % 64;
        count = (uint32_t)(i / 64) + 1;
    }
    return (struct ts_u64s){count ? have : NULL, count};
}
