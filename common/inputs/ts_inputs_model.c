#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs.h"
#include "common/inputs/ts_inputs_files.h"
#include "common/inputs/ts_inputs_hf.h"
#include "common/run/ts_conf_text.h"
#include "common/run/ts_conf_tree.h"

struct model_row {
    struct ts_model model;
    char dtype[16];
    struct ts_conf_node aliases;
};

#define SIZE(key, member, most, is_needed)                                                                   \
    {                                                                                                        \
        .name = key, TS_FIELD_U32, offsetof(struct model_row, model.member), .min = 1, .max = most,          \
        .needed = is_needed                                                                                  \
    }

static const struct ts_field fields[] = {
    {.name = "name",
     TS_FIELD_TEXT,
     offsetof(struct model_row, model.name),
     .size = TS_MODEL_NAME_BYTES,
     .needed = true},
    {.name = "aliases", TS_FIELD_TEXTS, offsetof(struct model_row, aliases)},
    SIZE("layers", layers, TS_MODEL_LAYERS_MAX, true),
    SIZE("hidden", hidden, 1 << 20, true),
    SIZE("intermediate", intermediate, 1 << 22, true),
    SIZE("heads", heads, 4096, true),
    SIZE("kv_heads", kv_heads, 4096, false),
    SIZE("head_dim", head_dim, 1024, false),
    SIZE("vocab", vocab, 1 << 22, true),
    SIZE("context_tokens", context_tokens, 1 << 24, true),
    {.name = "sliding_window",
     TS_FIELD_U32,
     offsetof(struct model_row, model.sliding_window),
     .min = 0,
     .max = 1 << 24},
    {.name = "mlp_plain", TS_FIELD_BOOL, offsetof(struct model_row, model.mlp_plain)},
    {.name = "tied", TS_FIELD_BOOL, offsetof(struct model_row, model.tied)},
    {.name = "dtype", TS_FIELD_TEXT, offsetof(struct model_row, dtype), .size = 16},
};

/* What the file leaves out, and what no single key can say. */
static enum ts_status complete(struct ts_conf_node root, struct model_row *row, struct ts_error *err)
{
    struct ts_model *m = &row->model;
    if (m->kv_heads == 0)
        m->kv_heads = m->heads;
    if (m->head_dim == 0) {
        if (m->hidden % m->heads != 0)
            return ts_conf_node_error(root, "hidden", err, "not a multiple of heads = %u; give head_dim too",
                                      m->heads);
        m->head_dim = m->hidden / m->heads;
    }
    if (m->kv_heads > m->heads || m->heads % m->kv_heads != 0)
        return ts_conf_node_error(root, "kv_heads", err, "expected a divisor of heads = %u", m->heads);
    m->weight_dtype = TS_DTYPE_BF16;
    if (*row->dtype && !inputs_dtype(row->dtype, &m->weight_dtype))
        return ts_conf_node_error(root, "dtype", err, "expected float32, float16 or bfloat16");
    m->kv_dtype = inputs_kv_dtype(m->weight_dtype);
    return TS_OK;
}

/* A file of conf/models; `tree` stays for the aliases. */
static enum ts_status read_model(const char *path, struct ts_conf_tree **tree, struct model_row *row,
                                 struct ts_error *err)
{
    *row = (struct model_row){.dtype = ""};
    enum ts_status status = ts_conf_tree_load(path, tree, err);
    if (status != TS_OK)
        return status;
    struct ts_conf_node root = ts_conf_tree_root(*tree);
    status = ts_conf_node_fill(root, fields, TS_ARRAY_SIZE(fields), row, err);
    return status == TS_OK ? complete(root, row, err) : status;
}

static bool answers_to(const struct model_row *row, const char *path, const char *name)
{
    char stem[TS_MODEL_NAME_BYTES];
    inputs_stem(path, stem, sizeof stem);
    bool found = inputs_same_name(row->model.name, name) || inputs_same_name(stem, name);
    for (uint32_t i = 0; i < ts_conf_node_count(row->aliases) && !found; i++)
        found = inputs_same_name(ts_conf_node_text(row->aliases, i), name);
    return found;
}

/* One file is asked for its names; the nearest of all is kept in `best` for the error. */
static enum ts_status try_file(const char *path, const char *name, struct ts_nearest *nearest,
                               char best[TS_MODEL_NAME_BYTES], char found[TS_MODEL_NAME_BYTES],
                               struct ts_model *out, struct ts_error *err)
{
    struct ts_conf_tree *tree = NULL;
    struct model_row row;
    enum ts_status status = read_model(path, &tree, &row, err);
    if (status == TS_OK && answers_to(&row, path, name)) {
        if (*found)
            status =
                ts_error_set(err, TS_EINVAL,
                             "model \"%.60s\" is a name in two files, %s and that of %s; take it out of one",
                             name, path, found);
        snprintf(found, TS_MODEL_NAME_BYTES, "%s", row.model.name);
        *out = row.model;
    } else if (status == TS_OK) {
        size_t least = nearest->least;
        ts_nearest_offer(nearest, row.model.name);
        if (nearest->least < least)
            snprintf(best, TS_MODEL_NAME_BYTES, "%s", row.model.name);
    }
    ts_conf_tree_destroy(&tree);
    return status;
}

static enum ts_status find_model(const char *conf_dir, const char *name, struct ts_model *out,
                                 struct ts_error *err)
{
    struct inputs_files files;
    struct ts_nearest nearest = ts_nearest_to(name);
    char best[TS_MODEL_NAME_BYTES] = "", found[TS_MODEL_NAME_BYTES] = "";
    enum ts_status status = inputs_files_list(conf_dir, "models", &files, err);
    for (size_t i = 0; i < files.count && status == TS_OK; i++)
        status = try_file(files.paths[i], name, &nearest, best, found, out, err);
    if (status == TS_OK && !*found)
        status = ts_error_set(
            err, TS_ENOTFOUND,
            "model \"%.100s\": no file of %s/models has this name or alias%s%s; give the path of "
            "a .conf, a config.json, or a folder that holds one",
            name, conf_dir, *best ? "; did you mean " : "", best);
    inputs_files_free(&files);
    return status;
}

static bool ends_with(const char *text, const char *end)
{
    size_t a = strlen(text), b = strlen(end);
    return a >= b && strcmp(text + a - b, end) == 0;
}

enum ts_status ts_inputs_model(const char *conf_dir, const char *name, struct ts_model *out,
                               struct ts_error *err)
{
    struct stat st;
    struct ts_conf_tree *tree = NULL;
    struct model_row row;
    bool exists = stat(name, &st) == 0;
    if (exists && S_ISDIR(st.st_mode))
        return inputs_hf_folder(name, out, err);
    if (exists && ends_with(name, ".json"))
        return inputs_hf_file(name, out, err);
    if (!exists && !ends_with(name, ".conf") && !ends_with(name, ".json"))
        return find_model(conf_dir, name, out, err);
    enum ts_status status = read_model(name, &tree, &row, err);
    if (status == TS_OK)
        *out = row.model;
    ts_conf_tree_destroy(&tree);
    return status;
}
