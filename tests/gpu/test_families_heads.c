/*
 * Each family split by KV heads. A head shard computes its heads' keys, values and attention and adds its
 * part of the output projection; the all-reduce that tensor parallelism needs before the MLP is not the
 * engine's. So the check runs layer by layer on a copy of the folder whose MLP adds nothing: there the parts
 * of all shards sum to what the whole layer adds, and each shard's pool holds the heads of the whole pool.
 */
#include "tests/gpu/families_fixture.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"
#include "gpu/model/ts_hf.h"

#define TOLERANCE 1e-4 /* of sums in another order, for hidden states of order 1 to 10 */

/* Zeroes the tensors of the MLP's last product. */
static void silence_mlp(char *file, size_t bytes)
{
    uint64_t header_bytes;
    struct ts_json *header = NULL;
    void *cursor = NULL;
    const char *name;
    memcpy(&header_bytes, file, 8);
    assert_int_equal(ts_json_parse(file + 8, header_bytes, "header", &header, NULL), TS_OK);
    for (const struct ts_json *t; (t = ts_json_next(header, &cursor, &name, NULL));) {
        int64_t begin = 0, end = 0;
        if (!strstr(name, "mlp.down_proj"))
            continue;
        const struct ts_json *span = ts_json_get(t, "data_offsets");
        assert_true(ts_json_integer(ts_json_at(span, 0), &begin) &&
                    ts_json_integer(ts_json_at(span, 1), &end));
        assert_true(8 + header_bytes + (uint64_t)end <= bytes);
        memset(file + 8 + header_bytes + begin, 0, (size_t)(end - begin));
    }
    ts_json_destroy(&header);
}

/* Calls `act` with the path of each file of the family's folder relative to tests/data, and the copy's path.
 */
static void each_file(const char *family, const char *copy, void (*act)(const char *from, const char *to))
{
    char from[1024], to[1024], folder[1024];
    snprintf(folder, sizeof folder, "%s/models/%s", TS_TEST_DATA, family);
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(from, sizeof from, "models/%s/%s", family, entry->d_name);
        snprintf(to, sizeof to, "%s/%s", copy, entry->d_name);
        act(from, to);
    }
    closedir(dir);
}

static void copy_file(const char *from, const char *to)
{
    size_t bytes;
    char *data = model_file(from, &bytes);
    const char *dot = strrchr(from, '.');
    if (dot && strcmp(dot, ".safetensors") == 0)
        silence_mlp(data, bytes);
    FILE *out = fopen(to, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(data, 1, bytes, out), bytes);
    fclose(out);
    ts_free(data);
}

static void remove_file(const char *from, const char *to)
{
    (void)from;
    unlink(to);
}

/* One layer of a family: its input, and what the shards of it are compared with. */
struct layer_check {
    const struct family *family;
    const char *folder;
    uint32_t layer, layers, kv_heads;
    float *in, *out; /* hidden states before and after; `out` NULL for the last layer, which gives none */
    size_t elements;
};

/* Runs the heads of a shard; the caller closes the engine. */
static struct ts_engine *run_heads(const struct layer_check *c, uint32_t begin, uint32_t end, float *out)
{
    struct ts_shard shard = {c->layer, c->layer + 1, begin, end};
    struct ts_engine *engine = model_open(c->folder, shard, c->family->token_count, 1, 0);
    struct ts_engine_row row = family_row(c->family, 0, c->family->token_count);
    struct ts_engine_batch batch = {
        .rows = &row, .row_count = 1, .hidden_in = c->layer > 0 ? c->in : NULL, .hidden_out = out};
    model_run(engine, &batch);
    return engine;
}

static void compare_pools(const struct layer_check *c, const struct ts_engine *whole,
                          const struct ts_engine *part)
{
    const struct ts_shard *shard = &ts_engine_info(part)->shard;
    uint32_t d = ts_engine_info(whole)->model.head_dim;
    for (uint32_t i = 0; i < c->family->token_count * 2 * (shard->head_end - shard->head_begin); i++) {
        uint32_t t = i % c->family->token_count, kv = i / c->family->token_count % 2;
        uint32_t h = i / c->family->token_count / 2, at = t % TS_KV_BLOCK_TOKENS * d;
        const uint16_t *want = model_tile(whole, 0, t / TS_KV_BLOCK_TOKENS, kv, shard->head_begin + h) + at;
        const uint16_t *got = model_tile(part, 0, t / TS_KV_BLOCK_TOKENS, kv, h) + at;
        for (uint32_t j = 0; j < d; j++) { /* one unit of the last place */
            if (abs((int)got[j] - (int)want[j]) > 1)
                fail_msg("%s: layer %u head %u token %u differs", c->family->name, c->layer, h, t);
        }
    }
}

/* Compares the pools of the shards, cut between each two heads, and the sum of what they add. */
static void check_shards(const struct layer_check *c, const struct ts_engine *whole)
{
    float *sum = ts_xcalloc(c->elements, sizeof *sum), *part = ts_xcalloc(c->elements, sizeof *part);
    double added = 0;
    memcpy(sum, c->in, c->elements * sizeof *sum);
    for (uint32_t h = 0; h < c->kv_heads; h++) {
        struct ts_engine *engine = run_heads(c, h, h + 1, c->out ? part : NULL);
        compare_pools(c, whole, engine);
        for (size_t i = 0; c->out && i < c->elements; i++) {
            sum[i] += part[i] - c->in[i];
            added += fabs((double)part[i] - c->in[i]);
        }
        ts_engine_close(&engine);
    }
    assert_true(!c->out || added / (double)c->elements > 0.05); /* there is something to get wrong */
    for (size_t i = 0; c->out && i < c->elements; i++) {
        if (!(fabs((double)sum[i] - c->out[i]) <= TOLERANCE))
            fail_msg("%s: layer %u, element %zu: heads sum to %g, the whole gives %g", c->family->name,
                     c->layer, i, (double)sum[i], (double)c->out[i]);
    }
    ts_free(sum);
    ts_free(part);
}

/* What goes into layer 0. */
static void embed(const struct layer_check *c)
{
    struct ts_hf *hf = NULL;
    const struct ts_hf_tensor *table;
    assert_int_equal(ts_hf_open(c->folder, &hf, NULL), TS_OK);
    uint32_t hidden = hf->model.hidden;
    assert_int_equal(ts_hf_tensor(hf, "model.embed_tokens.weight", hf->model.vocab, hidden, &table, NULL),
                     TS_OK);
    for (size_t i = 0; i < c->elements; i++)
        c->in[i] = ts_hf_element(table, (size_t)c->family->tokens[i / hidden] * hidden + i % hidden);
    ts_hf_close(&hf);
}

static void check_layers(struct layer_check *c)
{
    float *out = ts_xcalloc(c->elements, sizeof *out);
    c->in = ts_xcalloc(c->elements, sizeof *c->in);
    embed(c);
    for (c->layer = 0; c->layer < c->layers; c->layer++) {
        c->out = c->layer + 1 < c->layers ? out : NULL;
        struct ts_engine *whole = run_heads(c, 0, c->kv_heads, c->out);
        check_shards(c, whole);
        ts_engine_close(&whole);
        memcpy(c->in, out, c->elements * sizeof *out);
    }
    ts_free(out);
    ts_free(c->in);
}

static void check_family(const struct family *f)
{
    char folder[] = "/tmp/ts_heads_XXXXXX";
    assert_non_null(mkdtemp(folder));
    each_file(f->name, folder, copy_file);
    struct ts_engine *probe = model_open(folder, (struct ts_shard){.layer_end = 1}, 16, 1, 0);
    struct ts_model m = ts_engine_info(probe)->model;
    ts_engine_close(&probe);
    assert_true(m.kv_heads >= 2);
    struct layer_check c = {.family = f,
                            .folder = folder,
                            .layers = m.layers,
                            .kv_heads = m.kv_heads,
                            .elements = (size_t)f->token_count * m.hidden};
    check_layers(&c);
    each_file(f->name, folder, remove_file);
    rmdir(folder);
}

static void split_by_heads(void **state)
{
    (void)state;
    families_each(check_family);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(split_by_heads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
