/*
 * Sockets. The only file that knows ZeroMQ. A `net` holds at most one bound ROUTER socket per channel and any
 * number of dialled DEALER sockets, each named by (channel, peer number). A message is an envelope frame and,
 * optionally, one raw frame that is neither copied nor looked at. Peers of a bound socket get numbers in
 * order of appearance; a peer that reconnects is a new number.
 *
 * One thread, except that ZeroMQ releases sent frames on its own (ts_frame is safe for that). Nothing blocks
 * but ts_net_poll.
 */
#ifndef TS_RUN_NET_H
#define TS_RUN_NET_H

#include "common/base/ts_error.h"
#include "common/run/ts_frame.h"

#define TS_ENDPOINT_BYTES 256
#define TS_NET_FRAME_MAX                                                                                     \
    ((int64_t)256 << 20) /* larger frames are refused by the socket and the connection is closed */

struct ts_net;

struct ts_net *ts_net_new(int io_threads);
void ts_net_destroy(struct ts_net **net); /* waits at most 200 ms for what is queued */

/* Binds the channel's ROUTER socket. `endpoint` may end in ":*" (tcp). A path (ipc) is taken over from a
 * process that is gone, and from no other. `actual` (TS_ENDPOINT_BYTES, may be
 * NULL) receives the bound address. */
enum ts_status ts_net_bind(struct ts_net *net, enum ts_channel channel, const char *endpoint, char *actual,
                           struct ts_error *err);
enum ts_status ts_net_dial(struct ts_net *net, enum ts_channel channel, uint64_t peer, const char *endpoint,
                           struct ts_error *err);
/* Whether ts_net_dial takes this text for an address; that anybody listens there it does not say. */
enum ts_status ts_net_check(const char *endpoint, struct ts_error *err);
/* Closes a dialled socket, or forgets the number of a bound socket's peer. Unknown ones are ignored. */
void ts_net_forget(struct ts_net *net, enum ts_channel channel, uint64_t peer);

/* Sends; `frame` may be NULL and is referenced as long as ZeroMQ needs it. TS_ECLOSED: the peer is
 * unreachable or its queue full. */
enum ts_status ts_net_send(struct ts_net *net, enum ts_channel channel, uint64_t peer, const void *data,
                           size_t bytes, struct ts_frame *frame);

struct ts_net_message {
    enum ts_channel channel;
    uint64_t peer;
    const void *data; /* the envelope; valid until the next receive */
    size_t bytes;
    struct ts_frame *frame; /* or NULL; the receiver owns the reference */
};

/* Takes one message if there is any, serving the sockets in turn. TS_EAGAIN when all are empty. A message
 * with too many frames is counted in *malformed (may be NULL) and skipped. */
enum ts_status ts_net_receive(struct ts_net *net, struct ts_net_message *out, uint64_t *malformed);

struct ts_net_fd {
    int fd;
    int readable; /* out */
};

/* Waits until a socket or one of the fds is readable, or `timeout_ms` passed (-1: for ever). */
enum ts_status ts_net_poll(struct ts_net *net, struct ts_net_fd *fds, size_t fd_count, int timeout_ms);

/* The endpoint of a router's channel, derived from its client endpoint: tcp port + channel offset, ipc path +
 * suffix. */
enum ts_status ts_endpoint_of(const char *router, enum ts_channel channel, char out[TS_ENDPOINT_BYTES],
                              struct ts_error *err);

#endif
