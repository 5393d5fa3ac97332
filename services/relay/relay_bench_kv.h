/*
 * KV through a real ts-relay to a real ts-decode, with no model behind it: the bench plays the router of both
 * and the prefill worker of the relay, whose pool is a memfd of random 16-bit numbers. The decode worker
 * loads a model with random weights that is all KV: hardly a layer width, but the layers and heads asked for.
 * The sockets of router and pool are unix sockets, so that only KV is on the link. One thread.
 */
#ifndef RELAY_BENCH_KV_H
#define RELAY_BENCH_KV_H

#include "gpu/codec/ts_codec.h"
#include "services/relay/relay_bench_stream.h"

struct bench_kv_options {
    const char *dir; /* scratch, exists; for model and sockets */
    struct bench_link link;
    uint32_t layers, heads, head_dim; /* KV heads */
    uint32_t tokens_max;
    uint32_t encode_threads, chunk_tokens_max, kv_connections; /* of the relay */
    uint32_t credit_kib;                                       /* of decode */
};

struct bench_kv;

struct bench_transfer {
    uint64_t raw, wire; /* bytes of 16-bit KV; of all messages to decode */
    ts_time run;        /* from KvBegin until the decode worker has verified it, as it reports */
    ts_time visible;    /* the same from KvSeal */
};

enum ts_status bench_kv_open(const struct bench_kv_options *options, struct bench_kv **out,
                             struct ts_error *err);
void bench_kv_close(struct bench_kv **kv); /* null-safe */
/* A prompt whose prefill takes `prefill` ns, in chunks of 512 tokens: with `overlap` each layer of a chunk is
 * ready when its share of the time has passed, without it all are at the end. */
enum ts_status bench_kv_transfer(struct bench_kv *kv, const char *codec, uint32_t tokens, ts_time prefill,
                                 bool overlap, struct bench_transfer *out, struct ts_error *err);
/* The pool that is sent, for measuring the codec alone. */
struct ts_codec_view bench_kv_view(const struct bench_kv *kv);
uint64_t bench_kv_raw_bytes(const struct bench_kv *kv, uint32_t tokens);

#endif
