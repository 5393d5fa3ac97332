#include "common/run/ts_net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"

/* Deep enough for a burst of every peer, finite so that a stuck peer shows as an error instead of as memory.
 */
#define NET_HWM_MESSAGES 100000
#ifndef NET_PEERS_MAX       /* a test has fewer */
#define NET_PEERS_MAX 65536 /* numbers remembered per bound socket; beyond, a silent one is forgotten */
#endif

struct net_peer {
    uint64_t number;
    bool heard; /* since it was last the oldest */
    uint8_t id_bytes;
    uint8_t id[255];
};

struct net_socket {
    void *zmq;
    enum ts_channel channel;
    bool bound;
    uint64_t peer;            /* dialled */
    struct ts_map *by_id;     /* bound: routing id -> struct net_peer */
    struct ts_map *by_number; /* bound: number -> struct net_peer, oldest first, or the last to be spared */
};

struct ts_net {
    void *context;
    struct net_socket **sockets;
    size_t count, capacity;
    size_t turn;
    uint64_t next_peer;
    zmq_msg_t envelope; /* of the last received message */
    zmq_pollitem_t *items;
    size_t item_capacity;
};

struct net_frame { /* a received raw frame */
    struct ts_frame frame;
    zmq_msg_t msg;
};

struct ts_net *ts_net_new(int io_threads)
{
    struct ts_net *net = ts_xcalloc(1, sizeof *net);
    net->context = zmq_ctx_new();
    TS_ASSERT(net->context);
    zmq_ctx_set(net->context, ZMQ_IO_THREADS, io_threads);
    zmq_ctx_set(net->context, ZMQ_MAX_SOCKETS, 8192);
    zmq_msg_init(&net->envelope);
    net->next_peer = 1;
    return net;
}

static void free_peers(struct net_socket *s)
{
    size_t cursor = 0;
    struct net_peer *peer;
    while (s->by_number && (peer = ts_map_next(s->by_number, &cursor, NULL, NULL)))
        ts_free(peer);
    ts_map_destroy(&s->by_id);
    ts_map_destroy(&s->by_number);
}

static void close_socket(struct net_socket *s)
{
    zmq_close(s->zmq);
    free_peers(s);
    ts_free(s);
}

void ts_net_destroy(struct ts_net **net)
{
    struct ts_net *n = *net;
    if (!n)
        return;
    for (size_t i = 0; i < n->count; i++)
        close_socket(n->sockets[i]);
    zmq_msg_close(&n->envelope);
    zmq_ctx_term(n->context);
    ts_free(n->sockets);
    ts_free(n->items);
    ts_free(n);
    *net = NULL;
}

static void set_int(void *socket, int option, int value)
{
    int rc = zmq_setsockopt(socket, option, &value, sizeof value);
    TS_ASSERT(rc == 0);
}

static struct net_socket *open_socket(struct ts_net *net, enum ts_channel channel, bool bound,
                                      struct ts_error *err)
{
    void *zmq = zmq_socket(net->context, bound ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!zmq) {
        ts_error_set(err, TS_EIO, "cannot open a socket: %s; raise the limit of open files",
                     zmq_strerror(errno));
        return NULL;
    }
    int64_t frame_max = TS_NET_FRAME_MAX;
    set_int(zmq, ZMQ_LINGER, 200);
    set_int(zmq, ZMQ_SNDHWM, NET_HWM_MESSAGES);
    set_int(zmq, ZMQ_RCVHWM, NET_HWM_MESSAGES);
    set_int(zmq, ZMQ_IPV6, 1);
    zmq_setsockopt(zmq, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max);
    if (bound) {
        set_int(zmq, ZMQ_ROUTER_MANDATORY, 1);
        set_int(zmq, ZMQ_BACKLOG, 1024);
    } else {
        set_int(zmq, ZMQ_RECONNECT_IVL, 50);
        set_int(zmq, ZMQ_RECONNECT_IVL_MAX, 1000);
    }
    struct net_socket *s = ts_xcalloc(1, sizeof *s);
    s->zmq = zmq;
    s->channel = channel;
    s->bound = bound;
    if (bound) {
        s->by_id = ts_map_new();
        s->by_number = ts_map_new();
    }
    ts_array_reserve((void **)&net->sockets, &net->capacity, net->count + 1, sizeof *net->sockets);
    net->sockets[net->count++] = s;
    return s;
}

static void remove_socket(struct ts_net *net, struct net_socket *s)
{
    for (size_t i = 0; i < net->count; i++) {
        if (net->sockets[i] != s)
            continue;
        net->sockets[i] = net->sockets[--net->count];
        close_socket(s);
        return;
    }
}

static struct net_socket *find(const struct ts_net *net, enum ts_channel channel, bool bound, uint64_t peer)
{
    for (size_t i = 0; i < net->count; i++) {
        struct net_socket *s = net->sockets[i];
        if (s->channel == channel && s->bound == bound && (bound || s->peer == peer))
            return s;
    }
    return NULL;
}

/* ZeroMQ unlinks an ipc path before it binds, and so takes it from whoever listens there, who notices
 * nothing; a path that a killed process left refuses connections. */
static bool listens(const char *endpoint)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t bytes = strlen(endpoint);
    if (strncmp(endpoint, "ipc://", 6) != 0 || bytes - 6 >= sizeof to.sun_path)
        return false;
    memcpy(to.sun_path, endpoint + 6, bytes - 6);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool there = fd >= 0 && (connect(fd, (const struct sockaddr *)&to, sizeof to) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return there;
}

static enum ts_status cannot_bind(enum ts_channel channel, const char *endpoint, int why,
                                  struct ts_error *err)
{
    if (why == ENODEV)
        return ts_error_set(err, TS_EIO,
                            "cannot bind %s for the %s channel: this machine has no such address or network "
                            "interface; give one of these, a host's name is neither",
                            endpoint, ts_channel_name(channel));
    return ts_error_set(err, TS_EIO,
                        "cannot bind %s for the %s channel: %s; choose another address or stop its user",
                        endpoint, ts_channel_name(channel), zmq_strerror(why));
}

enum ts_status ts_net_bind(struct ts_net *net, enum ts_channel channel, const char *endpoint, char *actual,
                           struct ts_error *err)
{
    TS_ASSERT(!find(net, channel, true, 0));
    struct net_socket *s = open_socket(net, channel, true, err);
    if (!s)
        return TS_EIO;
    int why = listens(endpoint) ? EADDRINUSE : zmq_bind(s->zmq, endpoint) != 0 ? errno : 0;
    if (why != 0) {
        remove_socket(net, s);
        return cannot_bind(channel, endpoint, why, err);
    }
    if (actual) {
        size_t size = TS_ENDPOINT_BYTES;
        zmq_getsockopt(s->zmq, ZMQ_LAST_ENDPOINT, actual, &size);
    }
    return TS_OK;
}

enum ts_status ts_net_dial(struct ts_net *net, enum ts_channel channel, uint64_t peer, const char *endpoint,
                           struct ts_error *err)
{
    ts_net_forget(net, channel, peer);
    struct net_socket *s = open_socket(net, channel, false, err);
    if (!s)
        return TS_EIO;
    s->peer = peer;
    if (zmq_connect(s->zmq, endpoint) != 0) {
        ts_error_set(err, TS_EINVAL, "cannot use the address %s: %s; expected tcp://HOST:PORT or ipc://PATH",
                     endpoint, zmq_strerror(errno));
        remove_socket(net, s);
        return TS_EINVAL;
    }
    return TS_OK;
}

enum ts_status ts_net_check(const char *endpoint, struct ts_error *err)
{
    struct ts_net *net = ts_net_new(1);
    enum ts_status status =
        strlen(endpoint) >= TS_ENDPOINT_BYTES
            ? ts_error_set(err, TS_EINVAL, "the address %.100s... has %zu bytes: at most %d", endpoint,
                           strlen(endpoint), TS_ENDPOINT_BYTES - 1)
            : ts_net_dial(net, TS_CHANNEL_KV, 1, endpoint, err);
    ts_net_destroy(&net);
    return status;
}

static void forget_peer(struct net_socket *s, struct net_peer *peer)
{
    ts_map_remove(s->by_id, peer->id, peer->id_bytes);
    ts_map_remove_u64(s->by_number, peer->number);
    ts_free(peer);
}

void ts_net_forget(struct ts_net *net, enum ts_channel channel, uint64_t peer)
{
    struct net_socket *s = find(net, channel, false, peer);
    if (s) {
        remove_socket(net, s);
        return;
    }
    s = find(net, channel, true, 0);
    struct net_peer *p = s ? ts_map_get_u64(s->by_number, peer) : NULL;
    if (p)
        forget_peer(s, p);
}

static void release_sent(void *data, void *hint)
{
    (void)data;
    struct ts_frame *frame = hint;
    ts_frame_unref(&frame);
}

static enum ts_status send_frames(void *zmq, const struct net_peer *to, const void *data, size_t bytes,
                                  struct ts_frame *frame)
{
    if (to && zmq_send(zmq, to->id, to->id_bytes, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return TS_ECLOSED;
    if (zmq_send(zmq, data, bytes, ZMQ_DONTWAIT | (frame ? ZMQ_SNDMORE : 0)) < 0)
        return TS_ECLOSED;
    if (!frame)
        return TS_OK;
    zmq_msg_t msg;
    zmq_msg_init_data(&msg, frame->data, frame->bytes, release_sent, ts_frame_ref(frame));
    if (zmq_msg_send(&msg, zmq, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&msg);
        return TS_ECLOSED;
    }
    return TS_OK;
}

enum ts_status ts_net_send(struct ts_net *net, enum ts_channel channel, uint64_t peer, const void *data,
                           size_t bytes, struct ts_frame *frame)
{
    struct net_socket *s = find(net, channel, false, peer);
    if (s)
        return send_frames(s->zmq, NULL, data, bytes, frame);
    s = find(net, channel, true, 0);
    struct net_peer *to = s ? ts_map_get_u64(s->by_number, peer) : NULL;
    if (!to)
        return TS_ECLOSED;
    return send_frames(s->zmq, to, data, bytes, frame);
}

/* The oldest one that has said nothing since it was last looked at: workers stay, however many clients have
 * come and gone since they appeared. */
static void forget_silent(struct net_socket *s)
{
    struct net_peer *peer;
    for (;;) {
        size_t cursor = 0;
        peer = ts_map_next(s->by_number, &cursor, NULL, NULL);
        if (!peer->heard)
            break;
        peer->heard = false;
        ts_map_remove_u64(s->by_number, peer->number);
        ts_map_put_u64(s->by_number, peer->number, peer);
    }
    forget_peer(s, peer);
}

static struct net_peer *intern(struct ts_net *net, struct net_socket *s, const void *id, size_t bytes)
{
    struct net_peer *peer = ts_map_get(s->by_id, id, bytes);
    if (peer) {
        peer->heard = true;
        return peer;
    }
    if (ts_map_count(s->by_number) >= NET_PEERS_MAX)
        forget_silent(s);
    peer = ts_xcalloc(1, sizeof *peer);
    peer->number = net->next_peer++;
    peer->id_bytes = (uint8_t)bytes;
    memcpy(peer->id, id, bytes);
    ts_map_put(s->by_id, peer->id, peer->id_bytes, peer);
    ts_map_put_u64(s->by_number, peer->number, peer);
    return peer;
}

static void release_received(struct ts_frame *frame)
{
    struct net_frame *f = (struct net_frame *)frame;
    zmq_msg_close(&f->msg);
    ts_free(f);
}

static struct ts_frame *receive_raw(void *zmq)
{
    struct net_frame *f = ts_xcalloc(1, sizeof *f);
    zmq_msg_init(&f->msg);
    if (zmq_msg_recv(&f->msg, zmq, ZMQ_DONTWAIT) < 0) {
        release_received(&f->frame);
        return NULL;
    }
    atomic_init(&f->frame.refs, 1);
    f->frame.data = zmq_msg_data(&f->msg);
    f->frame.bytes = zmq_msg_size(&f->msg);
    f->frame.release = release_received;
    return &f->frame;
}

static bool more(void *zmq)
{
    int value = 0;
    size_t size = sizeof value;
    zmq_getsockopt(zmq, ZMQ_RCVMORE, &value, &size);
    return value != 0;
}

static void skip_rest(void *zmq)
{
    zmq_msg_t msg;
    zmq_msg_init(&msg);
    while (more(zmq) && zmq_msg_recv(&msg, zmq, ZMQ_DONTWAIT) >= 0)
        ;
    zmq_msg_close(&msg);
}

/* One whole message of one socket. TS_EAGAIN: none there. TS_EINVAL: a malformed one was skipped. */
static enum ts_status receive_from(struct ts_net *net, struct net_socket *s, struct ts_net_message *out)
{
    if (zmq_msg_recv(&net->envelope, s->zmq, ZMQ_DONTWAIT) < 0)
        return TS_EAGAIN;
    out->channel = s->channel;
    out->peer = s->peer;
    out->frame = NULL;
    if (s->bound) {
        out->peer = intern(net, s, zmq_msg_data(&net->envelope), zmq_msg_size(&net->envelope))->number;
        if (!more(s->zmq) || zmq_msg_recv(&net->envelope, s->zmq, ZMQ_DONTWAIT) < 0)
            return TS_EINVAL;
    }
    out->data = zmq_msg_data(&net->envelope);
    out->bytes = zmq_msg_size(&net->envelope);
    if (more(s->zmq))
        out->frame = receive_raw(s->zmq);
    if (more(s->zmq)) {
        skip_rest(s->zmq);
        ts_frame_unref(&out->frame);
        return TS_EINVAL;
    }
    return TS_OK;
}

enum ts_status ts_net_receive(struct ts_net *net, struct ts_net_message *out, uint64_t *malformed)
{
    for (size_t tried = 0; tried < net->count;) {
        struct net_socket *s = net->sockets[net->turn++ % net->count];
        enum ts_status status = receive_from(net, s, out);
        if (status == TS_OK)
            return TS_OK;
        if (status == TS_EINVAL && malformed)
            (*malformed)++;
        tried += status == TS_EAGAIN;
    }
    return TS_EAGAIN;
}

enum ts_status ts_net_poll(struct ts_net *net, struct ts_net_fd *fds, size_t fd_count, int timeout_ms)
{
    size_t total = net->count + fd_count;
    ts_array_reserve((void **)&net->items, &net->item_capacity, total, sizeof *net->items);
    for (size_t i = 0; i < net->count; i++)
        net->items[i] = (zmq_pollitem_t){.socket = net->sockets[i]->zmq, .events = ZMQ_POLLIN};
    for (size_t i = 0; i < fd_count; i++)
        net->items[net->count + i] = (zmq_pollitem_t){.fd = fds[i].fd, .events = ZMQ_POLLIN};
    int rc = zmq_poll(net->items, (int)total, timeout_ms);
    for (size_t i = 0; i < fd_count; i++)
        fds[i].readable = rc > 0 && (net->items[net->count + i].revents & ZMQ_POLLIN) != 0;
    return rc < 0 && errno != EINTR ? TS_EIO : TS_OK;
}

enum ts_status ts_endpoint_of(const char *router, enum ts_channel channel, char out[TS_ENDPOINT_BYTES],
                              struct ts_error *err)
{
    static const struct {
        enum ts_channel channel;
        int port_offset;
        const char *suffix;
    } table[] = {{TS_CHANNEL_CLIENT, 0, ""},
                 {TS_CHANNEL_ADMIN, 1, ".admin"},
                 {TS_CHANNEL_WORKER, 2, ".worker"},
                 {TS_CHANNEL_RELAY, 3, ".relay"},
                 {TS_CHANNEL_PLANNER, 4, ".planner"}};
    size_t i = 0;
    while (i < TS_ARRAY_SIZE(table) && table[i].channel != channel)
        i++;
    TS_ASSERT(i < TS_ARRAY_SIZE(table));
    if (strncmp(router, "ipc://", 6) == 0) {
        if (snprintf(out, TS_ENDPOINT_BYTES, "%s%s", router, table[i].suffix) < TS_ENDPOINT_BYTES)
            return TS_OK;
    } else if (strncmp(router, "tcp://", 6) == 0) {
        const char *colon = strrchr(router + 6, ':');
        char *end = NULL;
        long port = colon ? strtol(colon + 1, &end, 10) : 0;
        if (colon && *end == '\0' && port > 0 && port + table[i].port_offset <= 65535 &&
            snprintf(out, TS_ENDPOINT_BYTES, "%.*s:%ld", (int)(colon - router), router,
                     port + table[i].port_offset) < TS_ENDPOINT_BYTES)
            return TS_OK;
    }
    return ts_error_set(
        err, TS_EINVAL,
        "router address \"%s\" is not usable: expected tcp://HOST:PORT (five ports from PORT on) or "
        "ipc://PATH",
        router);
}
