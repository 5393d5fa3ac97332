/*
 * What a lost session with a relay leaves of the transfers it brought: their blocks and what is in them. They
 * wait for that relay to open them again, and tell it which chunks they have.
 */
#include "services/worker/worker_impl.h"

/* That of the part which has been without a session for the longest time. */
static ts_time resume_end(const struct worker_core *core, const struct task *t)
{
    ts_time end = TS_TIME_NEVER, wait = core->settings.resume_wait_ms * TS_MS;
    for (uint32_t i = 0; i < t->part_count; i++) {
        if (!t->parts[i].sender && t->parts[i].lost_at + wait < end)
            end = t->parts[i].lost_at + wait;
    }
    return end;
}

void resume_peer_lost(struct worker_core *core, struct kv_peer *peer)
{
    for (struct task *t = core->head; t; t = t->next) {
        struct part *p = part_of(t, peer);
        if (!p)
            continue;
        p->sender = NULL;
        p->lost_at = core->now;
        if (t->state != TASK_SUSPENDED)
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
        bool gone = false;
        for (uint32_t i = 0; i < t->part_count; i++) {
            const struct part *p = &t->parts[i];
            if (!p->sender && p->relay_name == peer->name && p->relay != peer->session.remote)
                gone = true;
        }
        if (gone)
            give_up(core, t);
    }
}

static bool same_transfer(const struct ts_msg_kv_open *a, const struct ts_msg_kv_open *b)
{
    return a->token_count == b->token_count && a->layer_begin == b->layer_begin &&
           a->layer_end == b->layer_end && a->head_begin == b->head_begin && a->head_end == b->head_end;
}

void resume_open(struct worker_core *core, struct kv_peer *peer, struct task *t, struct part *p,
                 const struct ts_msg_kv_open *m)
{
    const char *fault = decode_open_fault(core, t, m);
    if (!fault && !same_transfer(m, &p->open))
        fault = "another transfer than the one that was under way";
    if (fault) {
        decode_fail(core, t, peer, TS_REASON_KV_MISMATCH, fault);
        return;
    }
    core->counts.resumed++;
    p->sender = peer;
    if (t->granted)
        decode_send_grant(core, t, p);
    if (resume_end(core, t) < TS_TIME_NEVER) /* another one is still away */
        return;
    if (t->granted)
        task_state_set(core, t, TASK_RECEIVING);
    else /* it had no memory yet */
        decode_wait_grant(core, t);
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

struct ts_u64s resume_have(struct worker_core *core, const struct part *p)
{
    uint64_t words = p->chunk_limit / 64 + 1, most = words < TS_LIST_MAX ? words : TS_LIST_MAX;
    uint64_t *have = ts_arena_zalloc(&core->out->arena, most * sizeof *have);
    uint32_t count = 0;
    for (uint64_t i = 0; i < p->chunk_limit && i / 64 < most; i++) {
        if (!(p->chunk_seen[i / 8] >> i % 8 & 1))
            continue;
        have[i / 64] |= (uint64_t)1 << i % 64;
        count = (uint32_t)(i / 64) + 1;
    }
    return (struct ts_u64s){count ? have : NULL, count};
}
