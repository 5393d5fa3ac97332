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

#define READ_CHUNK ((size_t)256 << 10)

static void read_part(void *context, uint32_t begin, uint32_t end, uint32_t thread)
{
    struct probe_work *w = context;
    typedef uint64_t words __attribute__((vector_size(64)));
    (void)thread;
    for (size_t at = begin * READ_CHUNK; at < end * READ_CHUNK && at + 256 <= w->bytes; at += 256) {
        words v[4];
        memcpy(v, w->buffer + at, sizeof v);
        v[0] ^= v[1] ^ v[2] ^ v[3];
        __asm__ volatile("" : : "m"(v[0]));
    }
}

void cpu_probe_read(const void *buffer, size_t bytes, struct cpu_threads *threads)
{
    struct probe_work w = {.buffer = buffer, .bytes = bytes};
    cpu_threads_for(threads, (uint32_t)((bytes + READ_CHUNK - 1) / READ_CHUNK), 8, read_part, &w);
}
