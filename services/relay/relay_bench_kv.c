#include "services/relay/relay_bench_kv.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/core/ts_session.h"
#include "common/run/ts_net.h"
#include "gpu/engine/random_model.h"
#include "proto/ts_wire.h"

#define HEARTBEAT_MS  500
#define TIMEOUT_MS    60000 /* the bench looks away while it measures something else */
#define START_LIMIT   (60 * TS_S)
#define TRANSFER_TIME (600 * TS_S)
#define CHUNK         512u
#define POOL_PEER     1
#define VOCAB         256u

enum bench_program { BENCH_RELAY, BENCH_DECODE, BENCH_PROGRAMS };

struct peer {
    uint64_t number;
    struct ts_session session;
};

/* What has been heard of the transfer under way. */
struct heard {
    bool reported, transferred, freed, finished;
    ts_time reported_at;
    uint64_t wire;
};

struct bench_kv {
    struct bench_kv_options options;
    char router[TS_ENDPOINT_BYTES], pool[TS_ENDPOINT_BYTES], model[TS_ENDPOINT_BYTES];
    pid_t pids[BENCH_PROGRAMS];
    struct ts_net *net;
    uint64_t incarnation, last_session, requests;
    struct peer decode, relay, prefill; /* the latter: our session at the relay's pool channel */
    struct ts_profile profile;          /* of decode, strings in `arena` */
    uint64_t decode_incarnation;
    bool mapped;
    struct ts_rid rid;
    struct heard heard;
    struct ts_error *err; /* of the call under way */
    struct ts_arena arena, in, out;
    int pool_fd;
    uint8_t *base;
    size_t bytes;
    uint32_t *blocks, *generations, *ids, block_count; /* of a sequence that has the whole pool */
};

/* --- messages --- */

static void tell(struct bench_kv *kv, enum ts_channel channel, struct peer *to, const struct ts_msg *msg)
{
    struct ts_envelope envelope;
    struct ts_bytes bytes;
    ts_arena_reset(&kv->out);
    ts_session_stamp(&to->session, ts_clock_now(), &envelope);
    if (ts_wire_pack(&envelope, msg, &kv->out, &bytes) != TS_OK ||
        ts_net_send(kv->net, channel, to->number, bytes.data, bytes.count, NULL) != TS_OK)
        ts_error_set(kv->err, TS_EIO, "cannot send %s", ts_msg_name(msg->kind));
}

static void welcome(struct bench_kv *kv, enum ts_channel channel, struct peer *peer,
                    const struct ts_net_message *from, const struct ts_envelope *envelope)
{
    struct ts_msg msg = {.kind = TS_MSG_WELCOME};
    peer->number = from->peer;
    ts_session_init(&peer->session, kv->incarnation, HEARTBEAT_MS * TS_MS, TIMEOUT_MS * TS_MS);
    ts_session_accept(&peer->session, ts_clock_now(), ts_session_number(&kv->last_session, 0),
                      envelope->incarnation);
    msg.welcome = (struct ts_msg_welcome){.id = ts_str_of("bench"),
                                          .session = peer->session.id,
                                          .heartbeat_ms = HEARTBEAT_MS,
                                          .timeout_ms = TIMEOUT_MS};
    tell(kv, channel, peer, &msg);
}

static void take_profile(struct bench_kv *kv, const struct ts_envelope *envelope, const struct ts_msg *msg)
{
    struct ts_msg copy = {.kind = TS_MSG_HELLO};
    ts_schema_copy(&ts_msg_schema, &copy, msg, &kv->arena);
    kv->profile = copy.hello.profile;
    kv->decode_incarnation = envelope->incarnation;
}

static void from_decode(struct bench_kv *kv, const struct ts_msg *msg)
{
    struct ts_msg reply = {.kind = TS_MSG_RESYNC_REPLY};
    switch (msg->kind) {
    case TS_MSG_RESYNC:
        tell(kv, TS_CHANNEL_WORKER, &kv->decode, &reply);
        break;
    case TS_MSG_REPORT:
        kv->heard.reported = true;
        kv->heard.reported_at = ts_clock_now();
        kv->heard.wire = msg->report.kv_bytes_sent;
        break;
    case TS_MSG_OUTPUT:
        kv->heard.finished = kv->heard.finished || msg->output.finish != TS_FINISH_NONE;
        break;
    case TS_MSG_ASSIGN_REFUSED:
        ts_error_set(kv->err, TS_EIO, "decode refuses: %s", ts_reason_name(msg->assign_refused.reason));
        break;
    case TS_MSG_ATTEMPT_FAILED:
        ts_error_set(kv->err, TS_EIO, "decode failed: %.*s", (int)msg->attempt_failed.text.count,
                     msg->attempt_failed.text.data);
        break;
    default:
        break;
    }
}

static void from_relay(struct bench_kv *kv, const struct ts_msg *msg)
{
    if (msg->kind != TS_MSG_TRANSFER)
        return;
    kv->heard.transferred = true;
    if (msg->transfer.reason != TS_REASON_NONE)
        ts_error_set(kv->err, TS_EIO, "the transfer failed: %s %.*s", ts_reason_name(msg->transfer.reason),
                     (int)msg->transfer.text.count, msg->transfer.text.data);
}

static void announce_pool(struct bench_kv *kv)
{
    const struct ts_profile *p = &kv->profile;
    struct ts_msg msg = {.kind = TS_MSG_POOL};
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), kv->pool_fd);
    msg.pool = (struct ts_msg_pool){.path = ts_str_of(path),
                                    .bytes = kv->bytes + kv->block_count * sizeof(uint32_t),
                                    .fingerprint = p->fingerprint,
                                    .layer_end = p->layers,
                                    .head_end = p->kv_heads,
                                    .kv_blocks = kv->block_count,
                                    .head_dim = p->head_dim,
                                    .kv_dtype = p->kv_dtype,
                                    .layers = p->layers,
                                    .kv_heads = p->kv_heads};
    tell(kv, TS_CHANNEL_POOL, &kv->prefill, &msg);
}

static void from_pool(struct bench_kv *kv, const struct ts_envelope *envelope, const struct ts_msg *msg)
{
    if (msg->kind == TS_MSG_WELCOME) {
        ts_session_welcomed(&kv->prefill.session, ts_clock_now(), envelope, msg->welcome.session, 0, 0);
        announce_pool(kv);
    } else if (msg->kind == TS_MSG_POOL_REPLY) {
        kv->mapped = msg->pool_reply.reason == TS_REASON_NONE;
        if (!kv->mapped)
            ts_error_set(kv->err, TS_EIO, "the relay refuses the pool: %.*s", (int)msg->pool_reply.text.count,
                         msg->pool_reply.text.data);
    } else if (msg->kind == TS_MSG_KV_FREED) {
        kv->heard.freed = true;
    }
}

static void deliver(struct bench_kv *kv, const struct ts_net_message *in)
{
    struct ts_envelope envelope;
    struct ts_msg msg;
    ts_arena_reset(&kv->in);
    if (ts_wire_unpack(in->data, in->bytes, in->channel, &kv->in, &envelope, &msg, NULL, kv->err) != TS_OK)
        return;
    if (msg.kind == TS_MSG_HELLO && in->channel == TS_CHANNEL_WORKER) {
        take_profile(kv, &envelope, &msg);
        welcome(kv, TS_CHANNEL_WORKER, &kv->decode, in, &envelope);
    } else if (msg.kind == TS_MSG_HELLO) {
        welcome(kv, TS_CHANNEL_RELAY, &kv->relay, in, &envelope);
    } else if (in->channel == TS_CHANNEL_WORKER) {
        from_decode(kv, &msg);
    } else if (in->channel == TS_CHANNEL_RELAY) {
        from_relay(kv, &msg);
    } else {
        from_pool(kv, &envelope, &msg);
    }
}

static void beat(struct bench_kv *kv, enum ts_channel channel, struct peer *peer)
{
    struct ts_msg msg = {.kind = TS_MSG_HEARTBEAT};
    if (ts_session_heartbeat_due(&peer->session, ts_clock_now()))
        tell(kv, channel, peer, &msg);
}

static bool children_live(struct bench_kv *kv)
{
    static const char *const names[] = {"ts-relay", "ts-decode"};
    for (int i = 0; i < BENCH_PROGRAMS; i++) {
        if (waitpid(kv->pids[i], NULL, WNOHANG) == kv->pids[i]) {
            kv->pids[i] = 0;
            ts_error_set(kv->err, TS_EIO, "%s ended; its own words are above", names[i]);
            return false;
        }
    }
    return true;
}

/* Takes what has come; waits for something at most until then. False once something failed. */
static bool pump(struct bench_kv *kv, ts_time until)
{
    struct ts_net_message m;
    ts_time now = ts_clock_now();
    bool any = false;
    beat(kv, TS_CHANNEL_WORKER, &kv->decode);
    beat(kv, TS_CHANNEL_RELAY, &kv->relay);
    beat(kv, TS_CHANNEL_POOL, &kv->prefill);
    while (ts_net_receive(kv->net, &m, NULL) == TS_OK) {
        deliver(kv, &m);
        ts_frame_unref(&m.frame);
        any = true;
    }
    if (!any && until > now) {
        ts_time wait = until - now < 100 * TS_MS ? until - now : 100 * TS_MS;
        ts_net_poll(kv->net, NULL, 0, (int)((wait + TS_MS - 1) / TS_MS));
        return children_live(kv);
    }
    return kv->err->status == TS_OK;
}

static bool pump_until(struct bench_kv *kv, ts_time until)
{
    while (ts_clock_now() < until) {
        if (!pump(kv, until))
            return false;
    }
    return true;
}

/* --- start --- */

static enum ts_status make_pool(struct bench_kv *kv, struct ts_error *err)
{
    const struct bench_kv_options *o = &kv->options;
    struct ts_rng rng;
    kv->block_count = ts_kv_blocks_for(o->tokens_max);
    kv->bytes = (size_t)bench_kv_raw_bytes(kv, kv->block_count * TS_KV_BLOCK_TOKENS);
    size_t file_bytes = kv->bytes + kv->block_count * sizeof(uint32_t);
    kv->pool_fd = memfd_create("ts-relay-bench", MFD_CLOEXEC);
    if (kv->pool_fd < 0 || ftruncate(kv->pool_fd, (off_t)file_bytes) != 0)
        return ts_error_set(err, TS_EIO, "no memory for a pool of %zu bytes: %s", file_bytes,
                            strerror(errno));
    void *base = mmap(NULL, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, kv->pool_fd, 0);
    if (base == MAP_FAILED)
        return ts_error_set(err, TS_EIO, "cannot map %zu bytes: %s", file_bytes, strerror(errno));
    kv->base = base;
    ts_rng_init(&rng, 1);
    for (size_t i = 0; i < kv->bytes / 8; i++) { /* bf16 of either sign below 2 */
        uint64_t word = ts_rng_u64(&rng) & 0xbfffbfffbfffbfff;
        memcpy(kv->base + 8 * i, &word, 8);
    }
    kv->blocks = ts_xcalloc(kv->block_count, sizeof *kv->blocks);
    kv->generations = ts_xcalloc(kv->block_count, sizeof *kv->generations);
    kv->ids = ts_xcalloc(o->tokens_max, sizeof *kv->ids);
    for (uint32_t i = 0; i < kv->block_count; i++)
        kv->blocks[i] = i;
    for (uint32_t i = 0; i < o->tokens_max; i++)
        kv->ids[i] = 1 + i % (VOCAB - 1);
    return TS_OK;
}

/* A window, so that the step which follows a transfer reads next to nothing of it. */
static enum ts_status make_model(struct bench_kv *kv, struct ts_error *err)
{
    const struct bench_kv_options *o = &kv->options;
    const struct ts_random_model model = {.type = "mistral",
                                          .hidden = 64,
                                          .intermediate = 64,
                                          .layers = o->layers,
                                          .heads = o->heads,
                                          .kv_heads = o->heads,
                                          .head_dim = o->head_dim,
                                          .vocab = VOCAB,
                                          .context = o->tokens_max + 64,
                                          .window = 16,
                                          .tied = true,
                                          .dtype = TS_DTYPE_BF16,
                                          .gain = 1,
                                          .seed = 1};
    if (mkdir(kv->model, 0700) != 0)
        return ts_error_set(err, TS_EIO, "cannot make the folder %s: %s", kv->model, strerror(errno));
    return ts_random_model_write(&model, kv->model, err);
}

static pid_t start(const char *netns, const char *const *flags)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char program[4200] = "";
    char *argv[32];
    size_t count = 0;
    ssize_t n = readlink("/proc/self/exe", program, 4096);
    char *slash = n > 0 ? strrchr(program, '/') : NULL;
    if (slash)
        snprintf(slash + 1, sizeof program - (size_t)(slash + 1 - program), "%s", flags[0]);
    for (argv[count++] = program; flags[count]; count++)
        argv[count] = ts_xstrdup(flags[count]);
    argv[count] = NULL;
    bench_enter(netns);
    execv(program, argv);
    fprintf(stderr, "ts-relay-bench: cannot start %s: %s\n", program, strerror(errno));
    _exit(127);
}

static void start_all(struct bench_kv *kv)
{
    const struct bench_kv_options *o = &kv->options;
    char threads[16], chunk[16], connections[16], blocks[16], credit[16], timeout[16],
        listen[TS_ENDPOINT_BYTES];
    snprintf(threads, sizeof threads, "%u", o->encode_threads);
    snprintf(chunk, sizeof chunk, "%u", o->chunk_tokens_max);
    snprintf(connections, sizeof connections, "%u", o->kv_connections);
    snprintf(blocks, sizeof blocks, "%u", 2 * kv->block_count + 16);
    snprintf(credit, sizeof credit, "%u", o->credit_kib);
    snprintf(timeout, sizeof timeout, "%d", TIMEOUT_MS);
    snprintf(listen, sizeof listen, "tcp://%s:*", o->link.address);
    const char *const relay[] = {"ts-relay",  "--id",
                                 "relay",     "--router",
                                 kv->router,  "--listen",
                                 kv->pool,    "--log-level",
                                 "warn",      "--timeout-ms",
                                 timeout,     "--encode-threads",
                                 threads,     "--chunk-tokens-max",
                                 chunk,       "--kv-connections",
                                 connections, NULL};
    const char *const decode[] = {
        "ts-decode", "--id",         "decode",    "--router",    kv->router,    "--model",      kv->model,
        "--device",  "cpu",          "--threads", "1",           "--kv-listen", listen,         "--kv-blocks",
        blocks,      "--credit-kib", credit,      "--log-level", "warn",        "--timeout-ms", timeout,
        NULL};
    kv->pids[BENCH_RELAY] = start(o->link.send_netns, relay);
    kv->pids[BENCH_DECODE] = start(o->link.receive_netns, decode);
}

static enum ts_status bind_router(struct bench_kv *kv, struct ts_error *err)
{
    char endpoint[TS_ENDPOINT_BYTES];
    kv->net = ts_net_new(1);
    const enum ts_channel channels[] = {TS_CHANNEL_WORKER, TS_CHANNEL_RELAY};
    for (size_t i = 0; i < 2; i++) {
        if (ts_endpoint_of(kv->router, channels[i], endpoint, err) != TS_OK ||
            ts_net_bind(kv->net, channels[i], endpoint, NULL, err) != TS_OK)
            return TS_EIO;
    }
    return ts_net_dial(kv->net, TS_CHANNEL_POOL, POOL_PEER, kv->pool, err);
}

static bool say_hello(struct bench_kv *kv)
{
    struct ts_msg msg = {.kind = TS_MSG_HELLO};
    msg.hello = (struct ts_msg_hello){.role = TS_ROLE_WORKER,
                                      .id = ts_str_of("prefill"),
                                      .host = ts_str_of("bench"),
                                      .version = ts_str_of("0.1.0"),
                                      .profile = kv->profile};
    kv->prefill.number = POOL_PEER;
    ts_session_init(&kv->prefill.session, kv->incarnation, HEARTBEAT_MS * TS_MS, TIMEOUT_MS * TS_MS);
    tell(kv, TS_CHANNEL_POOL, &kv->prefill, &msg);
    return kv->err->status == TS_OK;
}

static enum ts_status wait_ready(struct bench_kv *kv, struct ts_error *err)
{
    ts_time until = ts_clock_now() + START_LIMIT;
    while (err->status == TS_OK && ts_clock_now() < until && !(kv->decode.session.up && kv->relay.session.up))
        pump(kv, until);
    if (err->status == TS_OK && ts_clock_now() < until && say_hello(kv)) {
        while (err->status == TS_OK && ts_clock_now() < until && !kv->mapped)
            pump(kv, until);
    }
    if (err->status == TS_OK && !kv->mapped)
        ts_error_set(err, TS_ETIMEOUT, "relay and decode were not ready in time");
    return err->status;
}

enum ts_status bench_kv_open(const struct bench_kv_options *options, struct bench_kv **out,
                             struct ts_error *err)
{
    struct bench_kv *kv = ts_xcalloc(1, sizeof *kv);
    kv->options = *options;
    kv->err = err;
    kv->pool_fd = -1;
    kv->incarnation = ts_random_u64();
    ts_arena_init(&kv->arena);
    ts_arena_init(&kv->in);
    ts_arena_init(&kv->out);
    snprintf(kv->router, sizeof kv->router, "ipc://%s/router", options->dir);
    snprintf(kv->pool, sizeof kv->pool, "ipc://%s/pool", options->dir);
    snprintf(kv->model, sizeof kv->model, "%s/model", options->dir);
    *err = (struct ts_error){.status = TS_OK};
    if (make_pool(kv, err) == TS_OK && make_model(kv, err) == TS_OK) {
        start_all(kv); /* before ZeroMQ has threads here */
        if (bind_router(kv, err) == TS_OK)
            wait_ready(kv, err);
    }
    if (err->status != TS_OK) {
        enum ts_status status = err->status;
        bench_kv_close(&kv);
        return status;
    }
    *out = kv;
    return TS_OK;
}

static void remove_sockets(const struct bench_kv *kv)
{
    static const enum ts_channel channels[] = {TS_CHANNEL_WORKER, TS_CHANNEL_RELAY};
    char endpoint[TS_ENDPOINT_BYTES];
    for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++) {
        if (ts_endpoint_of(kv->router, channels[i], endpoint, NULL) == TS_OK)
            unlink(endpoint + strlen("ipc://"));
    }
    unlink(kv->pool + strlen("ipc://"));
}

void bench_kv_close(struct bench_kv **kv)
{
    struct bench_kv *k = *kv;
    if (!k)
        return;
    for (int i = 0; i < BENCH_PROGRAMS; i++) {
        if (k->pids[i] > 0) {
            kill(k->pids[i], SIGKILL);
            waitpid(k->pids[i], NULL, 0);
        }
    }
    ts_net_destroy(&k->net);
    if (k->base)
        munmap(k->base, k->bytes + k->block_count * sizeof(uint32_t));
    if (k->pool_fd >= 0)
        close(k->pool_fd);
    ts_random_model_remove(k->model);
    remove_sockets(k);
    ts_arena_fini(&k->arena);
    ts_arena_fini(&k->in);
    ts_arena_fini(&k->out);
    ts_free(k->blocks);
    ts_free(k->generations);
    ts_free(k->ids);
    ts_free(k);
    *kv = NULL;
}

struct ts_codec_view bench_kv_view(const struct bench_kv *kv)
{
    return (struct ts_codec_view){.pool = kv->base,
                                  .pool_blocks = kv->block_count,
                                  .pool_heads = kv->options.heads,
                                  .head_dim = kv->options.head_dim,
                                  .dtype = TS_DTYPE_BF16,
                                  .blocks = kv->blocks,
                                  .block_count = kv->block_count};
}

uint64_t bench_kv_raw_bytes(const struct bench_kv *kv, uint32_t tokens)
{
    const struct bench_kv_options *o = &kv->options;
    return (uint64_t)2 * o->layers * o->heads * o->head_dim * 2 * tokens;
}

/* --- a transfer --- */

static void assign(struct bench_kv *kv, const char *codec)
{
    struct ts_msg msg = {.kind = TS_MSG_ASSIGN};
    msg.assign = (struct ts_msg_assign){.rid = kv->rid,
                                        .role = TS_PHASE_DECODE,
                                        .prompt_kind = TS_PROMPT_TOKENS,
                                        .sampling = ts_sampling_defaults(),
                                        .codec = ts_str_of(codec),
                                        .fingerprint = kv->profile.fingerprint};
    msg.assign.sampling.max_tokens = 2; /* token 0 comes with KvCommit */
    msg.assign.sampling.ignore_eos = true;
    tell(kv, TS_CHANNEL_WORKER, &kv->decode, &msg);
}

static void begin(struct bench_kv *kv, const char *codec, uint32_t tokens)
{
    struct ts_msg msg = {.kind = TS_MSG_KV_BEGIN};
    uint32_t blocks = ts_kv_blocks_for(tokens);
    struct ts_codec described;
    if (ts_codec_parse(codec, &described, NULL) != TS_OK)
        return;
    msg.kv_begin = (struct ts_msg_kv_begin){.rid = kv->rid,
                                            .decode = ts_str_of("decode"),
                                            .endpoint = kv->profile.kv_endpoint,
                                            .decode_incarnation = kv->decode_incarnation,
                                            .codec = ts_codec_for_prompt(&described, tokens),
                                            .token_count = tokens,
                                            .blocks = {kv->blocks, blocks},
                                            .generations = {kv->generations, blocks}};
    tell(kv, TS_CHANNEL_POOL, &kv->prefill, &msg);
}

static void ready(struct bench_kv *kv, uint32_t layer, uint32_t layers, uint32_t token, uint32_t tokens)
{
    struct ts_msg msg = {.kind = TS_MSG_KV_READY};
    struct ts_ready_item item = {.rid = kv->rid, .token_begin = token, .token_count = tokens};
    msg.kv_ready = (struct ts_msg_kv_ready){
        .layer_begin = layer, .layer_end = layer + layers, .items = {.data = &item, .count = 1}};
    tell(kv, TS_CHANNEL_POOL, &kv->prefill, &msg);
}

static void seal(struct bench_kv *kv, uint32_t tokens)
{
    struct ts_msg msg = {.kind = TS_MSG_KV_SEAL};
    uint32_t token = 1;
    msg.kv_seal = (struct ts_msg_kv_seal){
        .rid = kv->rid, .prompt_ids = {kv->ids, tokens}, .produced = {&token, 1}, .first = {.token = token}};
    tell(kv, TS_CHANNEL_POOL, &kv->prefill, &msg);
}

/* As a prefill worker would, that takes so long from `began` on. */
static bool play_prefill(struct bench_kv *kv, uint32_t tokens, ts_time began, ts_time prefill, bool overlap)
{
    uint32_t layers = kv->options.layers, done = 0;
    if (!overlap) {
        if (!pump_until(kv, began + prefill))
            return false;
        ready(kv, 0, layers, 0, tokens);
        return true;
    }
    for (uint32_t token = 0; token < tokens; token += CHUNK) {
        uint32_t count = tokens - token < CHUNK ? tokens - token : CHUNK;
        for (uint32_t layer = 0; layer < layers; layer++) {
            double share = (token + count * (layer + 1.0) / layers) / tokens;
            if (!pump_until(kv, began + (ts_time)((double)prefill * share)))
                return false;
            ready(kv, layer, 1, token, count);
            done++;
        }
    }
    return done > 0;
}

static void release(struct bench_kv *kv)
{
    struct ts_msg msg = {.kind = TS_MSG_RELEASE, .release = {.rid = kv->rid, .reason = TS_REASON_FINISHED}};
    tell(kv, TS_CHANNEL_WORKER, &kv->decode, &msg);
    tell(kv, TS_CHANNEL_RELAY, &kv->relay, &msg);
}

enum ts_status bench_kv_transfer(struct bench_kv *kv, const char *codec, uint32_t tokens, ts_time prefill,
                                 bool overlap, struct bench_transfer *out, struct ts_error *err)
{
    const struct heard *h = &kv->heard;
    *err = (struct ts_error){.status = TS_OK};
    kv->err = err;
    kv->heard = (struct heard){.wire = 0};
    kv->rid = (struct ts_rid){.router = kv->incarnation, .request = ++kv->requests, .attempt = 1};
    pump(kv, 0);
    assign(kv, codec);
    ts_time began = ts_clock_now(), until = began + TRANSFER_TIME;
    begin(kv, codec, tokens);
    if (!play_prefill(kv, tokens, began, prefill, overlap))
        return err->status;
    ts_time sealed = ts_clock_now();
    seal(kv, tokens);
    while (err->status == TS_OK && ts_clock_now() < until &&
           !(h->reported && h->transferred && h->freed && h->finished))
        pump(kv, until);
    if (err->status == TS_OK && !(h->reported && h->transferred && h->freed && h->finished))
        ts_error_set(err, TS_ETIMEOUT, "a transfer of %u tokens took too long", tokens);
    if (err->status != TS_OK)
        return err->status;
    *out = (struct bench_transfer){.raw = bench_kv_raw_bytes(kv, tokens),
                                   .wire = h->wire,
                                   .run = h->reported_at - began,
                                   .visible = h->reported_at - sealed};
    release(kv);
    return err->status;
}
