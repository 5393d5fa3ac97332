#include "gpu/cpu/cpu_probe.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "gpu/cpu/cpu_level.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define CHAINS     12 /* independent sums, more than latency times throughput of any such instruction */
#define ITEMS      64u
#define TILE_STEPS 20000u /* the same of the tiles */
#define STEPS      60000u /* of each chain in an item: about 0.2 to 0.4 ms */

#if defined(__x86_64__)
/* The empty statement makes the inputs unknown, so that no step can be computed beforehand. */
#define PROBE(NAME, TARGET, VECTOR, ZERO, INPUT, STEP)                                                       \
    __attribute__((target(TARGET))) static float NAME(uint32_t steps)                                        \
    {                                                                                                        \
        VECTOR sums[CHAINS];                                                                                 \
        INPUT;                                                                                               \
        for (int i = 0; i < CHAINS; i++)                                                                     \
            sums[i] = ZERO;                                                                                  \
        for (uint32_t s = 0; s < steps; s++) {                                                               \
            __asm__ volatile("" : "+v"(x));                                                                  \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) sums[i] = STEP;                        \
        }                                                                                                    \
        float out[sizeof(VECTOR) / 4];                                                                       \
        for (int i = 1; i < CHAINS; i++)                                                                     \
            sums[0] += sums[i];                                                                              \
        memcpy(out, sums, sizeof out);                                                                       \
        return out[0];                                                                                       \
    }

PROBE(fp32_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), __m256 x = _mm256_set1_ps(0.5f),
      _mm256_fmadd_ps(x, x, sums[i]))
PROBE(fp32_avx512, "avx512f", __m512, _mm512_setzero_ps(), __m512 x = _mm512_set1_ps(0.5f),
      _mm512_fmadd_ps(x, x, sums[i]))
PROBE(bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(),
      __m512i x = _mm512_set1_epi32(0x3f003f00), _mm512_dpbf16_ps(sums[i], (__m512bh)x, (__m512bh)x))

/* Four tiles of sums; the inputs are whatever two zeroed tiles are. */
__attribute__((target("amx-tile,amx-bf16"))) static float bf16_tiles(uint32_t steps)
{
    uint8_t config[64] = {1};
    for (int i = 0; i < 8; i++) {
        config[16 + 2 * i] = 64;
        config[48 + i] = 16;
    }
    __asm__ volatile("" : : "r"(config) : "memory"); /* gcc 12 believes that only the first bytes are read */
    _tile_loadconfig(config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (uint32_t s = 0; s < steps / (STEPS / TILE_STEPS); s++) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 5);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_release();
    return 0;
}
#endif

struct probe_work {
    float (*run)(uint32_t steps);
    void (*read)(const uint8_t *p, size_t bytes);
    const uint8_t *buffer;
    size_t bytes;
    _Atomic uint64_t result; /* keeps the work from being dropped */
};

static void flops_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct probe_work *w = context;
    (void)thread;
    for (uint32_t i = begin; i < end; i++)
        w->result += (uint64_t)w->run(STEPS);
}

static bool has(const char *level)
{
    for (size_t i = 0; cpu_level_at(i); i++) {
        if (strcmp(cpu_level_at(i)->name, level) == 0)
            return cpu_level_supported(cpu_level_at(i));
    }
    return false;
}

const char *cpu_probe_name(enum cpu_probe probe)
{
    static const char *const names[] = {
        [CPU_PROBE_FP32] = "fp32", [CPU_PROBE_BF16] = "bf16", [CPU_PROBE_TILES] = "amx-bf16"};
    return names[probe];
}

double cpu_probe_flops(enum cpu_probe probe, struct cpu_threads *threads)
{
    struct probe_work w = {0};
    double per_step = 0;
#if defined(__x86_64__)
    if (probe == CPU_PROBE_FP32 && has("avx512")) {
        w.run = fp32_avx512;
        per_step = 16 * 2;
    } else if (probe == CPU_PROBE_FP32 && has("avx2")) {
        w.run = fp32_avx2;
        per_step = 8 * 2;
    } else if (probe == CPU_PROBE_BF16 && has("avx512bf16")) {
        w.run = bf16_avx512;
        per_step = 16 * 4;
    } else if (probe == CPU_PROBE_TILES && has("amx")) {
        w.run = bf16_tiles;
        per_step = 2 * 16 * 16 * 32 * 4.0 / CHAINS * TILE_STEPS / STEPS;
    }
#endif
    if (!w.run)
        return 0;
    cpu_threads_for(threads, ITEMS, 1, flops_part, &w);
    return per_step * CHAINS * STEPS * ITEMS;
}

#define READ_CHUNK   ((size_t)256 << 10)
#define READ_STREAMS 4 /* side by side in a chunk: one alone is fetched ahead less */

typedef uint64_t words __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) void read_chunk(const uint8_t *p, size_t bytes)
{
    words sums[READ_STREAMS] = {{0}};
    size_t stream = bytes / READ_STREAMS / 64 * 64;
    for (size_t at = 0; at < stream; at += 64) {
        for (int i = 0; i < READ_STREAMS; i++) {
            words v;
            memcpy(&v, p + (size_t)i * stream + at, sizeof v);
            sums[i] ^= v;
        }
    }
    for (int i = 0; i < READ_STREAMS; i++)
        __asm__ volatile("" : : "m"(sums[i]));
}

static void read_plain(const uint8_t *p, size_t bytes)
{
    read_chunk(p, bytes);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void read_avx512(const uint8_t *p, size_t bytes)
{
    read_chunk(p, bytes);
}
#endif

static void read_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    const struct probe_work *w = context;
    (void)thread;
    for (size_t at = begin * READ_CHUNK; at < end * READ_CHUNK && at < w->bytes; at += READ_CHUNK)
        w->read(w->buffer + at, w->bytes - at < READ_CHUNK ? w->bytes - at : READ_CHUNK);
}

void cpu_probe_read(const void *buffer, size_t bytes, struct cpu_threads *threads)
{
    struct probe_work w = {.read = read_plain, .buffer = buffer, .bytes = bytes};
#if defined(__x86_64__)
    if (has("avx512"))
        w.read = read_avx512;
#endif
    cpu_threads_for(threads, (uint32_t)((bytes + READ_CHUNK - 1) / READ_CHUNK), 8, read_part, &w);
}
