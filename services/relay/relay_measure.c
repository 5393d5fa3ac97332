#include "services/relay/relay_measure.h"

#include "common/base/ts_mem.h"

#define BYTES_PER_S_MAX 1e13
#define FLOWING_RTTS    4   /* a span shows the limit when it is that long, */
#define RAMP_SHARE      1.5 /* and after a pause that many times its slow start and a round trip */
/* Of KV that show a limit: what waits for a thread at decode, and chunks that come at once by several
 * connections, are little beside. */
#define SPAN_BYTES    (4 << 20)
#define WINDOW_BYTES  14600     /* ten segments: the first window of TCP (RFC 6928, section 2) */
#define AVERAGE_BYTES (4 << 20) /* that weigh as much as all before */
#define PROBE_SHARE   0.01      /* of what the link carries */

struct span {
    uint64_t bytes;
    ts_time took;
    bool idle;  /* it begins with a pause */
    bool alone; /* probes, no KV */
    bool small; /* a single one */
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
static int ramp(uint64_t bytes)
{
    int rounds = 0;
    for (uint64_t window = WINDOW_BYTES; window < bytes; window *= 2)
        rounds++;
    return rounds;
}

static bool shows_limit(const struct relay_measure *m, const struct span *s)
{
    double round_trips = s->idle ? RAMP_SHARE * ramp(s->bytes) + 1 : 0;
    round_trips = round_trips > FLOWING_RTTS ? round_trips : FLOWING_RTTS;
    return m->rtt > 0 && (s->alone || s->bytes >= SPAN_BYTES) &&
           (double)s->took >= round_trips * (double)m->rtt;
}

/* What delays a probe makes it slower, and nothing makes it faster: of the last ones the best counts. But
 * shapers let a little pass at once, so that KV knows better how fast a link is. */
static void take_probe(struct relay_measure *m, double value, bool limit)
{
    double best = value;
    m->probes[m->probe_count++ % RELAY_MEASURE_PROBES] = value;
    for (uint32_t i = 0; i < RELAY_MEASURE_PROBES && i < m->probe_count; i++)
        best = m->probes[i] > best ? m->probes[i] : best;
    bool few = m->probe_count < RELAY_MEASURE_PROBES;
    if (best > m->bytes_per_s ? !m->by_transfer : limit && !few)
        m->bytes_per_s = best;
}

static void take_kv(struct relay_measure *m, double value, double bytes, bool limit)
{
    bool known = m->bytes_per_s > 0 && !m->at_least;
    double weight = known ? bytes / (bytes + AVERAGE_BYTES) : 1;
    m->bytes_per_s += weight * (value - m->bytes_per_s);
    m->by_transfer |= limit;
}

static void take(struct relay_measure *m, ts_time now, const struct span *s)
{
    bool limit = shows_limit(m, s);
    ts_time took = s->took - (limit && s->idle ? m->rtt : 0);
    double value = (double)s->bytes / ((double)(took > 0 ? took : 1) / 1e9);
    value = value < BYTES_PER_S_MAX ? value : BYTES_PER_S_MAX;
    if (!limit && value <= m->bytes_per_s)
        return;
    bool known = m->bytes_per_s > 0 && !m->at_least;
    if (s->small)
        take_probe(m, value, limit);
    else
        take_kv(m, value, (double)s->bytes, limit);
    m->at_least = !known && !limit;
    m->samples++;
    m->sampled_at = now;
}

void relay_measure_alone(struct relay_measure *m, ts_time now, uint64_t bytes, ts_time took, bool small)
{
    struct span span = {bytes, took > 0 ? took : 1, true, true, small};
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
        struct span span = {m->credited - s.credited, now - s.from, s.idle, false, false};
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
