/* Messages on connections: what befalls them, when they arrive. */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/cloud/cloud_net.h"

#define GAP_MESSAGES_MAX 4

/* --- packets ----------------------------------------------------------------------------------------- */

static void packet_free(struct packet *p)
{
    struct cloud_conn *conn = p->conn;
    struct cloud *cloud = conn->dialler->cloud;
    if (p->flow)
        flow_cancel(cloud, p->flow);
    payload_unref(p->payload);
    ts_arena_reset(&p->arena);
    p->next = cloud->spare;
    cloud->spare = p;
    conn_unref(conn);
}

static void forget_packet(struct occurrence *o)
{
    packet_free((struct packet *)o);
}

void packets_lose(struct packet_queue *queue)
{
    struct packet *p;
    while ((p = queue_take(queue)))
        packet_free(p);
}

void direction_lose(struct direction *way)
{
    packets_lose(&way->waiting);
    ts_free(way->lanes);
    way->lanes = NULL;
    way->lane_count = way->lane_capacity = 0;
}

void packets_fini(struct cloud *cloud)
{
    struct packet *next;
    for (struct packet *p = cloud->spare; p; p = next) {
        next = p->next;
        ts_arena_fini(&p->arena);
        ts_free(p);
    }
    cloud->spare = NULL;
}

static struct cloud_node *receiver_of(const struct packet *p)
{
    return p->way == TO_ACCEPTOR ? p->conn->acceptor : p->conn->dialler;
}

static void packet_happens(struct cloud *cloud, struct occurrence *o)
{
    struct packet *p = (struct packet *)o;
    struct cloud_conn *conn = p->conn;
    bool arrives = p->epoch == conn->epoch;
    struct cloud_node *to = receiver_of(p);
    if (p->way == TO_DIALLER)
        arrives = arrives && !conn->closed;
    if (!arrives || !to->alive) {
        cloud->counts.lost++;
        packet_free(p);
        return;
    }
    if (cloud_node_frozen(to)) {
        cloud_push(cloud, to->frozen_until, o);
        return;
    }
    if (p->way == TO_ACCEPTOR && conn->acceptor_peer == 0) {
        conn->acceptor_peer = to->next_peer++;
        conn_name(to, conn->channel, conn->acceptor_peer, conn);
    }
    p->event.message.peer = p->way == TO_ACCEPTOR ? conn->acceptor_peer : conn->dialler_peer;
    p->event.message.bulk = (struct ts_bulk){.slot = 0};
    p->event.message.wire_bytes = p->payload ? p->payload->bytes : 0;
    if (p->payload) {
        p->event.message.bulk = bulk_put(&to->bulks, p->payload);
        p->payload = NULL;
    }
    cloud_step(to, &p->event);
    packet_free(p);
}

static struct packet *new_packet(struct cloud *cloud, struct cloud_conn *conn, int way,
                                 const struct ts_envelope *envelope, const struct ts_msg *msg)
{
    struct packet *p = cloud->spare;
    if (p) {
        cloud->spare = p->next;
    } else {
        p = ts_xcalloc(1, sizeof *p);
        ts_arena_init(&p->arena);
    }
    p->o = (struct occurrence){.happen = packet_happens, .forget = forget_packet};
    p->conn = conn;
    p->way = way;
    p->epoch = conn->epoch;
    p->payload = NULL;
    p->fate = (struct cloud_fate){.cut = false};
    p->flow = NULL;
    p->flows = false;
    p->wire = 0;
    p->event.kind = TS_EVENT_MESSAGE;
    p->event.message.channel = conn->channel;
    p->event.message.envelope = *envelope;
    copier_copy(cloud->copier, &p->event.message.msg, msg, &p->arena);
    conn_ref(conn);
    return p;
}

/* --- what befalls them ------------------------------------------------------------------------------- */

/* A KV chunk may arrive damaged: its checksum must tell. */
static void corrupt(struct cloud *cloud, struct packet *p)
{
    if (p->event.message.msg.kind != TS_MSG_KV_CHUNK || !p->payload || p->payload->size == 0 ||
        (!p->fate.damaged && !cloud_chance(cloud, cloud->settings.network.corrupt)))
        return;
    struct payload *damaged = payload_new(p->payload->size, p->payload->bytes);
    damaged->place = p->payload->place;
    memcpy(damaged->data, p->payload->data, damaged->size);
    damaged->data[ts_rng_below(&cloud->faults, damaged->size)] ^= 0x40;
    payload_unref(p->payload);
    p->payload = damaged;
    cloud->counts.corrupted++;
}

/* Whether the network loses this message; what else befalls the connection. */
static bool misfortune(struct cloud *cloud, struct packet *p)
{
    const struct cloud_network *net = &cloud->settings.network;
    struct cloud_conn *conn = p->conn;
    struct direction *way = &conn->way[p->way];
    if (p->fate.cut || cloud_chance(cloud, net->cut)) {
        cloud->counts.cuts++;
        conn_cut(cloud, conn);
        return true;
    }
    if (!way->dead && cloud_chance(cloud, net->loss)) {
        way->dead = true;
        conn_cut_later(cloud, conn, cloud_draw_time(&cloud->faults, net->cut_after_max));
    }
    if (way->gap == 0 && cloud_chance(cloud, net->gap))
        way->gap = 1 + (uint32_t)ts_rng_below(&cloud->faults, GAP_MESSAGES_MAX);
    if (cloud_chance(cloud, net->stall)) {
        cloud->counts.stalls++;
        way->last_at = cloud->now + cloud_draw_time(&cloud->faults, net->stall_max);
    }
    if (way->gap > 0) {
        way->gap--;
        return true;
    }
    return way->dead || p->fate.lost;
}

/* A late copy: it does not hold up what follows. */
static void arrives_again(struct cloud *cloud, const struct packet *p, ts_time at)
{
    struct packet *copy =
        new_packet(cloud, p->conn, p->way, &p->event.message.envelope, &p->event.message.msg);
    copy->payload = p->payload ? payload_ref(p->payload) : NULL;
    cloud->counts.duplicates++;
    cloud_push(cloud, at, &copy->o);
}

static void ask_fate(struct cloud *cloud, struct packet *p)
{
    const struct cloud_hooks *hooks = &cloud->settings.hooks;
    const struct cloud_conn *conn = p->conn;
    if (hooks->fate)
        hooks->fate(hooks->context, p->way == TO_ACCEPTOR ? conn->dialler : conn->acceptor, receiver_of(p),
                    &p->event.message.msg, &p->fate);
}

/* --- under way --------------------------------------------------------------------------------------- */

/* All of it is on its way: it arrives `wire` and a latency later, behind what was before it. */
static void arrive_later(struct cloud *cloud, struct packet *p)
{
    const struct cloud_network *net = &cloud->settings.network;
    struct direction *way = &p->conn->way[p->way];
    ts_time at = cloud->now + net->latency_min + p->wire + p->fate.delay;
    if (net->latency_mean > 0)
        at += (ts_time)ts_rng_exponential(&cloud->rng, (double)net->latency_mean);
    if (at < way->last_at)
        at = way->last_at;
    way->last_at = at;
    cloud_push(cloud, at, &p->o);
    if (p->fate.again)
        arrives_again(cloud, p, at + p->fate.again_after);
}

static void flow_over(void *context);

static void begin_flow(struct cloud *cloud, const struct lane *lane)
{
    struct packet *p = lane->first;
    p->wire = flow_latency(cloud, lane->from, lane->to);
    p->flow = flow_begin(cloud, lane->from, lane->to, (double)p->payload->bytes, flow_over, p);
}

static struct lane *lane_of(struct direction *way, uint32_t from, uint32_t to)
{
    for (size_t i = 0; i < way->lane_count; i++) {
        if (way->lanes[i].from == from && way->lanes[i].to == to)
            return &way->lanes[i];
    }
    void *lanes = way->lanes;
    ts_array_reserve(&lanes, &way->lane_capacity, way->lane_count + 1, sizeof *way->lanes);
    way->lanes = lanes;
    way->lanes[way->lane_count] = (struct lane){.from = from, .to = to};
    return &way->lanes[way->lane_count++];
}

/* Between replicas on a cluster KV flows: from the node of each stage on its own, as its process would send
 * it. */
static void take_lane(struct cloud *cloud, struct direction *way, struct packet *p)
{
    const struct ts_msg *msg = &p->event.message.msg;
    if (!cloud->flows || !p->payload || p->payload->place == UINT32_MAX || msg->kind != TS_MSG_KV_CHUNK)
        return;
    uint32_t from = p->payload->place, to = cloud_node_place(receiver_of(p), msg->kv_chunk.layer);
    if (to == UINT32_MAX)
        return;
    struct lane *lane = lane_of(way, from, to);
    p->flows = true;
    p->lane_next = NULL;
    if (lane->first) {
        lane->last->lane_next = p;
        lane->last = p;
        return;
    }
    lane->first = lane->last = p;
    begin_flow(cloud, lane);
}

/* In order: what flows holds up all behind it. */
static void advance(struct cloud *cloud, struct direction *way)
{
    while (way->waiting.first && !way->waiting.first->flows)
        arrive_later(cloud, queue_take(&way->waiting));
}

static void flow_over(void *context)
{
    struct packet *p = context;
    struct cloud *cloud = p->conn->dialler->cloud;
    struct direction *way = &p->conn->way[p->way];
    size_t i = 0;
    while (way->lanes[i].first != p)
        i++;
    p->flow = NULL;
    p->flows = false;
    way->lanes[i].first = p->lane_next;
    if (way->lanes[i].first)
        begin_flow(cloud, &way->lanes[i]);
    advance(cloud, way);
}

static void transmit(struct cloud *cloud, struct packet *p)
{
    struct cloud_conn *conn = p->conn;
    struct direction *way = &conn->way[p->way];
    ask_fate(cloud, p);
    if (p->fate.refused)
        cloud_unreachable(p->way == TO_ACCEPTOR ? conn->dialler : conn->acceptor, conn->channel,
                          p->way == TO_ACCEPTOR ? conn->dialler_peer : conn->acceptor_peer);
    if (p->fate.refused || misfortune(cloud, p)) {
        cloud->counts.lost++;
        packet_free(p);
        return;
    }
    corrupt(cloud, p);
    p->epoch = conn->epoch;
    cloud->counts.messages++;
    if (p->payload)
        p->wire = (ts_time)((double)p->payload->bytes / cloud->settings.network.bytes_per_s * 1e9);
    take_lane(cloud, way, p);
    queue_add(&way->waiting, p);
    advance(cloud, way);
}

void packet_pass_on(struct cloud *cloud, struct packet *p)
{
    if (p->conn->up)
        transmit(cloud, p);
    else
        queue_add(&p->conn->queue, p);
}

void net_send(struct cloud_node *node, const struct ts_action_send *send)
{
    struct ts_error err = {0};
    struct cloud *cloud = node->cloud;
    struct cloud_conn *conn = conn_of(node, send->channel, send->peer);
    struct payload *payload = send->bulk.slot ? bulk_payload(&node->bulks, send->bulk) : NULL;
    if (cloud->settings.checks && ts_schema_check(&ts_msg_schema, &send->msg, &err) != TS_OK) {
        cloud_fail(cloud, "%s sends what cannot be packed: %s", node->id, err.text);
        return;
    }
    if (send->bulk.slot && !payload) {
        cloud_fail(cloud, "%s sends a handle that it does not hold with %s", node->id,
                   ts_msg_name(send->msg.kind));
        return;
    }
    bool dials = conn && conn->dialler == node;
    if (!conn || (!dials && (!conn->up || conn->closed)) ||
        cloud_chance(cloud, cloud->settings.network.refuse)) {
        cloud_unreachable(node, send->channel, send->peer);
        return;
    }
    struct packet *p = new_packet(cloud, conn, dials ? TO_ACCEPTOR : TO_DIALLER, &send->envelope, &send->msg);
    p->payload = payload              ? payload_ref(payload)
                 : send->filler_bytes ? payload_zeros(cloud, (size_t)send->filler_bytes)
                                      : NULL;
    packet_pass_on(cloud, p);
}
