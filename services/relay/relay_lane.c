/*
 * The connections of a link. The first carries the session, in order; chunks go over whichever has the fewest
 * bytes under way, the others carry nothing else and stand outside of the session's order: what they lose is
 * found by the clock and sent again over the first.
 */
#include "common/base/ts_log.h"
#include "services/relay/relay_impl.h"

struct link *lane_link(const struct relay_core *core, uint64_t peer, uint32_t *lane)
{
    struct link *link = ts_map_get_u64(core->link_peers, peer);
    for (*lane = 0; link && link->lanes[*lane].peer != peer;)
        ++*lane;
    return link;
}

static void close_lane(struct relay_core *core, struct lane *lane)
{
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_DISCONNECT);
    a->disconnect = (struct ts_action_disconnect){TS_CHANNEL_KV, lane->peer};
    ts_map_remove_u64(core->link_peers, lane->peer);
    lane->peer = 0;
}

void lanes_begin(struct relay_core *core, struct link *link, bool many)
{
    link->lane_count = many ? core->settings.kv_connections : 1;
}

/* What is still queued on them is of a session that is over: with them it is gone. */
void lanes_end(struct relay_core *core, struct link *link)
{
    for (uint32_t i = 0; i < RELAY_LANES_MAX; i++) {
        struct lane *lane = &link->lanes[i];
        if (i > 0 && lane->peer)
            close_lane(core, lane);
        lane->under_way = 0;
        lane->failed = false;
    }
    link->lane_count = 1;
}

static void open_lane(struct relay_core *core, struct link *link, struct lane *lane)
{
    lane->peer = core->next_peer++;
    ts_map_put_u64(core->link_peers, lane->peer, link);
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_CONNECT);
    a->connect = (struct ts_action_connect){TS_CHANNEL_KV, lane->peer, ts_str_of(link->endpoint)};
}

static uint32_t least_busy(const struct link *link)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < link->lane_count; i++) {
        if (!link->lanes[i].failed && link->lanes[i].under_way < link->lanes[best].under_way)
            best = i;
    }
    return best;
}

static void sets_off(struct relay_core *core, struct link *link, struct chunk *c, uint32_t number)
{
    struct lane *lane = &link->lanes[number];
    if (lane->under_way == 0)
        lane->moved_at = core->now;
    lane->under_way += c->bytes;
    c->lane = number;
}

struct ts_action_send *lane_send_chunk(struct relay_core *core, struct link *link, struct chunk *c)
{
    uint32_t number = least_busy(link);
    struct lane *lane = &link->lanes[number];
    if (!link->session.up)
        return NULL;
    sets_off(core, link, c, number);
    if (number == 0)
        return relay_send_link(core, link, TS_MSG_KV_CHUNK);
    if (!lane->peer)
        open_lane(core, link, lane);
    struct ts_action_send *s = ts_actions_send(core->out, TS_CHANNEL_KV, lane->peer, TS_MSG_KV_CHUNK);
    s->envelope = (struct ts_envelope){
        .version = TS_PROTOCOL_VERSION, .incarnation = link->session.self, .session = link->session.id};
    return s;
}

struct ts_action_send *lane_send_again(struct relay_core *core, struct link *link, struct chunk *c)
{
    if (!link->session.up)
        return NULL;
    if (!c->credited) {
        lane_came(core, link, c);
        sets_off(core, link, c, 0);
    }
    return relay_send_link(core, link, TS_MSG_KV_CHUNK);
}

void lane_came(struct relay_core *core, struct link *link, const struct chunk *c)
{
    struct lane *lane = &link->lanes[c->lane];
    lane->under_way -= c->bytes < lane->under_way ? c->bytes : lane->under_way;
    lane->moved_at = core->now;
}

void lane_failed(struct relay_core *core, struct link *link, uint32_t number)
{
    struct lane *lane = &link->lanes[number];
    core->counts.lanes_failed++;
    ts_actions_log(core->out, TS_LOG_WARN, "event=kv_connection_failed endpoint=%s number=%u bytes=%llu",
                   link->endpoint, number, (unsigned long long)lane->under_way);
    close_lane(core, lane);
    lane->failed = true;
    for (struct transfer *t = core->live.head; t; t = t->near[LIST_ALL].next) {
        if (t->link == link)
            encode_lane_lost(core, t, number);
    }
}

/* A connection is only at fault where the session's lives: else the whole link may be away. */
ts_time lanes_tick(struct relay_core *core, struct link *link)
{
    ts_time heard = link->session.last_rx + link->session.timeout_ns;
    bool lives = heard - core->now > link->session.timeout_ns / 2;
    ts_time due = TS_TIME_NEVER;
    for (uint32_t i = 1; i < link->lane_count; i++) {
        const struct lane *lane = &link->lanes[i];
        ts_time until = lane->moved_at + link->session.timeout_ns;
        if (lane->under_way == 0 || lane->failed || !link->session.up)
            continue;
        if (until <= core->now && lives)
            lane_failed(core, link, i);
        else if (until <= core->now)
            until = heard;
        due = until < due ? until : due;
    }
    return due;
}
