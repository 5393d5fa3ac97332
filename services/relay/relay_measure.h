/*
 * What one link to a decode worker carries: goodput and round trip, as far as what passes over it shows. Pure
 * arithmetic over times that the core brings.
 *
 * Goodput is taken over *spans*: from a chunk's sending, or from the credit before it while something was
 * under way, to the credit of the chunk. Whatever lay before it and the chunk itself was handed to the link
 * by then, so in a span the link had something to do, whatever the pace of the sender; but for one round trip
 * of waiting, and the slow start of a connection that was idle. A span that is long beside those shows the
 * *limit* of the link; a short one only what it carries *at least*. Limits are averaged by bytes. A lower
 * bound counts where it is above what is known. (Delivery rates of single packets, and which of them count:
 * Cheng et al., draft-cheng-iccrg-delivery-rate-estimation, sections 2 and 3; here a chunk is the packet, and
 * a credit its acknowledgement.)
 *
 * Bytes are of payloads; the time a decode worker takes to restore a chunk before it gives credit is in it.
 * Credits name no chunk: they are taken to come in the order of sending.
 *
 * Owned by its link; one thread.
 */
#ifndef RELAY_MEASURE_H
#define RELAY_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_clock.h"

#define RELAY_MEASURE_RTTS      8    /* the least of the last ones counts */
#define RELAY_MEASURE_PROBES    3    /* the best of the last ones counts */
#define RELAY_MEASURE_SENDS_MAX 4096 /* chunks under way that are looked at; further ones are not */

struct relay_measure_send { /* a chunk under way */
    uint64_t end;           /* bytes sent until then, its own included */
    uint64_t credited;      /* bytes credited when it was sent */
    ts_time from;           /* of its span */
    bool idle;              /* which begins with a pause */
};

struct relay_measure {
    double bytes_per_s;                  /* 0 = nothing is known */
    bool at_least;                       /* no limit has shown yet */
    bool by_transfer;                    /* more than small probes has shown its limit */
    ts_time rtt;                         /* 0 = nothing is known */
    uint64_t samples;                    /* that counted */
    ts_time sampled_at;                  /* the last one */
    uint64_t sent, credited;             /* bytes; what was dropped counts as credited */
    uint64_t delivered;                  /* credited without what was dropped */
    ts_time busy_since, credited_at;     /* the last pause ended; the last credit */
    ts_time spanned_until;               /* spans do not overlap */
    double probes[RELAY_MEASURE_PROBES]; /* what the last small ones showed */
    uint32_t probe_count;
    ts_time rtts[RELAY_MEASURE_RTTS];
    uint32_t rtt_count;
    struct relay_measure_send *sends;
    size_t head, count, capacity;
};

void relay_measure_fini(struct relay_measure *m);              /* zeroed memory is the beginning */
void relay_measure_rtt(struct relay_measure *m, ts_time took); /* of an empty probe */
/* Bytes that went alone, from the first to the answer to the last: a small probe of an idle link, or more. */
void relay_measure_alone(struct relay_measure *m, ts_time now, uint64_t bytes, ts_time took, bool small);
void relay_measure_sent(struct relay_measure *m, ts_time now, uint64_t bytes);
void relay_measure_credited(struct relay_measure *m, ts_time now, uint64_t bytes);
/* Of a transfer that is over: so many bytes of it will never be credited. */
void relay_measure_dropped(struct relay_measure *m, uint64_t bytes);
uint64_t relay_measure_under_way(const struct relay_measure *m);
/* Until the next probe of so many bytes: `every`, but never more than 1 % of what the link carries. */
ts_time relay_measure_pause(const struct relay_measure *m, ts_time every, uint64_t bytes);

#endif
