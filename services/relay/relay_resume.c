/*
 * What a lost session with decode leaves of a transfer: all its chunks. It opens again in the next session,
 * decode says which of them it has, and the others are sent.
 */
#include "common/base/ts_log.h"
#include "services/relay/relay_impl.h"

#define RESUMES_MAX 8 /* sessions lost one after the other in which decode got nothing */

static void nothing_under_way(struct relay_core *core, struct transfer *t)
{
    for (size_t i = 0; i < t->chunk_sent; i++) {
        if (!t->chunks[i].credited && !chunk_there(t, &t->chunks[i]))
            lane_came(core, t->link, &t->chunks[i]);
    }
    relay_measure_dropped(&t->link->measure, t->in_flight);
    t->chunk_sent = 0;
    t->window = t->in_flight = t->sent_once = t->credited = 0;
}

void resume_link_lost(struct relay_core *core, struct link *link)
{
    for (struct transfer *t = core->live.head, *next; t; t = next) {
        next = t->near[LIST_ALL].next;
        if (t->link != link || t->state == TRANSFER_OPENING)
            continue;
        if (++t->resumes > RESUMES_MAX) {
            transfer_end(core, t, TS_REASON_PEER_LOST,
                         "the session with the decode worker was lost again and again");
            next = t->parts > 1 ? core->live.head : next; /* the next one may have ended with it */
            continue;
        }
        nothing_under_way(core, t);
        transfer_wait_open(core, t);
    }
}

void resume_granted(struct relay_core *core, struct transfer *t, struct ts_u64s have)
{
    size_t there = 0;
    for (size_t i = 0; i < t->chunk_count; i++) {
        t->chunks[i].credited = i / 64 < have.count && (have.data[i / 64] >> i % 64 & 1);
        there += t->chunks[i].credited;
    }
    core->counts.resumed += t->granted;
    if (t->granted)
        ts_actions_log(core->out, TS_LOG_INFO,
                       "event=kv_resumed request=%llu attempt=%u chunks=%zu there=%zu",
                       (unsigned long long)t->rid.request, t->rid.attempt, t->chunk_count, there);
    t->granted = true;
}

bool resume_done(const struct transfer *t)
{
    return t->state == TRANSFER_WAIT_GRANT && t->ended;
}
