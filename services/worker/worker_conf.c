#include "services/worker/worker_conf.h"

#include "common/base/ts_assert.h"

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct worker_conf, field), fallback, lo, hi, text                            \
    }

static const struct ts_option options[] = {
    O(router, TS_OPTION_STRINGS, "tcp://127.0.0.1:5555", 0, 0, "client endpoints of the routers"),
    O(id, TS_OPTION_STRING, NULL, 0, TS_ID_BYTES_MAX, "name of this worker (default: prefill or decode)"),
    O(host, TS_OPTION_STRING, "localhost", 1, TS_ID_BYTES_MAX, "name of this machine"),
    O(model, TS_OPTION_STRING, NULL, 0, 0, "Hugging Face folder"),
    O(served_model_name, TS_OPTION_STRING, NULL, 0, TS_ID_BYTES_MAX,
      "name for clients (default: the folder's)"),
    O(device, TS_OPTION_CHOICE, "auto|cpu|cuda:N|modelled", 0, 0,
      "what computes; auto = cuda:0, or the CPU where there is none"),
    O(weights, TS_OPTION_CHOICE, "16|int8", 0, 0, "bits of weights on a CUDA device; int8 = rounded at load"),
    O(batch_invariant, TS_OPTION_BOOL, "false", 0, 0,
      "on a CUDA device: tokens do not depend on what else is in the batch, bit for bit; slower"),
    O(device_name, TS_OPTION_STRING, NULL, 0, TS_ID_BYTES_MAX,
      "name in the planner's catalogue of devices, conf/devices (default: what computes)"),
    O(modelled_conf, TS_OPTION_STRING, NULL, 0, 0, "coefficients of the modelled device (default: built in)"),
    O(relay, TS_OPTION_STRING, NULL, 0, TS_ID_BYTES_MAX, "id of the relay of this host; prefill needs one"),
    O(phases, TS_OPTION_CHOICE, "auto|prefill|decode|both", 0, 0,
      "what it can be told to serve; auto = both with a relay, else what it starts as"),
    O(pool, TS_OPTION_STRING, NULL, 0, 0, "where that relay listens for KV pools"),
    O(kv_listen, TS_OPTION_STRING, "tcp://127.0.0.1:*", 0, 0, "where relays bring KV"),
    O(kv_advertise, TS_OPTION_STRING, NULL, 0, 0, "the same as others reach it (default: as bound)"),
    O(kv_cache_mib, TS_OPTION_U32, "256", 0, 1e7,
      "size of the KV pool; 0 = on a CUDA device, what is free but for device_reserve_mib"),
    O(device_reserve_mib, TS_OPTION_U32, "1024", 1, 1e6, "left to others of the device, with kv_cache_mib 0"),
    O(kv_blocks, TS_OPTION_U32, "0", 0, 1e9, "the same in blocks of 16 tokens; 0 = from kv_cache_mib"),
    O(max_num_seqs, TS_OPTION_U32, "128", 1, 65536, "sequences in one step"),
    O(max_num_batched_tokens, TS_OPTION_U32, "512", 16, 1e6, "tokens in one step"),
    O(prefill_patience_us, TS_OPTION_U32, "1000", 0, 1e6,
      "a prompt may wait that long for shorter ones for each of its tokens; 0 = first come, first served"),
    O(max_model_len, TS_OPTION_U32, "0", 0, 1e7, "context in tokens, not beyond the model's; 0 = that"),
    O(requests_max, TS_OPTION_U32, "4096", 1, 1e6, "requests at this worker; more are refused as busy"),
    O(threads, TS_OPTION_U32, "0", 0, 1024, "of the engine; 0 = all cores"),
    O(heartbeat_ms, TS_OPTION_U32, "500", 10, 60000, "to peers that hear nothing else"),
    O(timeout_ms, TS_OPTION_U32, "3000", 50, 600000, "a peer silent for that long is lost"),
    O(router_lost_ms, TS_OPTION_U32, "30000", 100, 3.6e6,
      "requests of a router that is away for so long are dropped"),
    O(relay_wait_ms, TS_OPTION_U32, "10000", 10, 3.6e6,
      "a prefill worker that has not reached its relay by then gives up"),
    O(grant_wait_ms, TS_OPTION_U32, "60000", 100, 3.6e6,
      "a transfer that finds no memory for so long goes back"),
    O(resume_wait_ms, TS_OPTION_U32, "5000", 10, 600000,
      "a transfer whose sender's session was lost waits so long for the next one"),
    O(prefix_percent, TS_OPTION_U32, "100", 0, 100,
      "of the KV pool: memory that nobody wants keeps the KV of ended prompts, which is not sent again"),
    O(credit_kib, TS_OPTION_U32, "8192", 64, 1e6, "KiB of KV under way per transfer"),
    O(kv_codec, TS_OPTION_STRING, "auto", 0, 0,
      "4-bit codec of this model, for routers that choose; auto = measured when it is loaded"),
    O(profile, TS_OPTION_CHOICE, "auto|on|off", 0, 0,
      "measure the device for the planner when it starts; auto = a CUDA device without device_name"),
    O(profile_cache, TS_OPTION_STRING, NULL, 0, 0,
      "folder of what was measured (default: thunderserve in the user's cache); none = keep nothing"),
    O(record, TS_OPTION_STRING, NULL, 0, 0, "write every event and action to this file, for tsctl replay"),
    O(log_level, TS_OPTION_CHOICE, "info|error|warn|debug", 0, 0, "what is logged, and all above"),
};

/* Others dial what is advertised: a slip there would show as a relay that never gets through. */
static enum ts_status check_address(const char *key, const char *endpoint, struct ts_error *err)
{
    if (!*endpoint || ts_net_check(endpoint, err) == TS_OK)
        return TS_OK;
    ts_error_prefix(err, "%s", key);
    return TS_EINVAL;
}

static enum ts_status fill(struct worker_conf *c, uint32_t pid, struct ts_error *err)
{
    c->settings = worker_settings_defaults();
    c->settings.id = c->id;
    c->settings.host = c->host;
    c->settings.pid = pid;
    c->settings.router_count = c->router.count;
    c->settings.relay_endpoint = c->pool;
    c->settings.max_rows = c->max_num_seqs;
    c->settings.max_batch_tokens = c->max_num_batched_tokens;
    c->settings.requests_max = c->requests_max;
    c->settings.prefill_patience_us = c->prefill_patience_us;
    c->settings.heartbeat_ms = c->heartbeat_ms;
    c->settings.timeout_ms = c->timeout_ms;
    c->settings.router_lost_ms = c->router_lost_ms;
    c->settings.grant_wait_ms = c->grant_wait_ms;
    c->settings.resume_wait_ms = c->resume_wait_ms;
    c->settings.credit_bytes = (uint64_t)c->credit_kib << 10;
    if (ts_conf_check_clocks(c->heartbeat_ms, c->timeout_ms, err) != TS_OK)
        return TS_EINVAL;
    if (c->router.count > WORKER_ROUTERS_MAX)
        return ts_error_set(err, TS_EINVAL, "%zu routers: expected at most %d", c->router.count,
                            WORKER_ROUTERS_MAX);
    if (c->max_num_batched_tokens < c->max_num_seqs)
        return ts_error_set(err, TS_EINVAL,
                            "max_num_batched_tokens %u is less than max_num_seqs %u: raise it",
                            c->max_num_batched_tokens, c->max_num_seqs);
    for (size_t i = 0; i < c->router.count; i++) {
        if (ts_endpoint_of(c->router.items[i], TS_CHANNEL_WORKER, c->endpoints[i], err) != TS_OK ||
            ts_net_check(c->endpoints[i], err) != TS_OK)
            return TS_EINVAL;
        c->settings.routers[i] = c->endpoints[i];
    }
    if (check_address("pool", c->pool, err) != TS_OK ||
        check_address("kv_advertise", c->kv_advertise, err) != TS_OK)
        return TS_EINVAL;
    return TS_OK;
}

enum ts_conf_outcome worker_conf_load(const char *service, int argc, char **argv, uint32_t pid,
                                      struct worker_conf *out, struct ts_error *err)
{
    *out = (struct worker_conf){.conf = NULL};
    enum ts_conf_outcome outcome =
        ts_conf_load(service, options, TS_ARRAY_SIZE(options), argc, argv, out, NULL, &out->conf, err);
    if (outcome != TS_CONF_ERROR && (!out->id || !*out->id))
        out->id = service; /* one of each needs no names */
    if (outcome != TS_CONF_ERROR && fill(out, pid, err) != TS_OK) {
        ts_conf_destroy(&out->conf);
        return TS_CONF_ERROR;
    }
    if (outcome == TS_CONF_EXIT)
        ts_conf_well(out->conf);
    return outcome;
}

char *worker_conf_flags(const struct worker_conf *conf, size_t *bytes)
{
    return ts_conf_flags(options, TS_ARRAY_SIZE(options), conf, bytes);
}
