/*
 * Connections as ZeroMQ shows them to a core. The dialling side never learns that one broke: what it sends
 * meanwhile waits and goes over the next connection, on which the accepting side sees a peer with a new
 * number. The accepting side's sends to the old number fail. What was under way when a connection broke is
 * lost, so a direction loses a suffix of what was sent before, never the middle (but for an injected gap).
 */
#include "services/cloud/cloud_net.h"

#include <string.h>

#include "common/base/ts_mem.h"

enum { DIALLED, ACCEPTED }; /* lists of a node */

struct peer_key {
    uint64_t channel, peer;
};

struct cloud_conn *conn_of(const struct cloud_node *node, enum ts_channel channel, uint64_t peer)
{
    struct peer_key key = {channel, peer};
    return ts_map_get(node->conns, &key, sizeof key);
}

struct cloud_node *cloud_peer_of(const struct cloud_node *node, enum ts_channel channel, uint64_t peer)
{
    const struct cloud_conn *conn = conn_of(node, channel, peer);
    if (!conn)
        return NULL;
    return conn->dialler == node ? conn->acceptor : conn->dialler;
}

bool cloud_peer_closed(const struct cloud_node *node, enum ts_channel channel, uint64_t peer)
{
    const struct cloud_conn *conn = conn_of(node, channel, peer);
    return !conn || conn->closed;
}

void conn_name(struct cloud_node *node, enum ts_channel channel, uint64_t peer, struct cloud_conn *conn)
{
    struct peer_key key = {channel, peer};
    if (conn)
        ts_map_put(node->conns, &key, sizeof key, conn);
    else
        ts_map_remove(node->conns, &key, sizeof key);
}

static void forget_number(struct cloud_conn *conn)
{
    if (conn->acceptor_peer)
        conn_name(conn->acceptor, conn->channel, conn->acceptor_peer, NULL);
    conn->acceptor_peer = 0;
}

/* --- life -------------------------------------------------------------------------------------------- */

static void enlist(struct cloud_conn *conn, int list, struct cloud_conn **head)
{
    conn->next[list] = *head;
    conn->link[list] = head;
    if (*head)
        (*head)->link[list] = &conn->next[list];
    *head = conn;
}

static void delist(struct cloud_conn *conn, int list)
{
    if (!conn->link[list])
        return;
    *conn->link[list] = conn->next[list];
    if (conn->next[list])
        conn->next[list]->link[list] = conn->link[list];
    conn->link[list] = NULL;
}

void conn_ref(struct cloud_conn *conn)
{
    conn->refs++;
}

void conn_unref(struct cloud_conn *conn)
{
    if (--conn->refs > 0)
        return;
    forget_number(conn);
    delist(conn, ACCEPTED);
    direction_lose(&conn->way[TO_ACCEPTOR]);
    direction_lose(&conn->way[TO_DIALLER]);
    ts_free(conn);
}

/* What is under way is lost. */
static void lose(struct cloud_conn *conn)
{
    conn->epoch++;
    direction_lose(&conn->way[TO_ACCEPTOR]);
    direction_lose(&conn->way[TO_DIALLER]);
}

static void close_conn(struct cloud_conn *conn)
{
    if (conn->closed)
        return;
    conn->closed = true;
    packets_lose(&conn->queue);
    direction_lose(&conn->way[TO_DIALLER]);
    delist(conn, DIALLED);
    conn_unref(conn);
}

/* --- up and down ------------------------------------------------------------------------------------- */

struct change { /* of a connection: try to open it, or cut it */
    struct occurrence o;
    struct cloud_conn *conn;
    uint64_t epoch;
};

static void forget_change(struct occurrence *o)
{
    conn_unref(((struct change *)o)->conn);
    ts_free(o);
}

static void push_change(struct cloud *cloud, struct cloud_conn *conn, ts_time wait,
                        void (*happen)(struct cloud *cloud, struct occurrence *o))
{
    struct change *c = ts_xcalloc(1, sizeof *c);
    *c =
        (struct change){.o = {.happen = happen, .forget = forget_change}, .conn = conn, .epoch = conn->epoch};
    conn_ref(conn);
    cloud_push(cloud, cloud->now + wait, &c->o);
}

static void open_happens(struct cloud *cloud, struct occurrence *o)
{
    struct change *c = (struct change *)o;
    struct cloud_conn *conn = c->conn;
    struct packet *p;
    /* To a dead node: net_node_started tries again. */
    if (c->epoch == conn->epoch && !conn->up && !conn->closed && conn->acceptor->alive) {
        conn->up = true;
        struct packet_queue queue = conn->queue;
        conn->queue.first = NULL;
        while ((p = queue_take(&queue)))
            packet_pass_on(cloud, p);
    }
    forget_change(o);
}

static void open_later(struct cloud *cloud, struct cloud_conn *conn)
{
    push_change(cloud, conn, TS_MS + cloud_draw_time(&cloud->rng, cloud->settings.network.reconnect_max),
                open_happens);
}

/* What is under way is lost; the dialler's side tries again. */
void conn_cut(struct cloud *cloud, struct cloud_conn *conn)
{
    lose(conn);
    conn->up = false;
    memset(conn->way, 0, sizeof conn->way);
    forget_number(conn);
    if (!conn->closed)
        open_later(cloud, conn);
}

static void cut_happens(struct cloud *cloud, struct occurrence *o)
{
    struct change *c = (struct change *)o;
    if (c->epoch == c->conn->epoch && c->conn->up && !c->conn->closed)
        conn_cut(cloud, c->conn);
    forget_change(o);
}

void conn_cut_later(struct cloud *cloud, struct cloud_conn *conn, ts_time wait)
{
    push_change(cloud, conn, wait, cut_happens);
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
    conn->dialler_peer = connect->peer;
    conn->acceptor = acceptor;
    conn->refs = 1; /* until it is closed */
    enlist(conn, DIALLED, &node->dialled);
    enlist(conn, ACCEPTED, &acceptor->accepted);
    conn_name(node, connect->channel, connect->peer, conn);
    push_change(cloud, conn, cloud->settings.network.latency_min, open_happens);
}

void net_disconnect(struct cloud_node *node, const struct ts_action_disconnect *disconnect)
{
    struct cloud_conn *conn = conn_of(node, disconnect->channel, disconnect->peer);
    if (!conn)
        return;
    conn_name(node, disconnect->channel, disconnect->peer, NULL);
    if (conn->dialler == node && conn->dialler_peer == disconnect->peer)
        close_conn(conn); /* what was sent still arrives */
    else
        conn->acceptor_peer = 0; /* a new number, should it speak again */
}

void net_node_started(struct cloud_node *node)
{
    for (struct cloud_conn *conn = node->accepted; conn; conn = conn->next[ACCEPTED]) {
        if (!conn->up && !conn->closed)
            open_later(node->cloud, conn);
    }
}

void net_node_died(struct cloud_node *node, bool abrupt)
{
    struct cloud *cloud = node->cloud;
    struct cloud_conn *next;
    for (struct cloud_conn *conn = node->dialled; conn; conn = next) {
        next = conn->next[DIALLED];
        if (abrupt && ts_rng_below(&cloud->rng, 2) == 0)
            lose(conn); /* what was under way, too */
        close_conn(conn);
    }
    for (struct cloud_conn *conn = node->accepted; conn; conn = next) {
        next = conn->next[ACCEPTED];
        conn_ref(conn);
        if (conn->up)
            conn_cut(cloud, conn);
        conn_unref(conn);
    }
    ts_map_destroy(&node->conns);
    node->conns = ts_map_new();
}

void net_close(struct cloud *cloud)
{
    for (size_t i = 0; i < cloud->node_count; i++) {
        while (cloud->nodes[i]->dialled)
            close_conn(cloud->nodes[i]->dialled);
        for (struct cloud_conn *conn = cloud->nodes[i]->accepted, *next; conn; conn = next) {
            next = conn->next[ACCEPTED];
            conn_ref(conn);
            lose(conn);
            conn_unref(conn);
        }
    }
}
