/*
 * Connections as ZeroMQ shows them to a core. The dialling side never learns that one broke: what it sends
 * meanwhile waits and goes over the next connection, on which the accepting side sees a peer with a new
 * number. The accepting side's sends to the old number fail. What was under way when a connection broke is
 * lost, so a direction loses a suffix of what was sent before, never the middle (but for an injected gap).
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/cloud/cloud_impl.h"

#define GAP_MESSAGES_MAX 4

enum { TO_ACCEPTOR, TO_DIALLER };

struct direction {
    ts_time last_at; /* of the message before: FIFO */
    bool dead;       /* swallows everything until the connection is cut */
    uint32_t gap;    /* messages to lose */
};

struct packet {
    struct occurrence o;
    struct packet *next; /* waiting for a connection */
    struct cloud_conn *conn;
    uint64_t epoch;
    int way;
    struct ts_arena arena; /* holds msg */
    struct ts_envelope envelope;
    struct ts_msg msg;
    struct payload *payload;
};

struct cloud_conn {
    struct cloud_conn *next; /* of all */
    enum ts_channel channel;
    struct cloud_node *dialler, *acceptor;
    uint64_t dialler_life, dialler_peer;
    uint64_t acceptor_peer; /* 0 = the acceptor has seen nothing of it */
    bool up, closed;
    uint64_t epoch; /* counts connections */
    struct direction way[2];
    struct packet *queue, **queue_end;
};

struct peer_key {
    uint64_t channel, peer;
};

static struct cloud_conn *conn_of(const struct cloud_node *node, enum ts_channel channel, uint64_t peer)
{
    struct peer_key key = {channel, peer};
    return ts_map_get(node->conns, &key, sizeof key);
}

static void name(struct cloud_node *node, enum ts_channel channel, uint64_t peer, struct cloud_conn *conn)
{
    struct peer_key key = {channel, peer};
    if (conn)
        ts_map_put(node->conns, &key, sizeof key, conn);
    else
        ts_map_remove(node->conns, &key, sizeof key);
}

static void free_packet(struct packet *p)
{
    payload_unref(p->payload);
    ts_arena_fini(&p->arena);
    ts_free(p);
}

static void forget_packet(struct occurrence *o)
{
    free_packet((struct packet *)o);
}

/* --- up and down ------------------------------------------------------------------------------------- */

struct change { /* of a connection: try to open it, or cut it */
    struct occurrence o;
    struct cloud_conn *conn;
    uint64_t epoch;
};

static void forget_change(struct occurrence *o)
{
    ts_free(o);
}

static void push_change(struct cloud *cloud, struct cloud_conn *conn, ts_time wait,
                        void (*happen)(struct cloud *cloud, struct occurrence *o))
{
    struct change *c = ts_xcalloc(1, sizeof *c);
    *c =
        (struct change){.o = {.happen = happen, .forget = forget_change}, .conn = conn, .epoch = conn->epoch};
    cloud_push(cloud, cloud->now + wait, &c->o);
}

static void transmit(struct cloud *cloud, struct packet *p);

/* Over the connection, or once there is one again. */
static void pass_on(struct cloud *cloud, struct packet *p)
{
    if (p->conn->up) {
        transmit(cloud, p);
        return;
    }
    *p->conn->queue_end = p;
    p->conn->queue_end = &p->next;
}

static void open_happens(struct cloud *cloud, struct occurrence *o)
{
    struct change *c = (struct change *)o;
    struct cloud_conn *conn = c->conn;
    bool current = c->epoch == conn->epoch && !conn->up && !conn->closed;
    ts_free(c);
    if (!current)
        return;
    if (!conn->acceptor->alive) {
        push_change(cloud, conn, TS_MS + cloud_draw_time(&cloud->rng, cloud->settings.network.reconnect_max),
                    open_happens);
        return;
    }
    conn->up = true;
    struct packet *p = conn->queue, *next;
    conn->queue = NULL;
    conn->queue_end = &conn->queue;
    for (; p; p = next) {
        next = p->next;
        p->next = NULL;
        pass_on(cloud, p);
    }
}

static void forget_number(struct cloud_conn *conn)
{
    if (conn->acceptor_peer)
        name(conn->acceptor, conn->channel, conn->acceptor_peer, NULL);
    conn->acceptor_peer = 0;
}

/* What is under way is lost; the dialler's side tries again. */
static void cut(struct cloud *cloud, struct cloud_conn *conn)
{
    conn->epoch++;
    conn->up = false;
    memset(conn->way, 0, sizeof conn->way);
    forget_number(conn);
    push_change(cloud, conn, TS_MS + cloud_draw_time(&cloud->rng, cloud->settings.network.reconnect_max),
                open_happens);
}

static void cut_happens(struct cloud *cloud, struct occurrence *o)
{
    struct change *c = (struct change *)o;
    if (c->epoch == c->conn->epoch && c->conn->up && !c->conn->closed)
        cut(cloud, c->conn);
    ts_free(c);
}

void net_connect(struct cloud_node *node, const struct ts_action_connect *connect)
{
    struct cloud *cloud = node->cloud;
    struct cloud_node *acceptor = cloud_find(cloud, connect->endpoint);
    if (!acceptor) {
        cloud_fail(cloud, "%s dials %.*s, which is nobody", node->id, (int)connect->endpoint.count,
                   connect->endpoint.data);
        return;
    }
    net_disconnect(node, &(struct ts_action_disconnect){connect->channel, connect->peer});
    struct cloud_conn *conn = ts_xcalloc(1, sizeof *conn);
    conn->channel = connect->channel;
    conn->dialler = node;
    conn->dialler_life = node->life;
    conn->dialler_peer = connect->peer;
    conn->acceptor = acceptor;
    conn->queue_end = &conn->queue;
    conn->next = cloud->conns;
    cloud->conns = conn;
    name(node, connect->channel, connect->peer, conn);
    push_change(cloud, conn, cloud->settings.network.latency_min, open_happens);
}

static void close_conn(struct cloud_conn *conn)
{
    struct packet *next;
    conn->closed = true;
    for (struct packet *p = conn->queue; p; p = next) {
        next = p->next;
        free_packet(p);
    }
    conn->queue = NULL;
}

void net_disconnect(struct cloud_node *node, const struct ts_action_disconnect *disconnect)
{
    struct cloud_conn *conn = conn_of(node, disconnect->channel, disconnect->peer);
    if (!conn)
        return;
    name(node, disconnect->channel, disconnect->peer, NULL);
    if (conn->dialler == node && conn->dialler_peer == disconnect->peer)
        close_conn(conn); /* what was sent still arrives */
    else
        conn->acceptor_peer = 0; /* a new number, should it speak again */
}

void net_node_died(struct cloud_node *node, bool abrupt)
{
    struct cloud *cloud = node->cloud;
    for (struct cloud_conn *conn = cloud->conns; conn; conn = conn->next) {
        if (conn->closed)
            continue;
        if (conn->dialler == node && conn->dialler_life == node->life) {
            close_conn(conn);
            if (abrupt && ts_rng_below(&cloud->rng, 2) == 0)
                conn->epoch++; /* what was under way is lost, too */
        } else if (conn->acceptor == node && conn->up) {
            cut(cloud, conn);
        }
    }
    ts_map_destroy(&node->conns);
    node->conns = ts_map_new();
}

void net_free(struct cloud *cloud)
{
    struct cloud_conn *next;
    for (struct cloud_conn *conn = cloud->conns; conn; conn = next) {
        next = conn->next;
        close_conn(conn);
        ts_free(conn);
    }
    cloud->conns = NULL;
}

/* --- messages ---------------------------------------------------------------------------------------- */

static void packet_happens(struct cloud *cloud, struct occurrence *o)
{
    struct packet *p = (struct packet *)o;
    struct cloud_conn *conn = p->conn;
    bool arrives = p->epoch == conn->epoch;
    struct cloud_node *to = p->way == TO_ACCEPTOR ? conn->acceptor : conn->dialler;
    if (p->way == TO_DIALLER)
        arrives = arrives && !conn->closed;
    if (!arrives || !to->alive) {
        cloud->counts.lost++;
        free_packet(p);
        return;
    }
    if (to->frozen_until > cloud->now) {
        cloud_push(cloud, to->frozen_until, o);
        return;
    }
    if (p->way == TO_ACCEPTOR && conn->acceptor_peer == 0) {
        conn->acceptor_peer = to->next_peer++;
        name(to, conn->channel, conn->acceptor_peer, conn);
    }
    struct ts_event event = {
        .kind = TS_EVENT_MESSAGE,
        .message = {.channel = conn->channel,
                    .peer = p->way == TO_ACCEPTOR ? conn->acceptor_peer : conn->dialler_peer,
                    .envelope = p->envelope,
                    .msg = p->msg}};
    if (p->payload) {
        event.message.bulk = bulk_put(&to->bulks, p->payload);
        p->payload = NULL;
    }
    cloud_step(to, &event);
    free_packet(p);
}

/* A KV chunk may arrive damaged: its checksum must tell. */
static void corrupt(struct cloud *cloud, struct packet *p, const struct cloud_fate *fate)
{
    if (p->msg.kind != TS_MSG_KV_CHUNK || !p->payload || p->payload->size == 0 ||
        (!fate->damaged && !cloud_chance(cloud, cloud->settings.network.corrupt)))
        return;
    struct payload *damaged = payload_new(p->payload->size, p->payload->bytes);
    memcpy(damaged->data, p->payload->data, damaged->size);
    damaged->data[ts_rng_below(&cloud->faults, damaged->size)] ^= 0x40;
    payload_unref(p->payload);
    p->payload = damaged;
    cloud->counts.corrupted++;
}

/* Whether the network loses this message; what else befalls the connection. */
static bool misfortune(struct cloud *cloud, struct packet *p, const struct cloud_fate *fate)
{
    const struct cloud_network *net = &cloud->settings.network;
    struct cloud_conn *conn = p->conn;
    struct direction *way = &conn->way[p->way];
    if (fate->cut || cloud_chance(cloud, net->cut)) {
        cloud->counts.cuts++;
        cut(cloud, conn);
        return true;
    }
    if (!way->dead && cloud_chance(cloud, net->loss)) {
        way->dead = true;
        push_change(cloud, conn, cloud_draw_time(&cloud->faults, net->cut_after_max), cut_happens);
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
    return way->dead || fate->lost;
}

static void fill_packet(struct packet *p, struct cloud_conn *conn, int way,
                        const struct ts_envelope *envelope, const struct ts_msg *msg)
{
    p->o = (struct occurrence){.happen = packet_happens, .forget = forget_packet};
    p->conn = conn;
    p->way = way;
    p->envelope = *envelope;
    ts_arena_init(&p->arena);
    ts_schema_copy(&ts_msg_schema, &p->msg, msg, &p->arena);
}

/* A late copy: it does not hold up what follows. */
static void arrives_again(struct cloud *cloud, const struct packet *p, ts_time at)
{
    struct packet *copy = ts_xcalloc(1, sizeof *copy);
    fill_packet(copy, p->conn, p->way, &p->envelope, &p->msg);
    copy->epoch = p->epoch;
    copy->payload = p->payload ? payload_ref(p->payload) : NULL;
    cloud->counts.duplicates++;
    cloud_push(cloud, at, &copy->o);
}

static struct cloud_fate fate_of(struct cloud *cloud, const struct packet *p)
{
    struct cloud_fate fate = {.cut = false};
    const struct cloud_hooks *hooks = &cloud->settings.hooks;
    const struct cloud_conn *conn = p->conn;
    bool to_acceptor = p->way == TO_ACCEPTOR;
    if (hooks->fate)
        hooks->fate(hooks->context, to_acceptor ? conn->dialler : conn->acceptor,
                    to_acceptor ? conn->acceptor : conn->dialler, &p->msg, &fate);
    return fate;
}

static void transmit(struct cloud *cloud, struct packet *p)
{
    const struct cloud_network *net = &cloud->settings.network;
    const struct cloud_fate fate = fate_of(cloud, p);
    if (fate.refused)
        cloud_unreachable(p->way == TO_ACCEPTOR ? p->conn->dialler : p->conn->acceptor, p->conn->channel,
                          p->way == TO_ACCEPTOR ? p->conn->dialler_peer : p->conn->acceptor_peer);
    if (fate.refused || misfortune(cloud, p, &fate)) {
        cloud->counts.lost++;
        free_packet(p);
        return;
    }
    struct direction *way = &p->conn->way[p->way];
    double wire = p->payload ? (double)p->payload->bytes / net->bytes_per_s * 1e9 : 0;
    ts_time at = cloud->now + net->latency_min + (ts_time)wire +
                 (ts_time)ts_rng_exponential(&cloud->rng, (double)net->latency_mean);
    corrupt(cloud, p, &fate);
    if (at < way->last_at)
        at = way->last_at;
    at += fate.delay;
    way->last_at = at;
    p->epoch = p->conn->epoch;
    cloud->counts.messages++;
    if (fate.again)
        arrives_again(cloud, p, at + fate.again_after);
    cloud_push(cloud, at, &p->o);
}

static struct packet *new_packet(struct cloud_node *node, struct cloud_conn *conn,
                                 const struct ts_action_send *send)
{
    struct packet *p = ts_xcalloc(1, sizeof *p);
    fill_packet(p, conn, conn->dialler == node ? TO_ACCEPTOR : TO_DIALLER, &send->envelope, &send->msg);
    if (send->bulk.slot)
        p->payload = payload_ref(bulk_payload(&node->bulks, send->bulk));
    return p;
}

void net_send(struct cloud_node *node, const struct ts_action_send *send)
{
    struct ts_error err = {0};
    struct cloud_conn *conn = conn_of(node, send->channel, send->peer);
    if (node->cloud->settings.checks && ts_schema_check(&ts_msg_schema, &send->msg, &err) != TS_OK) {
        cloud_fail(node->cloud, "%s sends what cannot be packed: %s", node->id, err.text);
        return;
    }
    if (send->bulk.slot && !bulk_payload(&node->bulks, send->bulk)) {
        cloud_fail(node->cloud, "%s sends a handle that it does not hold with %s", node->id,
                   ts_msg_name(send->msg.kind));
        return;
    }
    bool dials = conn && conn->dialler == node;
    if (!conn || (!dials && (!conn->up || conn->closed)) ||
        cloud_chance(node->cloud, node->cloud->settings.network.refuse)) {
        cloud_unreachable(node, send->channel, send->peer);
        return;
    }
    pass_on(node->cloud, new_packet(node, conn, send));
}
