/*
 * ts-router-bench: what the router core costs, one core of the machine, nothing packed and nothing sent.
 *
 *   token      one output token, in OutputBatches of a quarter of the streams each, for one client connection
 *   single     the same, each token in an Output of its own, for a client that takes Tokens
 *   request    one request from Generate to End with no tokens between: admission, pick, assignment, release,
 * trace busy       one token while the queue holds requests that fit nowhere
 *
 * Columns: what, workers, streams, plan (0, 1), operations, nanoseconds for each (the best of several
 * rounds).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "services/router/router_core.h"

#define ROUNDS      5
#define STEPS       64 /* batches of each worker in a round */
#define CLIENT      9
#define WORKERS_MAX 2048

struct peer {
    uint64_t incarnation, session, seq;
};

struct bench {
    struct router_core *core;
    struct ts_actions out;
    struct peer workers[WORKERS_MAX], relay, planner;
    uint32_t worker_count; /* even ones prefill, odd ones decode */
    uint64_t requests;
    struct ts_rid *rids; /* of streams: as assigned */
    uint32_t *decode;    /* and where */
    uint32_t stream_count, assigned;
    uint64_t version;
    ts_time now;
};

static struct peer *peer_of(struct bench *b, enum ts_channel channel, uint64_t peer)
{
    return channel == TS_CHANNEL_WORKER  ? &b->workers[peer - 1]
           : channel == TS_CHANNEL_RELAY ? &b->relay
                                         : &b->planner;
}

/* What the router says: sessions, and who got which request. */
static void look(struct bench *b)
{
    for (size_t i = 0; i < b->out.count; i++) {
        const struct ts_action *a = &b->out.items[i];
        if (a->kind != TS_ACTION_SEND)
            continue;
        const struct ts_msg *m = &a->send.msg;
        if (m->kind == TS_MSG_WELCOME)
            peer_of(b, a->send.channel, a->send.peer)->session = m->welcome.session;
        else if (m->kind == TS_MSG_SNAPSHOT || m->kind == TS_MSG_UPDATE)
            b->version = m->snapshot.version;
        else if (m->kind == TS_MSG_ASSIGN && m->assign.role != TS_PHASE_PREFILL &&
                 b->assigned < b->stream_count) {
            b->rids[b->assigned] = m->assign.rid;
            b->decode[b->assigned++] = (uint32_t)a->send.peer - 1;
        }
    }
}

static void step(struct bench *b, struct ts_event *event)
{
    ts_actions_clear(&b->out);
    router_core_step(b->core, b->now, event, &b->out);
}

static void send(struct bench *b, enum ts_channel channel, uint64_t peer, const struct ts_msg *msg)
{
    struct ts_event event = {.kind = TS_EVENT_MESSAGE,
                             .message = {.channel = channel, .peer = peer, .msg = *msg}};
    if (channel != TS_CHANNEL_CLIENT) {
        struct peer *p = peer_of(b, channel, peer);
        event.message.envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION,
                                                      .incarnation = p->incarnation,
                                                      .session = p->session,
                                                      .seq = p->session ? ++p->seq : 0};
    }
    if (msg->kind == TS_MSG_GENERATE)
        event.message.bulk = (struct ts_bulk){.slot = 1, .generation = 1, .bytes = 2000};
    step(b, &event);
}

static void join(struct bench *b, enum ts_channel channel, uint64_t peer, const struct ts_msg_hello *hello)
{
    struct ts_msg msg = {.kind = TS_MSG_HELLO, .hello = *hello};
    *peer_of(b, channel, peer) = (struct peer){.incarnation = 1000 * (uint64_t)channel + peer};
    send(b, channel, peer, &msg);
    look(b);
}

static void join_worker(struct bench *b, uint32_t i)
{
    char id[32];
    snprintf(id, sizeof id, "worker-%u", i);
    struct ts_msg_hello hello = {.role = TS_ROLE_WORKER,
                                 .id = ts_str_of(id),
                                 .profile = {.phase = i % 2 ? TS_PHASE_DECODE : TS_PHASE_PREFILL,
                                             .phases = TS_PHASE_BOTH,
                                             .model = ts_str_of("model"),
                                             .fingerprint = 7,
                                             .kv_blocks = 1u << 20,
                                             .relay = ts_str_of("relay")}};
    struct ts_msg resync = {.kind = TS_MSG_RESYNC};
    join(b, TS_CHANNEL_WORKER, i + 1, &hello);
    send(b, TS_CHANNEL_WORKER, i + 1, &resync);
}

/* Every prefill worker has a share with the four decode workers after it. */
static void plan(struct bench *b)
{
    uint32_t n = b->worker_count, half = n / 2, links = half < 4 ? half : 4;
    struct ts_plan_replica *replicas = ts_xcalloc(n, sizeof *replicas);
    struct ts_plan_share *shares = ts_xcalloc((size_t)half * links, sizeof *shares);
    char(*ids)[32] = ts_xcalloc(n, sizeof *ids);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(ids[i], sizeof ids[i], "worker-%u", i);
        replicas[i] =
            (struct ts_plan_replica){i, ts_str_of(ids[i]), i % 2 ? TS_PHASE_DECODE : TS_PHASE_PREFILL};
    }
    for (uint32_t i = 0; i < half * links; i++)
        shares[i] = (struct ts_plan_share){.prefill = 2 * (i / links),
                                           .decode = 2 * ((i / links + i % links) % half) + 1,
                                           .share = 1.0 / (half * links)};
    struct ts_msg msg = {.kind = TS_MSG_PLAN,
                         .plan = {.term = 1,
                                  .number = 1,
                                  .snapshot_version = b->version,
                                  .replicas = {replicas, n},
                                  .shares = {shares, half * links}}};
    send(b, TS_CHANNEL_PLANNER, 1, &msg);
    ts_free(replicas);
    ts_free(shares);
    ts_free(ids);
}

static void generate(struct bench *b, bool batches)
{
    char id[32];
    snprintf(id, sizeof id, "request-%llu", (unsigned long long)b->requests++);
    struct ts_msg msg = {.kind = TS_MSG_GENERATE,
                         .generate = {.client = ts_str_of("client"),
                                      .request_id = ts_str_of(id),
                                      .digest = 1,
                                      .prompt_kind = TS_PROMPT_TOKENS,
                                      .sampling = ts_sampling_defaults(),
                                      .token_batches = batches}};
    msg.generate.sampling.max_tokens = 200;
    send(b, TS_CHANNEL_CLIENT, CLIENT, &msg);
}

static struct bench *bench_open(uint32_t workers, uint32_t streams, bool planned, bool batches)
{
    struct bench *b = ts_xcalloc(1, sizeof *b);
    struct router_settings settings = router_settings_defaults();
    settings.heartbeat_ms = settings.timeout_ms = settings.client_timeout_ms = 3600000;
    settings.queue_max = settings.per_client_max = 1u << 20;
    settings.prefill_inflight_max = settings.decode_inflight_max =
        streams ? (2 * streams + workers - 1) / workers : 1000;
    settings.held_bytes_max = 1u << 30;
    ts_actions_init(&b->out);
    b->core = router_core_new(&settings, 77);
    b->worker_count = workers;
    b->stream_count = streams;
    b->rids = ts_xcalloc(streams + 1, sizeof *b->rids);
    b->decode = ts_xcalloc(streams + 1, sizeof *b->decode);
    join(b, TS_CHANNEL_RELAY, 1, &(struct ts_msg_hello){.role = TS_ROLE_RELAY, .id = ts_str_of("relay")});
    for (uint32_t i = 0; i < workers; i++)
        join_worker(b, i);
    join(b, TS_CHANNEL_PLANNER, 1,
         &(struct ts_msg_hello){.role = TS_ROLE_PLANNER, .id = ts_str_of("planner")});
    if (planned)
        plan(b);
    for (uint32_t i = 0; i < streams; i++) {
        generate(b, batches);
        look(b);
    }
    TS_ASSERT(b->assigned == streams);
    return b;
}

static void bench_close(struct bench *b)
{
    router_core_destroy(&b->core);
    ts_actions_fini(&b->out);
    ts_free(b->rids);
    ts_free(b->decode);
    ts_free(b);
}

static void row(const char *what, const struct bench *b, bool planned, uint64_t count, double ns)
{
    printf("%s,%u,%u,%d,%llu,%.1f\n", what, b->worker_count, b->stream_count, planned,
           (unsigned long long)count, ns);
    fflush(stdout);
}

/* The outputs of one step of each worker, one after the other. */
static struct ts_msg_output *outputs_of(const struct bench *b, const struct ts_token_item *item)
{
    struct ts_msg_output *outputs = ts_xcalloc(b->stream_count, sizeof *outputs);
    uint32_t n = 0;
    for (uint32_t w = 1; w < b->worker_count; w += 2) {
        for (uint32_t i = 0; i < b->stream_count; i++) {
            if (b->decode[i] == w)
                outputs[n++] =
                    (struct ts_msg_output){.rid = b->rids[i], .role = TS_PHASE_DECODE, .items = {item, 1}};
        }
    }
    TS_ASSERT(n == b->stream_count);
    return outputs;
}

static uint32_t rows_of(const struct bench *b, uint32_t worker)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->stream_count; i++)
        n += b->decode[i] == worker;
    return n;
}

/* STEPS tokens of each stream; returns nanoseconds for one. */
static double stream_round(struct bench *b, struct ts_msg_output *outputs, const uint32_t *rows,
                           uint32_t first, bool batches)
{
    ts_time spent = 0;
    for (uint32_t s = 0; s < STEPS; s++) {
        struct ts_msg_output *of = outputs;
        for (uint32_t w = 1; w < b->worker_count; of += rows[w], w += 2) {
            for (uint32_t i = 0; i < rows[w]; i++)
                of[i].first_index = first + s;
            ts_time begin = ts_clock_now();
            struct ts_msg msg = {.kind = TS_MSG_OUTPUT_BATCH, .output_batch = {{of, rows[w]}}};
            if (batches)
                send(b, TS_CHANNEL_WORKER, w + 1, &msg);
            for (uint32_t i = 0; i < rows[w] && !batches; i++) {
                msg = (struct ts_msg){.kind = TS_MSG_OUTPUT, .output = of[i]};
                send(b, TS_CHANNEL_WORKER, w + 1, &msg);
            }
            spent += ts_clock_now() - begin;
        }
        b->now += 20 * TS_MS;
    }
    return (double)spent / STEPS / b->stream_count;
}

static void bench_tokens(const char *what, uint32_t workers, uint32_t streams, bool batches, uint32_t waiting)
{
    struct bench *b = bench_open(workers, streams, true, batches);
    const struct ts_token_item item = {.token = 5, .text = ts_str_of(" word")};
    struct ts_msg_output *outputs = outputs_of(b, &item);
    uint32_t *rows = ts_xcalloc(workers, sizeof *rows);
    double best = 1e18;
    for (uint32_t w = 0; w < workers; w++)
        rows[w] = rows_of(b, w);
    for (uint32_t i = 0; i < waiting; i++)
        generate(b, batches);
    for (uint32_t r = 0; r < ROUNDS; r++) {
        double ns = stream_round(b, outputs, rows, r * STEPS, batches);
        best = ns < best ? ns : best;
    }
    row(what, b, true, (uint64_t)ROUNDS * STEPS * streams, best);
    ts_free(outputs);
    ts_free(rows);
    bench_close(b);
}

static void bench_requests(uint32_t workers, bool planned)
{
    enum { COUNT = 2000 };
    struct bench *b = bench_open(workers, 0, planned, true);
    double best = 1e18;
    for (uint32_t r = 0; r < ROUNDS; r++) {
        uint64_t first = b->requests;
        ts_time begin = ts_clock_now();
        for (uint32_t i = 0; i < COUNT; i++) {
            char id[32];
            b->now += TS_MS;
            generate(b, true);
            if (i < 256) /* so many are under way */
                continue;
            snprintf(id, sizeof id, "request-%llu", (unsigned long long)(first + i - 256));
            struct ts_msg cancel = {.kind = TS_MSG_CANCEL, .cancel = {ts_str_of("client"), ts_str_of(id)}};
            send(b, TS_CHANNEL_CLIENT, CLIENT, &cancel);
        }
        double ns = (double)(ts_clock_now() - begin) / COUNT;
        best = ns < best ? ns : best;
    }
    row("request", b, planned, (uint64_t)ROUNDS * COUNT, best);
    bench_close(b);
}

int main(void)
{
    printf("what,workers,streams,plan,operations,ns\n");
    bench_tokens("token", 8, 1000, true, 0);
    bench_tokens("token", 8, 10000, true, 0);
    bench_tokens("single", 8, 1000, false, 0);
    bench_tokens("busy", 8, 1000, true, 2000);
    bench_requests(8, false);
    bench_requests(8, true);
    bench_requests(1000, false);
    bench_requests(1000, true);
    return 0;
}
