/*
 * Which way multiplies a shape fastest, for each bucket of rows; and the text file that keeps it from start
 * to start. A number of rows belongs to the smallest bucket that is not smaller.
 *
 *     thunderserve gemm 1 KEY
 *     OUTPUTS INPUTS TYPE KIND ROWS own VARIANT WARPS NS
 *     OUTPUTS INPUTS TYPE KIND ROWS tile VARIANT NS
 *     OUTPUTS INPUTS TYPE KIND ROWS lib WORD..(8, hexadecimal) NS
 *     end HASH
 *
 * KEY names device, driver, library, T, and the kernels. A file with another key, or damaged, counts as none.
 */
#ifndef TS_GPU_CUDA_PRODUCTS_GEMM_TABLE_H
#define TS_GPU_CUDA_PRODUCTS_GEMM_TABLE_H

#include "gpu/cuda/products/cuda_blaslt.h"
#include "gpu/cuda/products/cuda_skinny.h"
#include "gpu/cuda/products/cuda_tile.h"

#define GEMM_BUCKETS     23u
#define GEMM_ROWS_DECODE 128u /* up to here nothing is asked of the library when rows are multiplied */

extern const uint32_t gemm_buckets[GEMM_BUCKETS]; /* rows, ascending */

/* The smallest bucket of at least `m` rows; GEMM_BUCKETS: there is none. */
uint32_t gemm_bucket_of(uint32_t m);

struct gemm_choice {
    enum { GEMM_UNKNOWN, GEMM_OWN, GEMM_LIBRARY, GEMM_TILE } way;
    struct cuda_skinny_choice own;
    uint32_t tile; /* its variant */
    struct cuda_blaslt_algorithm algorithm;
    uint64_t ns; /* of one product, measured; 0: not measured */
};

/* A shape and its use. */
struct gemm_shape {
    uint32_t outputs, inputs;
    enum cuda_matrix_type type;
    enum cuda_gemm_y kind;
    struct gemm_choice choices[GEMM_BUCKETS];
    uint8_t
        takes[GEMM_ROWS_DECODE + 1]; /* whether the library's algorithm of the bucket takes so many rows */
    uint32_t last_m;                 /* above that: rows that were asked for last, and what was found */
    struct gemm_choice last;
};

struct gemm_table {
    struct gemm_shape *shapes;
    size_t count, capacity;
};

void gemm_table_fini(struct gemm_table *table);
struct gemm_shape *gemm_table_find(const struct gemm_table *table, const struct cuda_matrix *w,
                                   enum cuda_gemm_y kind); /* NULL: not there; valid until the next add */
struct gemm_shape *gemm_table_add(struct gemm_table *table, const struct cuda_matrix *w,
                                  enum cuda_gemm_y kind); /* or the one that is there */

/* Adds what the file has, if it is sound and has this key, which is one word; returns whether it was. */
bool gemm_table_load(struct gemm_table *table, const char *path, const char *key);

/* Writes the file, and the folders above it, beside and then over what is there. What fails is no harm but
 * that the next start measures again: returns false, errno tells. */
bool gemm_table_save(const struct gemm_table *table, const char *path, const char *key);

#endif
