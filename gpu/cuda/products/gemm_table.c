#include "gpu/cuda/products/gemm_table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/ts_hash.h"
#include "common/base/ts_mem.h"

#define FILE_BYTES_MAX ((size_t)1 << 20)
#define SHAPES_MAX     256u /* of a file */

/* Those of decode steps (kernels.md, 3.8), then steps of a half and a third. */
const uint32_t gemm_buckets[] = {1,   2,   4,   8,   12,  16,   24,   32,   48,   64,   96,  128,
                                 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192};
_Static_assert(sizeof gemm_buckets == GEMM_BUCKETS * sizeof *gemm_buckets, "all buckets");

uint32_t gemm_bucket_of(uint32_t m)
{
    uint32_t bucket = 0;
    while (bucket < GEMM_BUCKETS && gemm_buckets[bucket] < m)
        bucket++;
    return bucket;
}

void gemm_table_fini(struct gemm_table *table)
{
    ts_free(table->shapes);
    *table = (struct gemm_table){NULL, 0, 0};
}

struct gemm_shape *gemm_table_find(const struct gemm_table *table, const struct cuda_matrix *w,
                                   enum cuda_gemm_y kind)
{
    for (size_t i = 0; i < table->count; i++) {
        struct gemm_shape *s = &table->shapes[i];
        if (s->outputs == w->outputs && s->inputs == w->inputs && s->type == w->type && s->kind == kind)
            return s;
    }
    return NULL;
}

struct gemm_shape *gemm_table_add(struct gemm_table *table, const struct cuda_matrix *w,
                                  enum cuda_gemm_y kind)
{
    struct gemm_shape *s = gemm_table_find(table, w, kind);
    if (s)
        return s;
    ts_array_reserve((void **)&table->shapes, &table->capacity, table->count + 1, sizeof *table->shapes);
    s = &table->shapes[table->count++];
    *s = (struct gemm_shape){.outputs = w->outputs, .inputs = w->inputs, .type = w->type, .kind = kind};
    return s;
}

/* --- the file ------------------------------------------------------------------------------------------- */

static bool sound_choice(const struct gemm_choice *c)
{
    if (c->way == GEMM_TILE)
        return c->tile < CUDA_TILE_VARIANTS;
    return c->way == GEMM_LIBRARY || (c->own.variant < CUDA_SKINNY_VARIANTS && c->own.warps >= 1 &&
                                      c->own.warps <= cuda_skinny_variants[c->own.variant].warps_max);
}

/* The rest of a line. */
static bool read_choice(const char *words, struct gemm_choice *c)
{
    uint64_t *d = c->algorithm.data;
    int end = 0;
    if (sscanf(words, " own %" SCNu32 " %" SCNu32 " %" SCNu64 "%n", &c->own.variant, &c->own.warps, &c->ns,
               &end) == 3) {
        c->way = GEMM_OWN;
    } else if (sscanf(words, " tile %" SCNu32 " %" SCNu64 "%n", &c->tile, &c->ns, &end) == 2) {
        c->way = GEMM_TILE;
    } else if (sscanf(words,
                      " lib %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64
                      " %" SCNx64 " %" SCNu64 "%n",
                      &d[0], &d[1], &d[2], &d[3], &d[4], &d[5], &d[6], &d[7], &c->ns, &end) == 9) {
        c->way = GEMM_LIBRARY;
    }
    return c->way != GEMM_UNKNOWN && words[end] == 0 && sound_choice(c);
}

static bool read_line(struct gemm_table *table, const char *line)
{
    struct cuda_matrix w = {.type = CUDA_MATRIX_F16};
    struct gemm_choice choice = {.way = GEMM_UNKNOWN};
    uint32_t type, kind, rows;
    int end = 0;
    if (sscanf(line, "%" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32 "%n", &w.outputs, &w.inputs,
               &type, &kind, &rows, &end) != 5 ||
        type > CUDA_MATRIX_I8 || kind > CUDA_GEMM_SWIGLU || table->count >= SHAPES_MAX)
        return false;
    uint32_t bucket = gemm_bucket_of(rows);
    if (bucket == GEMM_BUCKETS || gemm_buckets[bucket] != rows || !read_choice(line + end, &choice))
        return false;
    w.type = (enum cuda_matrix_type)type;
    gemm_table_add(table, &w, (enum cuda_gemm_y)kind)->choices[bucket] = choice;
    return true;
}

/* All of a file of text, or NULL. */
static char *read_file(const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    char *text = ts_xmalloc(FILE_BYTES_MAX + 1);
    size_t bytes = fread(text, 1, FILE_BYTES_MAX, file);
    text[bytes] = 0;
    fclose(file);
    return text;
}

/* Between head and last line, which are as they must be; NULL otherwise. Ends `text` there. */
static char *body_of(char *text, const char *key)
{
    char head[320], tail[32];
    int bytes = snprintf(head, sizeof head, "thunderserve gemm 1 %s\n", key);
    char *end = strstr(text, "\nend ");
    if (bytes <= 0 || strncmp(text, head, (size_t)bytes) != 0 || !end)
        return NULL;
    end++;
    snprintf(tail, sizeof tail, "end %016" PRIx64 "\n", ts_hash64(text, (size_t)(end - text), 0));
    if (strcmp(end, tail) != 0)
        return NULL;
    *end = 0;
    return text + bytes;
}

bool gemm_table_load(struct gemm_table *table, const char *path, const char *key)
{
    struct gemm_table read = {NULL, 0, 0};
    char *text = read_file(path), *at = text ? body_of(text, key) : NULL, *rest = NULL;
    bool sound = at != NULL;
    for (char *line = sound ? strtok_r(at, "\n", &rest) : NULL; line && sound;
         line = strtok_r(NULL, "\n", &rest))
        sound = read_line(&read, line);
    ts_free(text);
    for (size_t i = 0; i < read.count && sound; i++) {
        const struct gemm_shape *s = &read.shapes[i];
        struct cuda_matrix w = {.type = s->type, .outputs = s->outputs, .inputs = s->inputs};
        *gemm_table_add(table, &w, s->kind) = *s;
    }
    gemm_table_fini(&read);
    return sound;
}

static void write_choice(FILE *file, const struct gemm_shape *s, uint32_t bucket)
{
    const struct gemm_choice *c = &s->choices[bucket];
    if (c->way == GEMM_UNKNOWN)
        return;
    fprintf(file, "%u %u %u %u %u ", s->outputs, s->inputs, (unsigned)s->type, (unsigned)s->kind,
            gemm_buckets[bucket]);
    if (c->way == GEMM_OWN) {
        fprintf(file, "own %u %u", c->own.variant, c->own.warps);
    } else if (c->way == GEMM_TILE) {
        fprintf(file, "tile %u", c->tile);
    } else {
        fprintf(file, "lib");
        for (size_t i = 0; i < sizeof c->algorithm.data / sizeof *c->algorithm.data; i++)
            fprintf(file, " %" PRIx64, c->algorithm.data[i]);
    }
    fprintf(file, " %" PRIu64 "\n", c->ns);
}

static char *text_of(const struct gemm_table *table, const char *key, size_t *bytes)
{
    char *text = NULL;
    FILE *file = open_memstream(&text, bytes);
    if (!file)
        return NULL;
    fprintf(file, "thunderserve gemm 1 %s\n", key);
    for (size_t i = 0; i < table->count; i++) {
        for (uint32_t bucket = 0; bucket < GEMM_BUCKETS; bucket++)
            write_choice(file, &table->shapes[i], bucket);
    }
    fflush(file);
    fprintf(file, "end %016" PRIx64 "\n", ts_hash64(text, *bytes, 0));
    fclose(file);
    return text;
}

static void make_folders(const char *path)
{
    char *copy = ts_xstrdup(path);
    for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            break;
        *slash = '/';
    }
    ts_free(copy);
}

bool gemm_table_save(const struct gemm_table *table, const char *path, const char *key)
{
    size_t bytes = 0;
    char *text = text_of(table, key, &bytes), *beside = ts_xasprintf("%s.%ld", path, (long)getpid());
    make_folders(path);
    FILE *file = text ? fopen(beside, "we") : NULL;
    bool written = file && fwrite(text, 1, bytes, file) == bytes;
    if (file && fclose(file) != 0)
        written = false;
    if (file && (!written || rename(beside, path) != 0)) {
        int why = errno;
        unlink(beside);
        errno = why;
        written = false;
    }
    ts_free(beside);
    ts_free(text);
    return written;
}
