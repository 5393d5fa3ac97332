#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"
#include "gpu/model/hf_impl.h"

static void add_map(struct ts_hf *hf, const char *name, const void *base, size_t bytes, bool mapped)
{
    size_t capacity = hf->map_count;
    ts_array_reserve((void **)&hf->maps, &capacity, hf->map_count + 1, sizeof *hf->maps);
    hf->maps[hf->map_count++] = (struct ts_hf_map){ts_xstrdup(name), base, bytes, mapped};
}

static enum ts_status map_file(const char *path, const char *name, struct ts_hf *hf, struct ts_error *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return TS_ENOTFOUND;
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        ts_error_set(err, TS_EIO, "%s: cannot read it: %s", path,
                     fd < 0 ? strerror(errno) : "it is not a file");
        if (fd >= 0)
            close(fd);
        return TS_EIO;
    }
    void *base = st.st_size > 0 ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    int error = errno;
    close(fd);
    if (base == MAP_FAILED)
        return ts_error_set(err, TS_EIO, "%s: cannot map its %lld bytes: %s", path, (long long)st.st_size,
                            strerror(error));
    add_map(hf, name, base, (size_t)st.st_size, base != NULL);
    return TS_OK;
}

enum ts_status hf_open_file(const struct hf_folder *folder, const char *file, struct ts_hf *hf,
                            struct ts_error *err)
{
    char path[HF_PATH_BYTES];
    for (size_t i = 0; i < folder->file_count; i++) {
        if (strcmp(folder->files[i].name, file) == 0) {
            add_map(hf, file, folder->files[i].data, folder->files[i].bytes, false);
            return TS_OK;
        }
    }
    if (folder->files)
        return TS_ENOTFOUND;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder->name, file) >= sizeof path)
        return ts_error_set(err, TS_EINVAL, "%.200s...: this path is too long", path);
    return map_file(path, file, hf, err);
}

enum ts_status hf_open_json(const struct hf_folder *folder, const char *file, struct ts_hf *hf,
                            struct ts_json **out, struct ts_error *err)
{
    char path[HF_PATH_BYTES];
    *out = NULL;
    enum ts_status status = hf_open_file(folder, file, hf, err);
    if (status != TS_OK)
        return status == TS_ENOTFOUND ? TS_OK : status;
    const struct ts_hf_map *map = &hf->maps[hf->map_count - 1];
    snprintf(path, sizeof path, "%s/%s", folder->name, file);
    status = ts_json_parse(map->bytes ? (const char *)map->base : "", map->bytes, path, out, err);
    if (status == TS_OK && ts_json_type(*out) != TS_JSON_OBJECT) {
        ts_json_destroy(out);
        return ts_error_set(err, TS_EINVAL, "%s: expected a JSON object", path);
    }
    return status;
}

typedef enum ts_status hf_reader(const struct ts_json *doc, struct ts_hf *hf, struct ts_error *err);

/* Opens, reads and closes one document. */
static enum ts_status read_document(const struct hf_folder *folder, const char *file, bool required,
                                    hf_reader *read, struct ts_hf *hf, struct ts_error *err)
{
    struct ts_json *doc = NULL;
    enum ts_status status = hf_open_json(folder, file, hf, &doc, err);
    if (status != TS_OK)
        return status;
    if (!doc && required)
        return ts_error_set(err, TS_ENOTFOUND,
                            "cannot open %s/%s: there is none; give the folder of a Hugging Face model",
                            folder->name, file);
    if (doc) {
        status = read(doc, hf, err);
        if (status != TS_OK)
            ts_error_prefix(err, "%s/%s", folder->name, file);
    }
    ts_json_destroy(&doc);
    return status;
}

static uint64_t fingerprint(const struct ts_hf *hf)
{
    const struct ts_model *m = &hf->model;
    const struct ts_rope *r = &hf->rope;
    uint64_t words[] = {m->layers,    m->hidden,   m->intermediate, m->heads,          m->kv_heads,
                        m->head_dim,  m->vocab,    m->kv_dtype,     m->weight_dtype,   r->kind,
                        hf->qkv_bias, hf->qk_norm, hf->tied,        m->sliding_window, r->truncate};
    double numbers[] = {r->theta,     r->factor,          r->original_context,
                        hf->rms_eps,  r->low_freq_factor, r->high_freq_factor,
                        r->beta_fast, r->beta_slow,       r->attention_factor};
    const struct ts_sampling *s = &hf->defaults;
    double sampling[] = {s->given, s->temperature, s->top_k, s->top_p, s->min_p, s->repetition_penalty};
    uint64_t hash = ts_hash64(words, sizeof words, 1);
    hash = ts_hash64(sampling, sizeof sampling, hash);
    hash = ts_hash64(numbers, sizeof numbers, hash);
    hash = ts_hash64(hf->windowed, sizeof hf->windowed, hash);
    /* names, and the first bytes of each tensor, so that a fine-tune differs */
    for (size_t i = 0; i < hf->tensor_count; i++) {
        const struct ts_hf_tensor *t = &hf->tensors[i];
        uint64_t bytes = ts_hf_tensor_bytes(t);
        hash = ts_hash64(t->name, strlen(t->name), hash);
        hash = ts_hash64(t->data, bytes < 4096 ? bytes : 4096, hash);
    }
    return hash;
}

static enum ts_status open_folder(const struct hf_folder *folder, bool weights, struct ts_hf **out,
                                  struct ts_error *err)
{
    struct ts_hf *hf = ts_xcalloc(1, sizeof *hf);
    hf->defaults = ts_sampling_defaults();
    enum ts_status status = read_document(folder, "config.json", true, hf_read_config, hf, err);
    if (status == TS_OK)
        status = read_document(folder, "generation_config.json", false, hf_read_generation, hf, err);
    if (status == TS_OK)
        status = read_document(folder, "tokenizer_config.json", false, hf_read_tokenizer_config, hf, err);
    if (status == TS_OK && weights)
        status = hf_read_weights(folder, hf, err);
    if (status != TS_OK) {
        ts_hf_close(&hf);
        return status;
    }
    const char *slash = strrchr(folder->name, '/');
    snprintf(hf->model.name, sizeof hf->model.name, "%.100s", slash && slash[1] ? slash + 1 : folder->name);
    hf->model.fingerprint = fingerprint(hf);
    *out = hf;
    return TS_OK;
}

enum ts_status ts_hf_open(const char *dir, struct ts_hf **out, struct ts_error *err)
{
    const struct hf_folder folder = {.name = dir};
    return open_folder(&folder, true, out, err);
}

enum ts_status ts_hf_open_config(const char *dir, struct ts_hf **out, struct ts_error *err)
{
    const struct hf_folder folder = {.name = dir};
    return open_folder(&folder, false, out, err);
}

enum ts_status ts_hf_open_files(const char *name, const struct ts_hf_file *files, size_t count,
                                struct ts_hf **out, struct ts_error *err)
{
    const struct hf_folder folder = {name, files, count};
    return open_folder(&folder, true, out, err);
}

void ts_hf_close(struct ts_hf **hf)
{
    struct ts_hf *h = *hf;
    if (!h)
        return;
    for (size_t i = 0; i < h->tensor_count; i++)
        ts_free(h->tensors[i].name);
    for (size_t i = 0; i < h->map_count; i++) {
        if (h->maps[i].mapped)
            munmap((void *)(uintptr_t)h->maps[i].base, h->maps[i].bytes);
        ts_free(h->maps[i].name);
    }
    ts_free(h->tensors);
    ts_free(h->maps);
    ts_free(h);
    *hf = NULL;
}
