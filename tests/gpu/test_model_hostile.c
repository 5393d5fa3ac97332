/*
 * Weight files of unknown origin: each flaw is refused with one line that names file, thing and remedy. The
 * folder lies in memory; a tiny Llama of one layer.
 */
#include "tests/gpu/model_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/model/ts_hf.h"

static const char config[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 8, \"intermediate_size\": 6,"
    "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"num_key_value_heads\": 1,"
    "\"vocab_size\": 5, \"max_position_embeddings\": 32, \"torch_dtype\": \"bfloat16\"}";

#define LAYER "model.layers.0."

static const struct {
    const char *name;
    uint32_t rows, columns;
} tensors[] = {{"lm_head.weight", 5, 8},
               {"model.embed_tokens.weight", 5, 8},
               {LAYER "input_layernorm.weight", 8, 0},
               {LAYER "mlp.down_proj.weight", 8, 6},
               {LAYER "mlp.gate_proj.weight", 6, 8},
               {LAYER "mlp.up_proj.weight", 6, 8},
               {LAYER "post_attention_layernorm.weight", 8, 0},
               {LAYER "self_attn.k_proj.weight", 4, 8},
               {LAYER "self_attn.o_proj.weight", 8, 8},
               {LAYER "self_attn.q_proj.weight", 8, 8},
               {LAYER "self_attn.v_proj.weight", 4, 8},
               {"model.norm.weight", 8, 0}};

struct file {
    uint8_t bytes[8192];
    size_t count;
};

/* A safetensors file of header text and so many bytes of data. */
static void assemble(struct file *f, const char *header, size_t data_bytes)
{
    uint64_t length = strlen(header);
    assert_true(8 + length + data_bytes <= sizeof f->bytes);
    memcpy(f->bytes, &length, 8);
    memcpy(f->bytes + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++)
        f->bytes[8 + length + i] = (uint8_t)(i % 61);
    f->count = 8 + length + data_bytes;
}

/* The header of tensors first..last-1 in bf16; returns the bytes of data. */
static size_t header_of(char *text, size_t size, size_t first, size_t last)
{
    size_t at = 0, used = (size_t)snprintf(text, size, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = first; i < last; i++) {
        size_t bytes = (size_t)tensors[i].rows * (tensors[i].columns ? tensors[i].columns : 1) * 2;
        char shape[32];
        snprintf(shape, sizeof shape, tensors[i].columns ? "%u,%u" : "%u", tensors[i].rows,
                 tensors[i].columns);
        used += (size_t)snprintf(text + used, size - used,
                                 ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                                 tensors[i].name, shape, at, at + bytes);
        at += bytes;
    }
    snprintf(text + used, size - used, "}");
    return at;
}

static void sound_file(struct file *f)
{
    char header[4096];
    size_t data = header_of(header, sizeof header, 0, TS_ARRAY_SIZE(tensors));
    assemble(f, header, data);
}

/* Opens the folder of config and one file. */
static enum ts_status open_one(const struct file *f, struct ts_error *err)
{
    const struct ts_hf_file files[] = {{"config.json", config, sizeof config - 1},
                                       {"model.safetensors", f->bytes, f->count}};
    struct ts_hf *hf = NULL;
    *err = (struct ts_error){0};
    enum ts_status status = ts_hf_open_files("dir/tiny", files, 2, &hf, err);
    assert_true((status == TS_OK) == (hf != NULL));
    ts_hf_close(&hf);
    return status;
}

static void expect_words(const char *what, const struct ts_error *err, const char *const *words, size_t count)
{
    assert_null(strchr(err->text, '\n'));
    for (size_t i = 0; i < count && words[i]; i++) {
        if (!strstr(err->text, words[i]))
            fail_msg("%s: \"%s\" does not say %s", what, err->text, words[i]);
    }
}

static void sound_model_opens(void **state)
{
    (void)state;
    static struct file f;
    struct ts_error err;
    struct ts_hf *hf = NULL;
    const struct ts_hf_tensor *t;
    sound_file(&f);
    static const char generation[] = "{\"top_k\": 5}";
    const struct ts_hf_file files[] = {{"config.json", config, sizeof config - 1},
                                       {"model.safetensors", f.bytes, f.count},
                                       {"generation_config.json", generation, sizeof generation - 1}};
    if (ts_hf_open_files("dir/tiny", files, 2, &hf, &err) != TS_OK)
        fail_msg("%s", err.text);
    assert_string_equal(hf->model.name, "tiny");
    assert_false(hf->tied);
    assert_int_equal(ts_hf_tensor(hf, "model.embed_tokens.weight", 5, 8, &t, NULL), TS_OK);
    assert_int_equal(ts_hf_tensor_bytes(t), 80);
    assert_int_equal(t->data[0], 80 % 61); /* after lm_head */
    uint64_t print = hf->model.fingerprint;
    ts_hf_close(&hf);
    assert_int_equal(ts_hf_open_files("dir/tiny", files, 3, &hf, &err), TS_OK);
    assert_true(hf->model.fingerprint != print); /* two workers of one request must sample alike */
    ts_hf_close(&hf);
    f.bytes[f.count - 1] ^= 1; /* another norm: another model */
    assert_int_equal(ts_hf_open_files("dir/tiny", files, 2, &hf, &err), TS_OK);
    assert_true(hf->model.fingerprint != print);
    ts_hf_close(&hf);
}

static void missing_head_means_tied(void **state)
{
    (void)state;
    static struct file f;
    char header[4096];
    struct ts_hf *hf = NULL;
    size_t data = header_of(header, sizeof header, 1, TS_ARRAY_SIZE(tensors));
    assemble(&f, header, data);
    const struct ts_hf_file files[] = {{"config.json", config, sizeof config - 1},
                                       {"model.safetensors", f.bytes, f.count}};
    assert_int_equal(ts_hf_open_files("tiny", files, 2, &hf, NULL), TS_OK);
    assert_true(hf->tied);
    ts_hf_close(&hf);
}

/* Header with one piece of text replaced. */
static void flawed_headers(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        enum ts_status status;
        const char *words[4];
    } cases[] = {
        {"\"lm_head.weight\":{\"dtype\":\"BF16\"",
         "\"lm_head.weight\":{\"dtype\":\"F8_E4M3\"",
         TS_EUNSUPPORTED,
         {"dir/tiny/model.safetensors", "lm_head.weight", "F8_E4M3", "convert"}},
        {"\"dtype\":\"BF16\"", "\"dtype\":16", TS_EUNSUPPORTED, {"lm_head.weight", "16", "BF16"}},
        {"[5,8]", "[5,9]", TS_EINVAL, {"lm_head.weight", "80 bytes", "need 90"}},
        {"[5,8]", "[8,5]", TS_EINVAL, {"dir/tiny", "lm_head.weight", "[8, 5]", "[5, 8]"}},
        {"[5,8]", "[5,-8]", TS_EINVAL, {"lm_head.weight", "-8"}},
        {"[5,8]", "[5,2,4]", TS_EUNSUPPORTED, {"lm_head.weight", "[5,2,4]", "at most 2"}},
        {"[5,8]", "\"5,8\"", TS_EUNSUPPORTED, {"lm_head.weight", "5,8"}},
        {"[5,8]", "[4611686018427387904,8]", TS_EINVAL, {"lm_head.weight", "4611686018427387904"}},
        {"[5,8]", "[9007199254740993,1152921504606846976]", TS_EINVAL, {"lm_head.weight", "no size"}},
        {"[0,80]", "[0,81]", TS_EINVAL, {"lm_head.weight", "81 bytes", "80"}},
        {"[0,80]", "[80,0]", TS_EINVAL, {"lm_head.weight", "[80,0]", "span"}},
        {"[0,80]", "[-80,0]", TS_EINVAL, {"lm_head.weight", "[-80,0]", "span"}},
        {"[0,80]", "[0]", TS_EINVAL, {"lm_head.weight", "[0]", "span"}},
        {"[0,80]", "[80,160]", TS_EINVAL, {"bytes 0 to 80", "no tensor"}},
        {"[80,160]",
         "[0,80]",
         TS_EINVAL,
         {"lm_head.weight", "model.embed_tokens.weight", "overlap", "again"}},
        {"[0,80]",
         "[9223372036854775000,9223372036854775080]",
         TS_EINVAL,
         {"lm_head.weight", "truncated", "again"}},
        {LAYER "mlp.up_proj.weight",
         LAYER "mlp.xx_proj.weight",
         TS_ENOTFOUND,
         {"dir/tiny", LAYER "mlp.up_proj.weight", "config.json"}},
        {"lm_head.weight",
         LAYER "self_attn.q_norm.weight",
         TS_EUNSUPPORTED,
         {"dir/tiny", LAYER "self_attn.q_norm.weight", "config.json"}},
        {"lm_head.weight", "model.norm.weight", TS_EINVAL, {"model.safetensors", "its header"}},
        {"{\"__metadata__\"", "[\"__metadata__\"", TS_EINVAL, {"model.safetensors", "its header"}},
        {"\"data_offsets\":[0,80]", "\"data_offset\":[0,80]", TS_EINVAL, {"lm_head.weight", "span"}},
        {"\"lm_head.weight\":{",
         "\"lm_head.weight\":3,\"x\":{",
         TS_EUNSUPPORTED,
         {"lm_head.weight", "dtype"}},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        static struct file f;
        char header[4096], flawed[4200];
        struct ts_error err;
        size_t data = header_of(header, sizeof header, 0, TS_ARRAY_SIZE(tensors));
        char *at = strstr(header, cases[i].from);
        assert_non_null(at);
        snprintf(flawed, sizeof flawed, "%.*s%s%s", (int)(at - header), header, cases[i].to,
                 at + strlen(cases[i].from));
        assemble(&f, flawed, data);
        enum ts_status status = open_one(&f, &err);
        if (status != cases[i].status)
            fail_msg("%s: %s, expected %s: %s", cases[i].to, ts_status_name(status),
                     ts_status_name(cases[i].status), err.text);
        expect_words(cases[i].to, &err, cases[i].words, 4);
    }
}

static void lengths(void **state)
{
    (void)state;
    static struct file f, cut;
    struct ts_error err;
    sound_file(&f);
    for (size_t n = 0; n < f.count; n++) { /* truncated anywhere */
        memcpy(cut.bytes, f.bytes, n);
        cut.count = n;
        assert_int_equal(open_one(&cut, &err), TS_EINVAL);
        expect_words("cut", &err, (const char *const[]){"dir/tiny/model.safetensors", "truncated", "again"},
                     3);
    }
    cut = f;
    cut.count++;
    assert_int_equal(open_one(&cut, &err), TS_EINVAL);
    expect_words("long", &err, (const char *const[]){"model.safetensors", "1 bytes at the end"}, 2);
    static const uint64_t claims[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 1ull << 32, sizeof f.bytes};
    for (size_t i = 0; i < TS_ARRAY_SIZE(claims); i++) {
        cut = f;
        memcpy(cut.bytes, &claims[i], 8);
        assert_int_equal(open_one(&cut, &err), TS_EINVAL);
        expect_words("claim", &err, (const char *const[]){"header claims", "again"}, 2);
    }
}

/* Each byte of the header with each of its bits turned: refused or a model, and never a crash. */
static void flipped_bits(void **state)
{
    (void)state;
    static struct file f;
    struct ts_error err;
    sound_file(&f);
    uint64_t header_bytes;
    size_t opened = 0;
    memcpy(&header_bytes, f.bytes, 8);
    for (size_t i = 0; i < 8 + header_bytes; i++) {
        for (int bit = 0; bit < 8; bit++) {
            f.bytes[i] ^= (uint8_t)(1 << bit);
            opened += open_one(&f, &err) == TS_OK;
            f.bytes[i] ^= (uint8_t)(1 << bit);
        }
    }
    assert_true(opened < header_bytes); /* in dtypes of equal size and the metadata only */
}

struct shards {
    struct file a, b;
    char index[2048];
};

static enum ts_status open_shards(const struct shards *s, size_t files_given, struct ts_error *err)
{
    const struct ts_hf_file files[] = {{"config.json", config, sizeof config - 1},
                                       {"model.safetensors.index.json", s->index, strlen(s->index)},
                                       {"a.safetensors", s->a.bytes, s->a.count},
                                       {"b.safetensors", s->b.bytes, s->b.count}};
    struct ts_hf *hf = NULL;
    *err = (struct ts_error){0};
    enum ts_status status = ts_hf_open_files("dir/tiny", files, files_given, &hf, err);
    ts_hf_close(&hf);
    return status;
}

/* The first six tensors in a, the others in b; `moved` is said to be in b as well. */
static void sound_shards(struct shards *s, size_t moved)
{
    char header[4096];
    size_t data = header_of(header, sizeof header, 0, 6), used;
    assemble(&s->a, header, data);
    data = header_of(header, sizeof header, 6, TS_ARRAY_SIZE(tensors));
    assemble(&s->b, header, data);
    used = (size_t)snprintf(s->index, sizeof s->index, "{\"weight_map\": {");
    for (size_t i = 0; i < TS_ARRAY_SIZE(tensors); i++)
        used += (size_t)snprintf(s->index + used, sizeof s->index - used, "%s\"%s\": \"%c.safetensors\"",
                                 i ? ", " : "", tensors[i].name, i < 6 && i != moved ? 'a' : 'b');
    snprintf(s->index + used, sizeof s->index - used, "}}");
}

static void sharded_folders(void **state)
{
    (void)state;
    static struct shards s;
    struct ts_error err;
    sound_shards(&s, SIZE_MAX);
    if (open_shards(&s, 4, &err) != TS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(open_shards(&s, 3, &err), TS_ENOTFOUND);
    expect_words("a part is missing", &err, (const char *const[]){"dir/tiny/b.safetensors", "missing part"},
                 2);
    sound_shards(&s, 1);
    assert_int_equal(open_shards(&s, 4, &err), TS_EINVAL);
    expect_words("moved", &err,
                 (const char *const[]){"index.json", "model.embed_tokens.weight", "b.safetensors", "again"},
                 4);
    sound_shards(&s, SIZE_MAX);
    s.b = s.a;
    assert_int_equal(open_shards(&s, 4, &err), TS_EINVAL);
    expect_words("twice", &err, (const char *const[]){"dir/tiny", "a.safetensors", "b.safetensors", "both"},
                 4);
    static const char *const indices[][2] = {
        {"{}", "weight_map"},
        {"{\"weight_map\": {}}", "empty"},
        {"[]", "JSON object"},
        {"{\"weight_map\"", "index.json"},
        {"{\"weight_map\": {\"x\": 3}}", "puts x into"},
        {"{\"weight_map\": {\"x\": \"../a.safetensors\"}}", "../a.safetensors"},
        {"{\"weight_map\": {\"x\": \"config.json\"}}", "config.json"}};
    for (size_t i = 0; i < TS_ARRAY_SIZE(indices); i++) {
        snprintf(s.index, sizeof s.index, "%s", indices[i][0]);
        assert_int_equal(open_shards(&s, 4, &err), TS_EINVAL);
        expect_words(indices[i][0], &err, (const char *const[]){"index.json", indices[i][1]}, 2);
    }
}

/* A real folder: nothing there, a folder in the place of a file, an empty file. */
static void folders_of_the_system(void **state)
{
    (void)state;
    char dir[] = "/tmp/ts_hostile_XXXXXX", path[128];
    struct ts_hf *hf = NULL;
    struct ts_error err;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(ts_hf_open(dir, &hf, &err), TS_ENOTFOUND);
    expect_words("no config", &err, (const char *const[]){dir, "config.json", "Hugging Face"}, 3);
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(config, out);
    fclose(out);
    assert_int_equal(ts_hf_open(dir, &hf, &err), TS_ENOTFOUND);
    expect_words("no weights", &err, (const char *const[]){dir, "model.safetensors", "index.json"}, 3);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    out = fopen(path, "w");
    assert_non_null(out);
    fclose(out);
    assert_int_equal(ts_hf_open(dir, &hf, &err), TS_EINVAL);
    expect_words("empty", &err, (const char *const[]){path, "truncated"}, 2);
    assert_int_equal(ts_hf_open(path, &hf, &err), TS_EIO);
    expect_words("a file as folder", &err, (const char *const[]){path}, 1);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_model_opens),    cmocka_unit_test(missing_head_means_tied),
        cmocka_unit_test(flawed_headers),       cmocka_unit_test(lengths),
        cmocka_unit_test(flipped_bits),         cmocka_unit_test(sharded_folders),
        cmocka_unit_test(folders_of_the_system)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
