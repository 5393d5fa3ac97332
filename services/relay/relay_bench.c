/*
 * ts-relay-bench: KV through a relay to a decode worker, against what the link and the parts can do. Each
 * measured transfer stands between two runs of its probe, and its ratio is against their mean, so that a
 * drifting host moves both; medians of ratios over rounds. CSV on stdout, remarks on stderr.
 *
 * - wire: bytes of messages to decode against a raw TCP stream.
 * - goodput: bytes of 16-bit KV against it.
 * - quantise and restore against memcpy, one thread each; ZeroMQ against TCP.
 * - end_to_end: KV against the least of quantise, restore and what ZeroMQ carries when compressed.
 * - visible: ms from the end of a modelled prefill until decode has verified its KV, against
 *   max(0, T - P) + T / layers + round trip.
 * - no_overlap: the same without overlap, against the link (T is that row's).
 *
 * The link is between two network namespaces, or loopback. What no relay and no worker is in is labelled by
 * codec "-".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "common/run/ts_conf.h"
#include "services/relay/relay_bench_kv.h"

#define ROUNDS_MAX 100u
#define PIECE      512u /* tokens of a chunk */
#define PINGS      20

struct bench {
    struct ts_conf *conf;
    const char *dir, *link, *send_netns, *receive_netns, *address;
    struct ts_conf_strings what, codecs;
    uint32_t tokens, rounds, layers, heads, head_dim, encode_threads, chunk_tokens_max, kv_connections,
        credit_kib;
    double prefill_tokens_per_s;
    char scratch[256];
    struct bench_stream *tcp, *zeromq;
    struct bench_kv *kv;
};

#define O(field, kind, fallback, lo, hi, text)                                                               \
    {                                                                                                        \
#field, kind, offsetof(struct bench, field), fallback, lo, hi, text                                  \
    }

static const struct ts_option options[] = {
    O(what, TS_OPTION_STRINGS, "link,parts,visible", 0, 0, "what is measured"),
    O(dir, TS_OPTION_STRING, "/tmp", 0, 0, "a folder of its own is made there, and removed"),
    O(link, TS_OPTION_STRING, "loopback", 0, 0, "what the link is called in the lines"),
    O(send_netns, TS_OPTION_STRING, "", 0, 0, "network namespace of the relay; empty = this one"),
    O(receive_netns, TS_OPTION_STRING, "", 0, 0, "of decode"),
    O(address, TS_OPTION_STRING, "127.0.0.1", 0, 0, "of decode"),
    O(codecs, TS_OPTION_STRINGS, "none,i4h", 0, 0, "KV codecs"),
    O(tokens, TS_OPTION_U32, "8192", 16, 1e6, "of the prompts of link and parts"),
    O(rounds, TS_OPTION_U32, "5", 1, ROUNDS_MAX, "measurements of each line"),
    O(layers, TS_OPTION_U32, "12", 1, 256, "of the model; by default the KV of one of 110 M parameters"),
    O(heads, TS_OPTION_U32, "12", 1, 256, "KV heads"),
    O(head_dim, TS_OPTION_U32, "64", 16, 256, "dimension of a head"),
    O(encode_threads, TS_OPTION_U32, "1", 1, 64, "of the relay"),
    O(chunk_tokens_max, TS_OPTION_U32, "512", 16, 65536, "of the relay"),
    O(kv_connections, TS_OPTION_U32, "4", 1, 16, "of the relay"),
    O(credit_kib, TS_OPTION_U32, "8192", 64, 1e6, "of the decode worker"),
    O(prefill_tokens_per_s, TS_OPTION_F64, "1400", 1, 1e9,
      "of the modelled prefill; by default that of 110 M parameters on two cores"),
};

static void die(const char *what, const struct ts_error *err)
{
    fprintf(stderr, "ts-relay-bench: %s: %s\n", what, err->text);
    exit(1);
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

/* One line's measurements: floor and reached of each round. */
struct line {
    double floor[ROUNDS_MAX], reached[ROUNDS_MAX], ratio[ROUNDS_MAX];
    size_t count;
};

static void add(struct line *l, double floor, double reached)
{
    l->floor[l->count] = floor;
    l->reached[l->count] = reached;
    l->ratio[l->count++] = reached / floor;
}

static void print(const struct bench *b, const char *what, const char *codec, uint32_t tokens,
                  const char *unit, struct line *l)
{
    printf("%s,%s,%s,%u,%s,%.2f,%.2f,%.3f\n", what, b->link, codec, tokens, unit, median(l->floor, l->count),
           median(l->reached, l->count), median(l->ratio, l->count));
    fflush(stdout);
    l->count = 0;
}

static double mb_per_s(uint64_t bytes, ts_time spent)
{
    return (double)bytes * 1e3 / (double)spent;
}

static double stream_rate(struct bench_stream *s, uint64_t bytes)
{
    ts_time spent = bench_stream_send(s, bytes);
    if (spent <= 0)
        die("raw stream", &(struct ts_error){.text = "one of its processes ended"});
    return mb_per_s(bytes, spent);
}

static struct bench_transfer transfer(struct bench *b, const char *codec, uint32_t tokens, ts_time prefill,
                                      bool overlap)
{
    struct bench_transfer t;
    struct ts_error err;
    if (bench_kv_transfer(b->kv, codec, tokens, prefill, overlap, &t, &err) != TS_OK)
        die(codec, &err);
    return t;
}

/* --- link --- */

/* On the wire for each number of the cache; `floor` is the codec's own, without messages and filling up. */
static void add_bits(struct line *l, const struct bench *b, const char *name, const struct bench_transfer *t)
{
    struct ts_codec codec;
    struct ts_error err;
    if (ts_codec_parse(name, &codec, &err) != TS_OK)
        die(name, &err);
    codec = ts_codec_for_prompt(&codec, b->tokens);
    add(l, ts_codec_bits(&codec, b->head_dim), 16 * (double)t->wire / (double)t->raw);
}

static void measure_link(struct bench *b)
{
    for (size_t c = 0; c < b->codecs.count; c++) {
        const char *codec = b->codecs.items[c];
        struct line wire = {.count = 0}, goodput = {.count = 0}, bits = {.count = 0};
        uint64_t bytes = transfer(b, codec, b->tokens, 0, false).wire; /* connects, and fills caches */
        for (uint32_t r = 0; r < b->rounds; r++) {
            double floor = stream_rate(b->tcp, bytes) / 2;
            struct bench_transfer t = transfer(b, codec, b->tokens, 0, false);
            floor += stream_rate(b->tcp, bytes) / 2;
            add(&wire, floor, mb_per_s(t.wire, t.run));
            add(&goodput, floor, mb_per_s(t.raw, t.run));
            add_bits(&bits, b, codec, &t);
        }
        print(b, "wire", codec, b->tokens, "MB/s", &wire);
        print(b, "goodput", codec, b->tokens, "MB/s", &goodput);
        print(b, "bits", codec, b->tokens, "bits", &bits);
    }
}

/* --- parts --- */

struct codec_rates {
    double copy, quantise, restore; /* MB/s of 16-bit KV */
    uint64_t encoded;               /* bytes */
};

/* All of the pool, piece by piece, each of the three in turn. */
static struct codec_rates codec_rates(struct bench *b, const char *name, uint8_t *copy)
{
    struct ts_codec_view from = bench_kv_view(b->kv), to = from;
    struct ts_codec codec;
    struct ts_error err;
    struct codec_rates rates = {.encoded = 0};
    ts_time spent[3] = {0};
    uint32_t escapes;
    size_t layer_bytes = bench_kv_raw_bytes(b->kv, b->tokens) / b->layers;
    size_t stride = bench_kv_raw_bytes(b->kv, from.pool_blocks * TS_KV_BLOCK_TOKENS) / b->layers;
    if (ts_codec_parse(name, &codec, &err) != TS_OK)
        die(name, &err);
    const struct ts_codec_cache cache = {from.head_dim, from.dtype};
    const struct ts_codec_chunk piece = {.head_count = b->heads, .token_count = PIECE};
    uint8_t *payload = ts_xaligned(64, ts_codec_bytes_max(&codec, cache, &piece));
    to.pool = copy;
    for (uint32_t layer = 0; layer < b->layers; layer++) {
        ts_time t = ts_clock_now();
        memcpy(copy + layer * stride, from.pool + layer * stride, layer_bytes);
        spent[0] += ts_clock_now() - t;
        for (uint32_t at = 0; at < b->tokens; at += PIECE) {
            struct ts_codec_chunk chunk = {.layer = layer,
                                           .head_count = b->heads,
                                           .token_begin = at,
                                           .token_count = b->tokens - at < PIECE ? b->tokens - at : PIECE};
            ts_time t0 = ts_clock_now();
            size_t bytes = ts_codec_encode(&codec, &from, &chunk, payload, &escapes);
            ts_time t1 = ts_clock_now();
            if (ts_codec_decode(&codec, payload, bytes, &chunk, &to) != TS_OK)
                die(name, &(struct ts_error){.text = "does not restore what it encoded"});
            spent[1] += t1 - t0;
            spent[2] += ts_clock_now() - t1;
            rates.encoded += bytes;
        }
    }
    ts_free(payload);
    uint64_t raw = bench_kv_raw_bytes(b->kv, b->tokens);
    rates.copy = mb_per_s(raw, spent[0]);
    rates.quantise = mb_per_s(raw, spent[1]);
    rates.restore = mb_per_s(raw, spent[2]);
    return rates;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

static void measure_parts(struct bench *b)
{
    uint64_t pool = bench_kv_raw_bytes(b->kv, bench_kv_view(b->kv).pool_blocks * TS_KV_BLOCK_TOKENS);
    uint8_t *copy = ts_xaligned(64, pool);
    struct line plain = {.count = 0};
    memset(copy, 1, pool);
    for (size_t c = 0; c < b->codecs.count; c++) {
        const char *codec = b->codecs.items[c];
        struct line quantise = {.count = 0}, restore = {.count = 0}, whole = {.count = 0};
        transfer(b, codec, b->tokens, 0, false);
        codec_rates(b, codec, copy);
        for (uint32_t r = 0; r < b->rounds; r++) {
            struct codec_rates rates = codec_rates(b, codec, copy);
            double tcp = stream_rate(b->tcp, rates.encoded),
                   zeromq = stream_rate(b->zeromq, rates.encoded) / 2;
            struct bench_transfer t = transfer(b, codec, b->tokens, 0, false);
            zeromq += stream_rate(b->zeromq, rates.encoded) / 2;
            double carried = zeromq * (double)t.raw / (double)rates.encoded;
            add(&quantise, rates.copy, rates.quantise);
            add(&restore, rates.copy, rates.restore);
            add(&whole, least(carried, least(rates.quantise, rates.restore)), mb_per_s(t.raw, t.run));
            if (c == 0)
                add(&plain, tcp, zeromq);
        }
        if (c == 0)
            print(b, "zeromq", "-", b->tokens, "MB/s", &plain);
        print(b, "quantise", codec, b->tokens, "MB/s", &quantise);
        print(b, "restore", codec, b->tokens, "MB/s", &restore);
        print(b, "end_to_end", codec, b->tokens, "MB/s", &whole);
    }
    ts_free(copy);
}

/* --- visible --- */

static double round_trip_ms(struct bench *b)
{
    double ms[PINGS];
    for (int i = 0; i < PINGS; i++)
        ms[i] = (double)bench_stream_send(b->tcp, 0) * 1e-6;
    return median(ms, PINGS);
}

static void measure_visible(struct bench *b)
{
    static const uint32_t prompts[] = {512, 2048, 8192};
    for (size_t c = 0; c < b->codecs.count; c++) {
        const char *codec = b->codecs.items[c];
        for (size_t p = 0; p < sizeof prompts / sizeof prompts[0]; p++) {
            struct line apart = {.count = 0}, overlapped = {.count = 0};
            ts_time prefill = (ts_time)(prompts[p] / b->prefill_tokens_per_s * 1e9);
            for (uint32_t r = 0; r < b->rounds; r++) {
                struct bench_transfer alone = transfer(b, codec, prompts[p], prefill, false);
                struct bench_transfer t = transfer(b, codec, prompts[p], prefill, true);
                double floor = (double)alone.wire / stream_rate(b->tcp, alone.wire) * 1e-3;
                double whole = (double)alone.visible * 1e-6, beyond = whole - (double)prefill * 1e-6;
                double bound = (beyond > 0 ? beyond : 0) + whole / b->layers + round_trip_ms(b);
                add(&apart, floor, whole);
                add(&overlapped, bound, (double)t.visible * 1e-6);
            }
            print(b, "no_overlap", codec, prompts[p], "ms", &apart);
            print(b, "visible", codec, prompts[p], "ms", &overlapped);
        }
    }
}

/* --- main --- */

static void open_all(struct bench *b)
{
    struct ts_error err;
    struct bench_kv_options o = {
        .link = {.send_netns = b->send_netns, .receive_netns = b->receive_netns, .address = b->address},
        .layers = b->layers,
        .heads = b->heads,
        .head_dim = b->head_dim,
        .tokens_max = b->tokens > 8192 ? b->tokens : 8192,
        .encode_threads = b->encode_threads,
        .chunk_tokens_max = b->chunk_tokens_max,
        .kv_connections = b->kv_connections,
        .credit_kib = b->credit_kib};
    snprintf(b->scratch, sizeof b->scratch, "%s/ts-relay-bench-XXXXXX", b->dir);
    o.dir = mkdtemp(b->scratch);
    if (!o.dir)
        die(b->dir, &(struct ts_error){.text = "cannot make a folder there"});
    if (bench_stream_open(BENCH_STREAM_TCP, &o.link, &b->tcp, &err) != TS_OK ||
        bench_stream_open(BENCH_STREAM_ZEROMQ, &o.link, &b->zeromq, &err) != TS_OK ||
        bench_kv_open(&o, &b->kv, &err) != TS_OK)
        die(b->link, &err);
}

static void close_all(struct bench *b)
{
    bench_kv_close(&b->kv);
    bench_stream_close(&b->zeromq);
    bench_stream_close(&b->tcp);
    rmdir(b->scratch);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*measure)(struct bench *b);
    } kinds[] = {{"link", measure_link}, {"parts", measure_parts}, {"visible", measure_visible}};
    struct bench b = {.conf = NULL};
    struct ts_error err = {0};
    enum ts_conf_outcome outcome = ts_conf_load("relay_bench", options, sizeof options / sizeof options[0],
                                                argc, argv, &b, NULL, &b.conf, &err);
    if (outcome == TS_CONF_ERROR)
        die("settings", &err);
    if (outcome == TS_CONF_RUN) {
        open_all(&b);
        printf("what,link,codec,tokens,unit,floor,reached,ratio\n");
        for (size_t i = 0; i < b.what.count; i++) {
            for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
                if (strcmp(b.what.items[i], kinds[k].name) == 0)
                    kinds[k].measure(&b);
            }
        }
        close_all(&b);
    }
    ts_conf_destroy(&b.conf);
    return 0;
}
