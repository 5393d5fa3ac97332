#include "services/relay/relay_measure.h"

#include "common/base/ts_mem.h"

#define BYTES_PER_S_MAX  1e13
#define FLOWING_RTTS     4             /* a span shows the limit when it is that long, */
#define RAMP_SHARE       1.5           /* and after a pause that many times its slow start and a round trip */
#define WINDOW_BYTES     14600         /* ten segments: the first window of TCP (RFC 6928, section 2) */
#define AVERAGE_BYTES    (1024 * 1024) /* that weigh as much as all before */
#define PROBE_WEIGHT_MIN 0.25
#define PROBE_SHARE      0.01 /* of what the link carries */

struct span {
    double bytes;
    ts_time took;
    bool idle;  /* it begins with a pause */
    bool small; /* a probe */
};

void relay_measure_fini(struct relay_measure *m)
{
    ts_free(m->sends);
    *m = (struct relay_measure){.bytes_per_s = 0};
}

void relay_measure_rtt(struct relay_measure *m, ts_time took)
{
    uint32_t kept = m->rtt_count < RELAY_MEASURE_RTTS ? m->rtt_count + 1 : RELAY_MEASURE_RTTS;
    m->rtts[m->rtt_count++ % RELAY_MEASURE_RTTS] = took > 0 ? took : 1;
    m->rtt = m->rtts[0];
    for (uint32_t i = 1; i < kept; i++)
        m->rtt = m->rtts[i] < m->rtt ? m->rtts[i] : m->rtt;
}

/* Round trips until a connection that doubles what it has under way has sent all. */
static double ramp(double bytes)
{
    int rounds = 0;
    for (double window = WINDOW_BYTES; window < bytes; window *= 2)
        rounds++;
    return rounds;
}

static bool shows_limit(const struct relay_measure *m, const struct span *s)
{
    double round_trips = s->idle ? RAMP_SHARE * ramp(s->bytes) + 1 : 0;
    round_trips = round_trips > FLOWING_RTTS ? round_trips : FLOWING_RTTS;
    return m->rtt > 0 && (double)s->took >= round_trips * (double)m->rtt;
}

static void take(struct relay_measure *m, ts_time now, const struct span *s)
{
    bool limit = shows_limit(m, s), known = m->bytes_per_s > 0 && !m->at_least;
    ts_time waited = limit && s->idle ? m->rtt : 0;
    double value = s->bytes / ((double)(s->took - waited > 0 ? s->took - waited : 1) / 1e9);
    double weight = s->bytes / (s->bytes + AVERAGE_BYTES);
    value = value < BYTES_PER_S_MAX ? value : BYTES_PER_S_MAX;
    if (s->small && m->by_transfer && value > m->bytes_per_s) { /* shapers let a little pass at once */
        m->samples++;
        m->sampled_at = now;
        return;
    }
    if (!limit && value <= m->bytes_per_s)
        return;
    if (s->small && weight < PROBE_WEIGHT_MIN)
        weight = PROBE_WEIGHT_MIN;
    if (known)
        m->bytes_per_s += weight * (value - m->bytes_per_s);
    else
        m->bytes_per_s = value;
    m->at_least = !known && !limit;
    m->by_transfer |= !s->small;
    m->samples++;
    m->sampled_at = now;
}

void relay_measure_alone(struct relay_measure *m, ts_time now, uint64_t bytes, ts_time took, bool small)
{
    struct span span = {(double)bytes, took > 0 ? took : 1, true, small};
    take(m, now, &span);
}

uint64_t relay_measure_under_way(const struct relay_measure *m)
{
    return m->sent - m->credited;
}

void relay_measure_sent(struct relay_measure *m, ts_time now, uint64_t bytes)
{
    if (m->sent == m->credited)
        m->busy_since = now;
    bool idle = m->credited_at <= m->busy_since; /* nothing was credited since the pause */
    m->sent += bytes;
    if (m->count == RELAY_MEASURE_SENDS_MAX)
        return;
    if (m->head > 0 && m->head + m->count == m->capacity) {
        for (size_t i = 0; i < m->count; i++)
            m->sends[i] = m->sends[m->head + i];
        m->head = 0;
    }
    ts_array_reserve((void **)&m->sends, &m->capacity, m->head + m->count + 1, sizeof *m->sends);
    m->sends[m->head + m->count++] = (struct relay_measure_send){
        .end = m->sent, .credited = m->credited, .from = idle ? m->busy_since : m->credited_at, .idle = idle};
}

void relay_measure_credited(struct relay_measure *m, ts_time now, uint64_t bytes)
{
    bytes = bytes < m->sent - m->credited ? bytes : m->sent - m->credited;
    m->credited += bytes;
    m->delivered += bytes;
    while (m->count > 0 && m->sends[m->head].end <= m->credited) {
        struct relay_measure_send s = m->sends[m->head++];
        bool last = --m->count == 0 || m->sends[m->head].end > m->credited;
        struct span span = {(double)(m->credited - s.credited), now - s.from, s.idle, false};
        if (!last || s.from < m->spanned_until || span.took <= 0)
            continue;
        if (shows_limit(m, &span))
            m->spanned_until = now;
        take(m, now, &span);
    }
    m->credited_at = now;
}

void relay_measure_dropped(struct relay_measure *m, uint64_t bytes)
{
    uint64_t left = m->sent - m->credited;
    if (bytes == 0)
        return;
    m->credited += bytes < left ? bytes : left;
    m->head = m->count = 0;
}

ts_time relay_measure_pause(const struct relay_measure *m, ts_time every, uint64_t bytes)
{
    double least = m->bytes_per_s > 0 ? (double)bytes / (PROBE_SHARE * m->bytes_per_s) * 1e9 : 0;
    return least > (double)every ? (ts_time)least : every;
}
