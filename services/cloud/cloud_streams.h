/*
 * The requests of one modelled client: found by the number in their id, woken in the order of (due, number),
 * and forgotten one by one where the client is told to, so that a client that sends a million of them needs
 * room for those under way. What was forgotten lives until the next streams_sweep: actions may still name it.
 *
 * Owns the streams. One thread.
 */
#ifndef CLOUD_STREAMS_H
#define CLOUD_STREAMS_H

#include "services/cloud/cloud_impl.h"

struct client_stream {
    struct cloud_request request; /* prompt: see payload; NULL where nobody reads it */
    struct payload *prompt;
    uint64_t number;
    char id[24];
    uint64_t digest, epoch;
    ts_time send_at, asked_at;
    uint32_t asks, refusals;
    bool sent, ended, refused, cancel_sent;
    enum ts_finish finish;
    enum ts_reason reason;
    uint32_t *tokens; /* kept where the cloud checks; arrivals, too */
    ts_time *arrivals;
    size_t count, token_capacity, arrival_capacity;
    struct ts_metrics_run run;
    ts_time due;
    size_t place; /* in the heap, plus one; 0 = not in it */
    struct client_stream *next_dead;
};

struct client_streams {
    struct client_stream **items; /* number - base; NULL = forgotten */
    size_t count, capacity, head; /* nothing lives before head */
    uint64_t base;
    struct client_stream **heap; /* binary, by (due, number) */
    size_t heap_count, heap_capacity;
    struct client_stream *dead;
};

struct client_stream *streams_add(struct client_streams *streams);
struct client_stream *streams_at(const struct client_streams *streams, uint64_t number); /* NULL = none */
struct client_stream *streams_find(const struct client_streams *streams, struct ts_str id);
struct client_stream *streams_next(const struct client_streams *streams,
                                   size_t *cursor); /* in order; NULL = over */
void streams_due(struct client_streams *streams, struct client_stream *stream,
                 ts_time due);                                             /* NEVER = not woken */
struct client_stream *streams_first(const struct client_streams *streams); /* that is due next; NULL = none */
void streams_forget(struct client_streams *streams, struct client_stream *stream);
void streams_sweep(struct client_streams *streams);
void streams_fini(struct client_streams *streams);

#endif
