#include "services/worker/worker_program.h"

#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/run/ts_main.h"
#include "gpu/cuda/device/ts_cuda.h"
#include "gpu/quality/ts_measure.h"
#include "services/worker/worker_conf.h"
#include "services/worker/worker_run.h"

#define PROFILE_BUDGET (3 * TS_S) /* of measuring a device that has not been measured before */

static void step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    worker_core_step(core, now, event, out);
}

static ts_time deadline(const void *core)
{
    return worker_core_deadline(core);
}

/* At its start a prefill worker waits for its relay, but not for ever: nothing it could do would arrive. */
struct relay_watch {
    struct ts_service_hooks inner;
    const struct worker_core *core;
    int timer_fd;
    bool missing;
};

static void watch_perform(void *context, struct ts_service *service, const struct ts_action *action)
{
    struct relay_watch *w = context;
    w->inner.perform(w->inner.context, service, action);
}

static void watch_readable(void *context, struct ts_service *service)
{
    struct relay_watch *w = context;
    uint64_t expired;
    if (read(w->timer_fd, &expired, sizeof expired) == (ssize_t)sizeof expired &&
        !worker_core_relay_usable(w->core)) {
        w->missing = true;
        ts_service_end(service);
    }
    w->inner.readable(w->inner.context, service);
}

static struct ts_service_hooks watch_hooks(struct relay_watch *w, uint32_t wait_ms)
{
    struct itimerspec at = {.it_value = {wait_ms / 1000, (long)(wait_ms % 1000) * 1000000}};
    struct ts_service_hooks hooks = w->inner;
    w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(w->timer_fd, 0, &at, NULL);
    TS_ASSERT(hooks.fd_count < TS_SERVICE_FDS_MAX);
    hooks.context = w;
    hooks.perform = watch_perform;
    hooks.readable = watch_readable;
    hooks.fds[hooks.fd_count++] = w->timer_fd;
    return hooks;
}

struct program {
    const char *service;
    enum ts_phase phase;
    struct worker_conf conf;
    struct worker_run *run;
    struct ts_net *net;
    struct ts_calibration calibration;
    struct ts_measured measured;
    bool is_measured;
    char kv_endpoint[TS_ENDPOINT_BYTES], pool_path[64];
    uint32_t rope[TS_CODEC_DIM_MAX / 2]; /* fp32 bits, as the relay hears them */
    struct ts_pool_share share;          /* of the pool, on a device */
};

/* What it can be told to serve. Where KV comes from another worker it has an endpoint in any case. */
static uint32_t willing(const struct program *p)
{
    const struct worker_conf *c = &p->conf;
    switch (c->phases[0]) {
    case 'p':
        return TS_PHASE_PREFILL;
    case 'd':
        return TS_PHASE_DECODE;
    case 'b':
        return TS_PHASE_BOTH;
    default:
        return *c->relay && *c->pool ? TS_PHASE_BOTH : p->phase;
    }
}

static enum ts_status check(const struct program *p, struct ts_error *err)
{
    const struct worker_conf *c = &p->conf;
    if (!*c->model && strcmp(c->device, "modelled") != 0)
        return ts_error_set(err, TS_EINVAL, "no model: give --model DIR, a Hugging Face folder");
    if (p->phase == TS_PHASE_PREFILL && (!*c->relay || !*c->pool))
        return ts_error_set(
            err, TS_EINVAL,
            "no relay: prefill hands its KV to the relay of its host, give --relay ID and --pool ENDPOINT");
    if ((willing(p) & p->phase) != p->phase)
        return ts_error_set(err, TS_EINVAL, "phases = %s: ts-%s starts as %s, so give auto, %s or both",
                            c->phases, p->service, p->service, p->service);
    return TS_OK;
}

static enum ts_status open_engine(struct program *p, struct ts_error *err)
{
    const struct worker_conf *c = &p->conf;
    struct ts_engine_options options = {.model_dir = c->model,
                                        .device = c->device,
                                        .modelled_conf = c->modelled_conf,
                                        .kv_blocks = c->kv_blocks,
                                        .kv_bytes = (uint64_t)c->kv_cache_mib << 20,
                                        .threads = c->threads,
                                        .max_batch_tokens = c->max_num_batched_tokens,
                                        .max_batch_rows = c->max_num_seqs,
                                        .weights = c->weights,
                                        .batch_invariant = c->batch_invariant,
                                        .reserve_bytes = (uint64_t)c->device_reserve_mib << 20};
    enum ts_status status = worker_run_open(&options, &p->run, err);
    uint32_t context = status == TS_OK ? worker_run_info(p->run)->model.context_tokens : 0;
    if (status == TS_OK && c->max_model_len > context)
        return ts_error_set(err, TS_EINVAL, "max_model_len = %u: the model's context is %u tokens",
                            c->max_model_len, context);
    return status;
}

/* Which codec the model's keys bear: as told, or as measured by who may compute prompts. */
static enum ts_status calibrate(struct program *p, struct ts_error *err)
{
    const struct worker_conf *c = &p->conf;
    struct ts_calibration *out = &p->calibration;
    struct ts_codec codec;
    if (strcmp(c->kv_codec, "auto") != 0) {
        *out = (struct ts_calibration){.codec = c->kv_codec, .why = "kv_codec of the worker"};
        return ts_codec_parse(c->kv_codec, &codec, err);
    }
    *out = (struct ts_calibration){.codec = ""};
    if (!(willing(p) & TS_PHASE_PREFILL))
        return TS_OK;
    enum ts_status status =
        ts_calibrate(worker_run_engine(p->run),
                     (struct ts_calibrate_room){c->max_num_batched_tokens, c->max_num_seqs}, out, err);
    if (status == TS_OK && out->tokens > 0)
        ts_log(TS_LOG_INFO, "event=calibrated codec=%s why=\"%s\" batches=%u ms=%lld", out->codec, out->why,
               out->batches, (long long)(out->ns / TS_MS));
    return status;
}

/* What nobody has named for the planner, or what one is told to measure. */
static bool wants_profile(const struct program *p)
{
    const struct worker_conf *c = &p->conf;
    const struct ts_engine_info *info = worker_run_info(p->run);
    if (strcmp(c->profile, "auto") != 0)
        return strcmp(c->profile, "on") == 0;
    return info->device && !ts_cuda_properties(info->device)->emulated &&
           !(c->device_name && *c->device_name);
}

/* The planner does without, as before: an engine that cannot be measured is no fault. */
static void measure(struct program *p)
{
    const struct worker_conf *c = &p->conf;
    struct ts_measure_room room = {{c->max_num_batched_tokens, c->max_num_seqs}, PROFILE_BUDGET};
    struct ts_measured *m = &p->measured;
    struct ts_error err = {.status = TS_OK};
    char settings[128];
    const char *folder = c->profile_cache && *c->profile_cache ? c->profile_cache : NULL;
    enum ts_measure_from from;
    ts_time begin = ts_clock_now();
    if (!wants_profile(p))
        return;
    snprintf(settings, sizeof settings, "%s %d %u %u %u", c->weights, (int)c->batch_invariant, c->threads,
             c->max_num_seqs, c->max_num_batched_tokens);
    if (folder && strcmp(folder, "none") == 0)
        folder = "";
    enum ts_status status =
        ts_measure_cached(worker_run_engine(p->run), room, folder, settings, m, &from, &err);
    p->is_measured = status == TS_OK;
    if (status != TS_OK)
        ts_log(TS_LOG_WARN, "event=not_measured text=\"%s\"", err.text);
    else
        ts_log(TS_LOG_INFO,
               "event=measured cached=%d product_tflops=%.3g weight_gb_per_s=%.4g context_gb_per_s=%.4g "
               "upload_gb_per_s=%.3g download_gb_per_s=%.3g error=%.2f ms=%lld",
               from == TS_MEASURE_CACHE, m->product_flops / 1e12, m->weight_bytes_per_s / 1e9,
               m->context_bytes_per_s / 1e9, m->upload_bytes_per_s / 1e9, m->download_bytes_per_s / 1e9,
               m->error, (long long)((ts_clock_now() - begin) / TS_MS));
    if (status == TS_OK && from == TS_MEASURE_LOST)
        ts_log(TS_LOG_WARN,
               "event=measured_not_kept folder=\"%s\" text=\"no file can be written: each start measures "
               "again; give --profile-cache another folder, or none\"",
               folder ? folder : "~/.cache/thunderserve");
}

/* A pool that nobody else can map is encoded here. */
static void share(struct program *p)
{
    struct ts_error err = {.status = TS_OK};
    if (ts_pool_share(worker_run_pool(p->run), &p->share, &err) != TS_OK)
        ts_log(TS_LOG_WARN, "event=pool_not_shared text=\"%s\"", err.text);
}

static void describe(struct program *p)
{
    struct worker_conf *c = &p->conf;
    const struct ts_engine_info *info = worker_run_info(p->run);
    const struct ts_model *m = &info->model;
    uint32_t context = c->max_model_len ? c->max_model_len : m->context_tokens;
    snprintf(p->pool_path, sizeof p->pool_path, "/proc/%d/fd/%d", getpid(), info->pool_fd);
    c->settings.profile = (struct ts_profile){
        .phases = willing(p),
        .phase = p->phase,
        .model = ts_str_of(*c->served_model_name ? c->served_model_name : m->name),
        .device = ts_str_of(c->device_name && *c->device_name ? c->device_name : info->kind),
        .fingerprint = m->fingerprint,
        .layers = m->layers,
        .hidden = m->hidden,
        .intermediate = m->intermediate,
        .heads = m->heads,
        .kv_heads = m->kv_heads,
        .head_dim = m->head_dim,
        .vocab = m->vocab,
        .context_tokens = context,
        .kv_dtype = m->kv_dtype,
        .layer_begin = info->shard.layer_begin,
        .layer_end = info->shard.layer_end,
        .head_begin = info->shard.head_begin,
        .head_end = info->shard.head_end,
        .kv_blocks = info->kv_blocks,
        .max_rows = c->max_num_seqs,
        .max_batch_tokens = c->max_num_batched_tokens,
        .tokenizer = worker_run_has_tokenizer(p->run),
        .modelled = info->modelled,
        .kv_endpoint = ts_str_of(*c->kv_advertise ? c->kv_advertise : p->kv_endpoint),
        .relay = ts_str_of(c->relay),
        .defaults = info->defaults,
        .kv_codec = ts_str_of(p->calibration.codec),
        .kv_codec_why = ts_str_of(p->calibration.why),
        .measured = {&p->measured, p->is_measured}};
    uint32_t turns = info->inverse_frequencies ? m->head_dim / 2 : 0;
    for (uint32_t i = 0; i < turns; i++)
        memcpy(&p->rope[i], &info->inverse_frequencies[i], sizeof p->rope[i]);
    c->settings.pool =
        (struct ts_msg_pool){.path = ts_str_of(info->modelled ? "" : p->pool_path),
                             .bytes = info->modelled ? info->pool_bytes : info->file_bytes,
                             .fingerprint = m->fingerprint,
                             .layer_begin = info->shard.layer_begin,
                             .layer_end = info->shard.layer_end,
                             .head_begin = info->shard.head_begin,
                             .head_end = info->shard.head_end,
                             .kv_blocks = info->kv_blocks,
                             .head_dim = m->head_dim,
                             .kv_dtype = m->kv_dtype,
                             .layers = m->layers,
                             .kv_heads = m->kv_heads,
                             .rope = {p->rope, turns},
                             .device = ts_str_of(p->share.device),
                             .share = {p->share.bytes, p->share.shared ? sizeof p->share.bytes : 0},
                             .device_offset = p->share.offset,
                             .encodes = true};
    c->settings.prefix_blocks_max = (uint32_t)((uint64_t)info->kv_blocks * c->prefix_percent / 100);
}

static void *pack_settings(const struct program *p, size_t *bytes)
{
    size_t flag_bytes;
    char *flags = worker_conf_flags(&p->conf, &flag_bytes);
    struct ts_msg hello = {.kind = TS_MSG_HELLO,
                           .hello = {.role = TS_ROLE_WORKER, .profile = p->conf.settings.profile}};
    struct ts_msg pool = {.kind = TS_MSG_POOL, .pool = p->conf.settings.pool};
    void *packed = ts_main_pack(p->conf.settings.pid, flags, flag_bytes, &hello, &pool, bytes);
    ts_free(flags);
    return packed;
}

static enum ts_status serve(struct program *p, int *code, struct ts_error *err)
{
    uint64_t incarnation = ts_random_u64();
    struct worker_core *core = worker_core_new(&p->conf.settings, incarnation);
    struct ts_service_core driven = {core, step, deadline};
    struct relay_watch watch = {.inner = worker_run_hooks(p->run), .core = core, .timer_fd = -1};
    struct ts_service_hooks hooks =
        p->phase == TS_PHASE_PREFILL ? watch_hooks(&watch, p->conf.relay_wait_ms) : watch.inner;
    struct ts_service *service = NULL;
    size_t bytes;
    void *packed = pack_settings(p, &bytes);
    struct ts_service_options options = {.name = p->conf.id,
                                         .record = p->conf.record,
                                         .record_kind = p->service,
                                         .record_settings = packed,
                                         .record_settings_bytes = bytes,
                                         .incarnation = incarnation};
    enum ts_status status = ts_service_new(&options, p->net, &driven, &hooks, &service, err);
    if (status == TS_OK) {
        if (worker_run_info(p->run)->why_cpu)
            ts_log(TS_LOG_INFO, "event=on_cpu why=\"%s\"", worker_run_info(p->run)->why_cpu);
        ts_log(TS_LOG_INFO, "event=ready id=%s device=\"%s\" kv_blocks=%u kv_endpoint=%s", p->conf.id,
               worker_run_info(p->run)->kind, worker_run_info(p->run)->kv_blocks, p->kv_endpoint);
        *code = ts_service_run(service);
        if (watch.missing)
            status =
                ts_error_set(err, TS_ETIMEOUT,
                             "no relay took the KV pool at %s within %u ms: start ts-relay --listen %s, or "
                             "correct --pool",
                             p->conf.pool, p->conf.relay_wait_ms, p->conf.pool);
    }
    if (status == TS_OK && worker_run_fault(p->run))
        status = ts_error_set(err, TS_EIO, "the device was lost: %s", worker_run_fault(p->run));
    if (watch.timer_fd >= 0)
        close(watch.timer_fd);
    worker_run_close(&p->run); /* before the core: a running batch reads its memory */
    ts_service_destroy(&service);
    worker_core_destroy(&core);
    ts_free(packed);
    return status;
}

static enum ts_status run(struct program *p, int *code, struct ts_error *err)
{
    enum ts_status status = ts_main_log(p->service, p->conf.log_level, err);
    if (status == TS_OK)
        status = check(p, err);
    if (status == TS_OK)
        status = open_engine(p, err);
    if (status == TS_OK)
        status = calibrate(p, err);
    if (status == TS_OK) {
        measure(p);
        p->net = ts_net_new(1);
        status = ts_net_bind(p->net, TS_CHANNEL_KV, p->conf.kv_listen, p->kv_endpoint, err);
    }
    if (status == TS_OK) {
        share(p);
        describe(p);
        status = serve(p, code, err);
    }
    worker_run_close(&p->run);
    ts_net_destroy(&p->net);
    return status;
}

int worker_program(const char *service, enum ts_phase phase, int argc, char **argv)
{
    struct program p = {.service = service, .phase = phase};
    struct ts_error err = {0};
    int code = 0;
    switch (worker_conf_load(service, argc, argv, (uint32_t)getpid(), &p.conf, &err)) {
    case TS_CONF_EXIT:
        ts_conf_destroy(&p.conf.conf);
        return 0;
    case TS_CONF_ERROR:
        return ts_main_fail(service, 2, &err);
    case TS_CONF_RUN:
        break;
    }
    ts_service_prepare();
    if (run(&p, &code, &err) != TS_OK)
        code = ts_main_fail(service, 1, &err);
    ts_conf_destroy(&p.conf.conf);
    return code;
}
