/*
 * ts-worker-bench: what a token costs in the worker core, one core. A worker with neither relay nor socket
 * decodes; the bench plays router and engine with as little work as it can. `floor_ns` is what it takes to
 * copy the bytes that a token is made of (row, sample and item). Medians over rounds.
 *
 *   what      decode: sequences that do not end; text: each token with 8 bytes of it; single: an Output for
 * each; churn: sequences of 128 tokens, new ones in their place
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "services/worker/worker_core.h"

#define ROUNDS      7
#define ROUND_STEPS 2000
#define PROMPT      64
#define BATCHES_MAX 8

struct bench {
    const char *what;
    uint32_t sequences, batches, length; /* tokens of each sequence; 0 = no end */
    bool text, single;
    struct worker_core *core;
    struct ts_actions out;
    struct ts_session_numbers {
        uint64_t session, seq;
    } router;
    ts_time now;
    struct ts_action_batch running[BATCHES_MAX];
    uint32_t first, running_count;
    uint32_t prompt[PROMPT];
    uint64_t tokenise; /* job that waits; 0 = none */
    uint64_t next_request;
    uint64_t *ended; /* requests to be replaced */
    size_t ended_count;
    struct ts_batch_sample *samples;
    uint64_t tokens;
};

static struct worker_settings settings_of(const struct bench *b)
{
    struct worker_settings s = worker_settings_defaults();
    s.routers[0] = "router";
    s.router_count = 1;
    s.heartbeat_ms = 500;
    s.timeout_ms = s.router_lost_ms = 1u << 30;
    s.max_rows = b->sequences;
    s.max_batch_tokens = b->sequences + 4096;
    s.batches_max = b->batches;
    s.profile = (struct ts_profile){
        .phases = TS_PHASE_BOTH, .phase = TS_PHASE_BOTH, .fingerprint = 7, .context_tokens = 1u << 20};
    s.pool.kv_blocks = b->sequences * ((PROMPT + ROUND_STEPS * (ROUNDS + 1)) / TS_KV_BLOCK_TOKENS + 2);
    return s;
}

static void look(struct bench *b)
{
    for (size_t i = 0; i < b->out.count; i++) {
        const struct ts_action *a = &b->out.items[i];
        if (a->kind == TS_ACTION_BATCH)
            b->running[(b->first + b->running_count++) % BATCHES_MAX] = a->batch;
        else if (a->kind == TS_ACTION_TOKENISE)
            b->tokenise = a->tokenise.job;
    }
}

static void feed(struct bench *b, const struct ts_event *event)
{
    ts_actions_clear(&b->out);
    worker_core_step(b->core, b->now, event, &b->out);
    look(b);
}

static void tell(struct bench *b, const struct ts_msg *msg)
{
    struct ts_event event = {.kind = TS_EVENT_MESSAGE,
                             .message = {.channel = TS_CHANNEL_WORKER, .peer = 1, .msg = *msg}};
    event.message.envelope = (struct ts_envelope){.version = TS_PROTOCOL_VERSION,
                                                  .incarnation = 9,
                                                  .session = b->router.session,
                                                  .seq = ++b->router.seq};
    feed(b, &event);
}

static void ask(struct bench *b)
{
    struct ts_msg assign = {.kind = TS_MSG_ASSIGN,
                            .assign = {.rid = {9, ++b->next_request, 1},
                                       .role = TS_PHASE_BOTH,
                                       .prompt_kind = TS_PROMPT_TOKENS,
                                       .sampling = ts_sampling_defaults(),
                                       .fingerprint = 7}};
    assign.assign.sampling.max_tokens = 1u << 20;
    tell(b, &assign);
    TS_ASSERT(b->tokenise == b->next_request); /* tags and requests count alike */
    struct ts_event event = {.kind = TS_EVENT_TOKENISED,
                             .tokenised = {.job = b->tokenise, .ids = {b->prompt, PROMPT}}};
    feed(b, &event);
}

static void replace(struct bench *b)
{
    for (; b->ended_count > 0; b->ended_count--) {
        struct ts_msg release = {.kind = TS_MSG_RELEASE,
                                 .release = {.rid = {9, b->ended[b->ended_count - 1], 1}}};
        tell(b, &release);
        ask(b);
    }
}

/* The oldest batch is over. */
static void end_batch(struct bench *b)
{
    struct ts_action_batch batch = b->running[b->first];
    uint32_t count = 0;
    TS_ASSERT(b->running_count > 0);
    b->first = (b->first + 1) % BATCHES_MAX;
    b->running_count--;
    for (uint32_t i = 0; i < batch.rows.count; i++) {
        const struct ts_batch_row *row = &batch.rows.data[i];
        if (!row->sample)
            continue;
        struct ts_batch_sample *sample = &b->samples[count++];
        *sample = (struct ts_batch_sample){.tag = row->tag, .item = {.token = row->sample_index}};
        if (b->text)
            sample->item.text = (struct ts_str){"eight by", 8};
        if (b->length && row->sample_index + 1 == b->length) {
            sample->finish = TS_FINISH_LENGTH;
            b->ended[b->ended_count++] = row->tag;
        }
    }
    struct ts_event event = {.kind = TS_EVENT_BATCH_DONE,
                             .batch_done = {.batch = batch.batch, .samples = {b->samples, count}}};
    b->now += 10 * TS_MS / b->batches;
    b->tokens += count;
    feed(b, &event);
    replace(b);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static double floor_ns(void)
{
    struct moved {
        struct ts_batch_row row;
        struct ts_batch_sample sample;
        struct ts_token_item item;
    } *from = ts_xcalloc(256, sizeof *from), *to = ts_xcalloc(256, sizeof *to);
    double ns[ROUNDS];
    for (size_t r = 0; r < ROUNDS; r++) {
        ts_time start = ts_clock_now();
        for (int i = 0; i < 10000; i++) {
            memcpy(to, from, 256 * sizeof *to);
            __asm__ volatile("" : : "r"(to) : "memory");
        }
        ns[r] = (double)(ts_clock_now() - start) / 2560000;
    }
    ts_free(from);
    ts_free(to);
    return median(ns, ROUNDS);
}

static void bench_run(struct bench b, double floor)
{
    struct worker_settings settings = settings_of(&b);
    const struct ts_event start = {.kind = TS_EVENT_START};
    double ns[ROUNDS];
    b.core = worker_core_new(&settings, 1);
    b.now = TS_S;
    b.ended = ts_xcalloc(b.sequences, sizeof *b.ended);
    b.samples = ts_xcalloc(b.sequences, sizeof *b.samples);
    ts_actions_init(&b.out);
    feed(&b, &start);
    b.router = (struct ts_session_numbers){77, 0};
    struct ts_msg welcome = {.kind = TS_MSG_WELCOME,
                             .welcome = {.session = 77,
                                         .heartbeat_ms = settings.heartbeat_ms,
                                         .timeout_ms = settings.timeout_ms,
                                         .output_batches = !b.single}};
    tell(&b, &welcome);
    for (uint32_t i = 0; i < b.sequences; i++)
        ask(&b);
    for (int i = 0; i < ROUND_STEPS; i++)
        end_batch(&b);
    for (size_t r = 0; r < ROUNDS; r++) {
        uint64_t before = b.tokens;
        ts_time began = ts_clock_now();
        for (int i = 0; i < ROUND_STEPS; i++)
            end_batch(&b);
        ns[r] = (double)(ts_clock_now() - began) / (double)(b.tokens - before);
    }
    double cost = median(ns, ROUNDS);
    printf("%s,%u,%u,%.1f,%.1f,%.1f\n", b.what, b.sequences, b.batches, cost, floor, cost / floor);
    worker_core_destroy(&b.core);
    ts_actions_fini(&b.out);
    ts_free(b.ended);
    ts_free(b.samples);
}

int main(void)
{
    double floor = floor_ns();
    printf("what,sequences,batches,ns_per_token,floor_ns,ratio\n");
    bench_run((struct bench){.what = "decode", .sequences = 256, .batches = 1}, floor);
    bench_run((struct bench){.what = "decode", .sequences = 16, .batches = 1}, floor);
    bench_run((struct bench){.what = "decode", .sequences = 256, .batches = 4}, floor);
    bench_run((struct bench){.what = "text", .sequences = 256, .batches = 1, .text = true}, floor);
    bench_run((struct bench){.what = "single", .sequences = 256, .batches = 1, .single = true}, floor);
    bench_run((struct bench){.what = "churn", .sequences = 256, .batches = 1, .length = 128}, floor);
    bench_run((struct bench){.what = "churn", .sequences = 256, .batches = 4, .length = 128}, floor);
    return 0;
}
