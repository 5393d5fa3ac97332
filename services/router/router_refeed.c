/*
 * A request whose KV was verified at decode once has an encoded copy at the relay that sent it. When its
 * decode worker is gone, the next one gets that copy, and nobody prefills again. Copies are a relay's best
 * effort: what goes wrong with one only fails the attempt, and the next one prefills.
 *
 * A relay tells of each copy (Transfer without a reason; Copies in a new session) and keeps it until it is
 * told Release: at once when nobody wants it, else when the request ends or is prefilled again.
 */
#include <stdio.h>
#include <string.h>

#include "services/router/router_impl.h"

static struct ts_rid rid_at(const struct router_core *core, const struct record *r, uint32_t attempt)
{
    return (struct ts_rid){core->incarnation, r->number, attempt};
}

static void release(struct router_core *core, struct member *relay, struct ts_rid rid, enum ts_reason reason)
{
    struct ts_action_send *s = member_send(core, relay, TS_MSG_RELEASE);
    if (s)
        s->msg.release = (struct ts_msg_release){.rid = rid, .reason = reason};
}

/* The relay that holds the copy, as far as its present session has said. */
static struct member *keeper(const struct router_core *core, const struct record *r)
{
    struct member *relay = r->copy.attempt ? member_find(core, TS_ROLE_RELAY, r->relay_id) : NULL;
    return relay && relay->session.up && relay->session.id == r->copy.session ? relay : NULL;
}

/* --- what relays hold --------------------------------------------------------------------------------- */

static void told(struct router_core *core, struct member *from, struct ts_rid rid)
{
    struct record *r = rid.router == core->incarnation ? index_get(&core->by_number, rid.request) : NULL;
    if (r && r->attempt == rid.attempt && strcmp(r->relay_id, from->id) == 0) {
        r->copy.attempt = rid.attempt;
        r->copy.session = from->session.id;
        core->dispatch = true;     /* it may be waiting, and need no prefill worker now */
        attempt_verified(core, r); /* the relay has a copy only of what decode has */
    } else {
        release(core, from, rid, TS_REASON_FINISHED);
    }
}

void refeed_transfer(struct router_core *core, struct member *from, const struct ts_msg_transfer *m)
{
    if (m->reason == TS_REASON_NONE)
        told(core, from, m->rid);
}

void refeed_copies(struct router_core *core, struct member *from, const struct ts_msg_copies *m)
{
    for (uint32_t i = 0; i < m->items.count; i++) {
        const struct ts_copy_item *item = &m->items.data[i];
        struct record *r = index_get(&core->by_number, item->rid.request);
        if (item->bytes > 0 && item->whole)
            told(core, from, item->rid);
        else if (r && item->rid.router == core->incarnation && r->copy.attempt == item->rid.attempt)
            r->copy.attempt = 0;
    }
}

void refeed_drop(struct router_core *core, struct record *r, enum ts_reason reason)
{
    struct member *relay = keeper(core, r);
    if (relay)
        release(core, relay, rid_at(core, r, r->copy.attempt), reason);
    r->copy.attempt = 0;
}

/* --- an attempt that is fed by one -------------------------------------------------------------------- */

static void send_refeed(struct router_core *core, const struct record *r)
{
    struct ts_action_send *s = member_send(core, r->copy.feeder, TS_MSG_REFEED);
    if (s)
        s->msg.refeed = (struct ts_msg_refeed){.from = rid_at(core, r, r->copy.from),
                                               .rid = rid_at(core, r, r->attempt),
                                               .decode = ts_str_of(r->decode->id),
                                               .endpoint = r->decode->hello.profile.kv_endpoint,
                                               .decode_incarnation = r->decode->incarnation};
}

bool refeed_dispatch(struct router_core *core, struct record *r)
{
    struct member *relay = keeper(core, r);
    struct member *decode = relay && member_ready(relay) ? attempt_pick_decode(core, r) : NULL;
    if (!decode)
        return false;
    r->copy.from = r->copy.attempt;
    r->copy.attempt = 0; /* it is a transfer now, and a copy again once that is done */
    r->copy.feeder = relay;
    core->counts.refeeds++;
    attempt_begin(core, r, NULL, decode);
    send_refeed(core, r);
    return true;
}

void refeed_stop(struct router_core *core, struct record *r, enum ts_reason reason)
{
    if (r->copy.feeder)
        release(core, r->copy.feeder, rid_at(core, r, r->attempt), reason);
    r->copy.feeder = NULL;
}

/* What was sent in the session before may be lost; asking twice does no harm. */
void refeed_session(struct router_core *core, const struct member *relay)
{
    for (const struct record *r = core->live_head; r; r = r->next) {
        if (r->copy.feeder == relay)
            send_refeed(core, r);
    }
}
