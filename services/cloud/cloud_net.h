/*
 * What the files of the network share: connections (cloud_net.c) and messages on them (cloud_net_send.c).
 * Shared bandwidth is cloud_flow.h.
 *
 * A connection lives as long as it is open, something of it is under way, or a change of it is due (`refs`).
 * A packet owns a copy of its message and is used again once it is delivered, with the arena that it has.
 */
#ifndef CLOUD_NET_H
#define CLOUD_NET_H

#include "services/cloud/cloud_copy.h"
#include "services/cloud/cloud_flow.h"
#include "services/cloud/cloud_impl.h"

enum { TO_ACCEPTOR, TO_DIALLER };

struct packet {
    struct occurrence o;
    struct packet *next; /* in a queue, or spare */
    struct cloud_conn *conn;
    uint64_t epoch;
    int way;
    struct ts_arena arena; /* holds the message's spans */
    struct ts_event event; /* as it will arrive, but for peer and handle */
    struct payload *payload;
    struct cloud_fate fate;
    struct packet *lane_next;
    struct cloud_flow *flow; /* its bytes are under way */
    bool flows;              /* and have not all left yet, or not set off */
    ts_time wire;            /* of its bytes, or of the way that they took */
};

struct packet_queue {
    struct packet *first, *last;
};

struct lane { /* packets of one direction whose bytes go from one node to one other: the first flows */
    uint32_t from, to;
    struct packet *first, *last;
};

struct direction {
    ts_time last_at;             /* of the message before: FIFO */
    bool dead;                   /* swallows everything until the connection is cut */
    uint32_t gap;                /* messages to lose */
    struct packet_queue waiting; /* for its bytes to have left, or behind one that does */
    struct lane *lanes;          /* of those */
    size_t lane_count, lane_capacity;
};

struct cloud_conn {
    struct cloud_conn *next[2], **link[2]; /* of its dialler's and of its acceptor's */
    enum ts_channel channel;
    struct cloud_node *dialler, *acceptor;
    uint64_t dialler_peer;
    uint64_t acceptor_peer; /* 0 = the acceptor has seen nothing of it */
    bool up, closed;
    uint64_t epoch; /* counts connections */
    uint32_t refs;
    struct direction way[2];
    struct packet_queue queue; /* of the dialler: until there is a connection */
};

/* cloud_net.c */
void conn_ref(struct cloud_conn *conn);
void conn_unref(struct cloud_conn *conn); /* frees it when it is closed and nothing needs it */
struct cloud_conn *conn_of(const struct cloud_node *node, enum ts_channel channel, uint64_t peer);
void conn_name(struct cloud_node *node, enum ts_channel channel, uint64_t peer, struct cloud_conn *conn);
void conn_cut(struct cloud *cloud, struct cloud_conn *conn);
void conn_cut_later(struct cloud *cloud, struct cloud_conn *conn, ts_time wait);

static inline void queue_add(struct packet_queue *queue, struct packet *p)
{
    p->next = NULL;
    if (queue->first)
        queue->last->next = p;
    else
        queue->first = p;
    queue->last = p;
}

static inline struct packet *queue_take(struct packet_queue *queue)
{
    struct packet *p = queue->first;
    if (p)
        queue->first = p->next;
    return p;
}

/* cloud_net_send.c */
void packet_pass_on(struct cloud *cloud,
                    struct packet *p); /* over the connection, or once there is one again */
void packets_lose(struct packet_queue *queue);
void direction_lose(struct direction *way); /* what waits on it */

#endif
