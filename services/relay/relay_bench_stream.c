#include "services/relay/relay_bench_stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "common/run/ts_net.h"

#define PIECE ((size_t)1 << 20)

struct bench_stream {
    pid_t sender, receiver;
    int control; /* to the sender: bytes wanted there, nanoseconds back */
};

/* What a child cannot do ends it; the parent then finds its pipe closed. */
static void must(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "ts-relay-bench: %s: %s\n", what, strerror(errno));
    _exit(1);
}

void bench_enter(const char *netns)
{
    char path[256];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!*netns)
        return;
    snprintf(path, sizeof path, "/run/netns/%s", netns);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && setns(fd, CLONE_NEWNET) == 0, path);
    close(fd);
}

static bool get_all(int fd, void *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = read(fd, (uint8_t *)to + done, bytes - done);
        if (n == 0 || (n < 0 && errno != EINTR))
            return false;
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool put_all(int fd, const void *from, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(fd, (const uint8_t *)from + done, bytes - done);
        if (n < 0 && errno != EINTR)
            return false;
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* --- raw TCP: a count, so many bytes, one byte back --- */

static void tcp_receive(const char *address, int tell)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    char endpoint[TS_ENDPOINT_BYTES] = "";
    uint8_t *piece = ts_xmalloc(PIECE);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(inet_pton(AF_INET, address, &at.sin_addr) == 1 &&
             bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 1) == 0 &&
             getsockname(listener, (struct sockaddr *)&at, &size) == 0,
         address);
    snprintf(endpoint, sizeof endpoint, "%u", ntohs(at.sin_port));
    must(put_all(tell, endpoint, sizeof endpoint), "pipe");
    int fd = accept(listener, NULL, NULL);
    must(fd >= 0, "accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (uint64_t bytes; get_all(fd, &bytes, sizeof bytes);) {
        while (bytes > 0) {
            ssize_t n = read(fd, piece, bytes < PIECE ? bytes : PIECE);
            must(n > 0, "read");
            bytes -= (size_t)n;
        }
        must(put_all(fd, piece, 1), "write");
    }
}

static void tcp_send(const char *address, const char *endpoint, int control)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(endpoint))};
    uint8_t *piece = ts_xcalloc(1, PIECE);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(inet_pton(AF_INET, address, &to.sin_addr) == 1 &&
             connect(fd, (struct sockaddr *)&to, sizeof to) == 0,
         address);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (uint64_t bytes; get_all(control, &bytes, sizeof bytes);) {
        ts_time began = ts_clock_now();
        must(put_all(fd, &bytes, sizeof bytes), "write");
        for (; bytes > 0; bytes -= bytes < PIECE ? bytes : PIECE)
            must(put_all(fd, piece, bytes < PIECE ? bytes : PIECE), "write");
        must(get_all(fd, piece, 1), "read");
        ts_time spent = ts_clock_now() - began;
        must(put_all(control, &spent, sizeof spent), "pipe");
    }
}

/* --- ZeroMQ: messages with what is left after them, and a piece as raw frame; one message back --- */

static void wait_message(struct ts_net *net, struct ts_net_message *m)
{
    while (ts_net_receive(net, m, NULL) != TS_OK)
        must(ts_net_poll(net, NULL, 0, -1) == TS_OK, "poll");
}

static void zeromq_receive(const char *address, int tell)
{
    struct ts_net *net = ts_net_new(1);
    char wanted[TS_ENDPOINT_BYTES], endpoint[TS_ENDPOINT_BYTES] = "";
    struct ts_error err = {0};
    snprintf(wanted, sizeof wanted, "tcp://%s:*", address);
    must(ts_net_bind(net, TS_CHANNEL_KV, wanted, endpoint, &err) == TS_OK, wanted);
    must(put_all(tell, endpoint, sizeof endpoint), "pipe");
    for (;;) {
        struct ts_net_message m;
        uint64_t left = 0;
        wait_message(net, &m);
        must(m.bytes == sizeof left, "message");
        memcpy(&left, m.data, sizeof left);
        if (left == 0)
            must(ts_net_send(net, TS_CHANNEL_KV, m.peer, &left, sizeof left, NULL) == TS_OK, "send");
        ts_frame_unref(&m.frame);
    }
}

static void zeromq_send(const char *endpoint, int control)
{
    struct ts_net *net = ts_net_new(1);
    struct ts_frame *piece = ts_frame_new(PIECE);
    struct ts_error err = {0};
    memset(piece->data, 0, PIECE);
    must(ts_net_dial(net, TS_CHANNEL_KV, 1, endpoint, &err) == TS_OK, endpoint);
    for (uint64_t bytes; get_all(control, &bytes, sizeof bytes);) {
        struct ts_net_message m;
        ts_time began = ts_clock_now();
        do {
            uint64_t left = bytes > PIECE ? bytes - PIECE : 0;
            must(ts_net_send(net, TS_CHANNEL_KV, 1, &left, sizeof left, bytes ? piece : NULL) == TS_OK,
                 "send");
            bytes = left;
        } while (bytes > 0);
        wait_message(net, &m);
        ts_time spent = ts_clock_now() - began;
        must(put_all(control, &spent, sizeof spent), "pipe");
    }
}

/* --- the two processes --- */

static pid_t fork_receiver(enum bench_stream_kind kind, const struct bench_link *link, char *endpoint)
{
    int tell[2];
    if (pipe2(tell, O_CLOEXEC) != 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        bench_enter(link->receive_netns);
        if (kind == BENCH_STREAM_TCP)
            tcp_receive(link->address, tell[1]);
        else
            zeromq_receive(link->address, tell[1]);
        _exit(0);
    }
    close(tell[1]);
    if (!get_all(tell[0], endpoint, TS_ENDPOINT_BYTES) && pid > 0) {
        waitpid(pid, NULL, 0);
        pid = -1;
    }
    close(tell[0]);
    return pid;
}

static pid_t fork_sender(enum bench_stream_kind kind, const struct bench_link *link, const char *endpoint,
                         int *control)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        bench_enter(link->send_netns);
        close(pair[0]);
        if (kind == BENCH_STREAM_TCP)
            tcp_send(link->address, endpoint, pair[1]);
        else
            zeromq_send(endpoint, pair[1]);
        _exit(0);
    }
    close(pair[1]);
    *control = pair[0];
    return pid;
}

enum ts_status bench_stream_open(enum bench_stream_kind kind, const struct bench_link *link,
                                 struct bench_stream **out, struct ts_error *err)
{
    struct bench_stream *s = ts_xcalloc(1, sizeof *s);
    char endpoint[TS_ENDPOINT_BYTES];
    s->control = -1;
    s->receiver = fork_receiver(kind, link, endpoint);
    s->sender = s->receiver > 0 ? fork_sender(kind, link, endpoint, &s->control) : -1;
    if (s->sender < 0 || bench_stream_send(s, 0) < 0) {
        bench_stream_close(&s);
        return ts_error_set(err, TS_EIO, "no raw stream to %s", link->address);
    }
    *out = s;
    return TS_OK;
}

static void end_child(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void bench_stream_close(struct bench_stream **stream)
{
    struct bench_stream *s = *stream;
    if (!s)
        return;
    if (s->control >= 0)
        close(s->control);
    end_child(s->sender);
    end_child(s->receiver);
    ts_free(s);
    *stream = NULL;
}

ts_time bench_stream_send(struct bench_stream *stream, uint64_t bytes)
{
    ts_time spent;
    if (!put_all(stream->control, &bytes, sizeof bytes) || !get_all(stream->control, &spent, sizeof spent))
        return -1;
    return spent;
}
