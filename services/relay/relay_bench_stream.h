/*
 * What a link carries without us: two processes, one on each side, that move bytes over raw TCP or over
 * ZeroMQ in pieces of 1 MiB from one buffer. The connection stays up between measurements, as a relay's does.
 * Also where processes of the bench are put: a side may be a network namespace. One thread.
 */
#ifndef RELAY_BENCH_STREAM_H
#define RELAY_BENCH_STREAM_H

#include <stdint.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_error.h"

struct bench_link {
    const char *send_netns, *receive_netns; /* names of `ip netns`; empty = where the bench runs */
    const char *address;                    /* of the receiving side */
};

/* For a child of the bench, before it does anything else: enters the namespace and ends with its parent. */
void bench_enter(const char *netns);

enum bench_stream_kind { BENCH_STREAM_TCP, BENCH_STREAM_ZEROMQ };

struct bench_stream;

/* Before the bench has threads: it forks. */
enum ts_status bench_stream_open(enum bench_stream_kind kind, const struct bench_link *link,
                                 struct bench_stream **out, struct ts_error *err);
void bench_stream_close(struct bench_stream **stream); /* null-safe */
/* From the first byte sent until the sender knows that the last one has come; of 0 bytes: a round trip. */
ts_time bench_stream_send(struct bench_stream *stream, uint64_t bytes);

#endif
