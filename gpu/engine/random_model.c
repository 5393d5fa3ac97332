#include "gpu/engine/random_model.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/cpu/cpu_level.h"

#define CHUNK         65536u
#define WIDE          2.0 /* of what attention adds, where it is sharp */
#define OUTLIER_SCALE 8.0 /* a power of two: the products of queries and keys stay what they are */

enum rows { ROWS_PLAIN, ROWS_QUERY, ROWS_KEY };

struct writer {
    const struct ts_random_model *model;
    struct ts_rng rng;
    enum rows rows; /* what the rows of the next tensor make */
    FILE *header, *file;
    uint64_t at;  /* bytes of tensors so far */
    bool listing; /* first pass: fills the header; second: writes the data */
    uint8_t chunk[CHUNK * 4];
};

/* A drawn element of the rows that make queries or keys; `bias`: of their bias. */
static double of_row(const struct writer *w, uint64_t row, bool bias, double drawn)
{
    const struct ts_random_model *m = w->model;
    uint32_t channel = (uint32_t)(row % m->head_dim), half = m->head_dim / 2;
    if (w->rows == ROWS_QUERY && m->sharpness > 0)
        drawn *= m->sharpness / (m->gain * m->gain);
    if (channel % half < m->outliers / 2)
        drawn *= w->rows == ROWS_KEY ? OUTLIER_SCALE : 1 / OUTLIER_SCALE;
    if (w->rows == ROWS_KEY && bias && channel < half && channel + 3 >= half)
        drawn += m->key_bias;
    if (w->rows == ROWS_KEY && bias && channel == m->head_dim - 1)
        drawn += 0.4 * m->key_bias;
    return drawn;
}

/* `columns` 0: each element is a row, of a bias. */
static void put_data(struct writer *w, uint64_t count, uint32_t columns, double mean, double deviation)
{
    double step = deviation * sqrt(12.0) / 65536.0;
    size_t size = ts_dtype_bytes(w->model->dtype);
    for (uint64_t done = 0; done < count;) {
        uint32_t n = count - done < CHUNK ? (uint32_t)(count - done) : CHUNK;
        uint64_t word = 0;
        for (uint32_t i = 0; i < n; i++, word >>= 16) {
            if (i % 4 == 0)
                word = ts_rng_u64(&w->rng);
            double drawn = mean + ((double)(word & 0xffff) - 32767.5) * step;
            if (w->rows != ROWS_PLAIN)
                drawn = of_row(w, columns ? (done + i) / columns : done + i, columns == 0, drawn);
            float value = (float)drawn;
            if (size == 4) {
                memcpy(w->chunk + (size_t)4 * i, &value, 4);
            } else {
                uint16_t half = cpu_to_16(value, w->model->dtype);
                memcpy(w->chunk + (size_t)2 * i, &half, 2);
            }
        }
        fwrite(w->chunk, size, n, w->file);
        done += n;
    }
}

/* columns 0: a vector. */
static void tensor(struct writer *w, const char *name, uint32_t rows, uint32_t columns, double mean,
                   double deviation)
{
    static const char *const names[] = {
        [TS_DTYPE_F32] = "F32", [TS_DTYPE_F16] = "F16", [TS_DTYPE_BF16] = "BF16"};
    uint64_t count = (uint64_t)rows * (columns ? columns : 1);
    uint64_t bytes = count * ts_dtype_bytes(w->model->dtype);
    if (!w->listing) {
        put_data(w, count, columns, mean, deviation);
        return;
    }
    fprintf(w->header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%u", w->at ? "," : "", name,
            names[w->model->dtype], rows);
    if (columns)
        fprintf(w->header, ",%u", columns);
    fprintf(w->header, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", w->at, w->at + bytes);
    w->at += bytes;
}

static void of_layer(struct writer *w, uint32_t layer, const char *suffix, uint32_t rows, uint32_t columns)
{
    char name[128];
    bool wide = w->model->sharpness > 0 && strstr(suffix, "o_proj");
    snprintf(name, sizeof name, "model.layers.%u.%s", layer, suffix);
    w->rows = strstr(suffix, "q_proj") ? ROWS_QUERY : strstr(suffix, "k_proj") ? ROWS_KEY : ROWS_PLAIN;
    if (columns)
        tensor(w, name, rows, columns, 0, w->model->gain / sqrt(columns) * (wide ? WIDE : 1));
    else if (strstr(suffix, "bias"))
        tensor(w, name, rows, 0, 0, 0.5);
    else
        tensor(w, name, rows, 0, 1, 0.1);
    w->rows = ROWS_PLAIN;
}

static void tensors(struct writer *w)
{
    const struct ts_random_model *m = w->model;
    uint32_t q = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    tensor(w, "model.embed_tokens.weight", m->vocab, m->hidden, 0, m->tied ? m->gain / sqrt(m->hidden) : 1);
    for (uint32_t i = 0; i < m->layers; i++) {
        of_layer(w, i, "self_attn.q_proj.weight", q, m->hidden);
        of_layer(w, i, "self_attn.k_proj.weight", kv, m->hidden);
        of_layer(w, i, "self_attn.v_proj.weight", kv, m->hidden);
        of_layer(w, i, "self_attn.o_proj.weight", m->hidden, q);
        if (strcmp(m->type, "qwen2") == 0) {
            of_layer(w, i, "self_attn.q_proj.bias", q, 0);
            of_layer(w, i, "self_attn.k_proj.bias", kv, 0);
            of_layer(w, i, "self_attn.v_proj.bias", kv, 0);
        }
        if (strcmp(m->type, "qwen3") == 0) {
            of_layer(w, i, "self_attn.q_norm.weight", m->head_dim, 0);
            of_layer(w, i, "self_attn.k_norm.weight", m->head_dim, 0);
        }
        of_layer(w, i, "mlp.gate_proj.weight", m->intermediate, m->hidden);
        of_layer(w, i, "mlp.up_proj.weight", m->intermediate, m->hidden);
        of_layer(w, i, "mlp.down_proj.weight", m->hidden, m->intermediate);
        of_layer(w, i, "input_layernorm.weight", m->hidden, 0);
        of_layer(w, i, "post_attention_layernorm.weight", m->hidden, 0);
    }
    tensor(w, "model.norm.weight", m->hidden, 0, 1, 0.1);
    if (!m->tied)
        tensor(w, "lm_head.weight", m->vocab, m->hidden, 0, m->gain / sqrt(m->hidden));
}

static void put_config(const struct ts_random_model *m, FILE *f)
{
    static const char *const names[] = {
        [TS_DTYPE_F32] = "float32", [TS_DTYPE_F16] = "float16", [TS_DTYPE_BF16] = "bfloat16"};
    fprintf(f,
            "{\"model_type\":\"%s\",\"hidden_act\":\"silu\",\"hidden_size\":%u,\"intermediate_size\":%u,"
            "\"num_hidden_layers\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"head_dim\":%u,"
            "\"max_position_embeddings\":%u,\"rms_norm_eps\":1e-05,\"rope_theta\":%.1f,"
            "\"tie_word_embeddings\":%s,\"vocab_size\":%u,\"torch_dtype\":\"%s\",\"eos_token_id\":0",
            m->type, m->hidden, m->intermediate, m->layers, m->heads, m->kv_heads, m->head_dim, m->context,
            m->rope_theta > 0 ? m->rope_theta : 10000.0, m->tied ? "true" : "false", m->vocab,
            names[m->dtype]);
    if (m->window)
        fprintf(f, ",\"sliding_window\":%u", m->window);
    fprintf(f, "}\n");
}

static void put_weights(struct writer *w)
{
    char *header = NULL;
    size_t length = 0;
    w->header = open_memstream(&header, &length);
    fputc('{', w->header);
    w->listing = true;
    tensors(w);
    fputc('}', w->header);
    while (ftell(w->header) % 64 != 56) /* the data begins aligned */
        fputc(' ', w->header);
    fclose(w->header);
    uint64_t size = length;
    fwrite(&size, sizeof size, 1, w->file);
    fwrite(header, 1, length, w->file);
    free(header);
    w->listing = false;
    tensors(w);
}

static FILE *open_in(const char *dir, const char *name, struct ts_error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f)
        ts_error_set(err, TS_EIO, "cannot write %s: %s", path, strerror(errno));
    return f;
}

static enum ts_status close_checked(FILE *f, const char *dir, struct ts_error *err)
{
    bool bad = ferror(f) != 0;
    bad = fclose(f) != 0 || bad;
    return bad ? ts_error_set(err, TS_EIO, "cannot write the model in %s: %s", dir, strerror(errno)) : TS_OK;
}

enum ts_status ts_random_model_write(const struct ts_random_model *model, const char *dir,
                                     struct ts_error *err)
{
    if (model->key_bias != 0 && strcmp(model->type, "qwen2") != 0)
        return ts_error_set(err, TS_EINVAL, "keys of a random %s have no bias: give type qwen2", model->type);
    FILE *config = open_in(dir, "config.json", err);
    if (!config)
        return TS_EIO;
    put_config(model, config);
    enum ts_status status = close_checked(config, dir, err);
    FILE *file = status == TS_OK ? open_in(dir, "model.safetensors", err) : NULL;
    if (!file)
        return TS_EIO;
    struct writer *w = ts_xcalloc(1, sizeof *w);
    w->model = model;
    w->file = file;
    ts_rng_init(&w->rng, model->seed);
    put_weights(w);
    ts_free(w);
    return close_checked(file, dir, err);
}

void ts_random_model_remove(const char *dir)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char path[4096];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}
