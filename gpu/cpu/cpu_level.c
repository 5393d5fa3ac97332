#include "gpu/cpu/cpu_level.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023 /* of asm/prctl.h since Linux 5.16 */
#define XFEATURE_XTILEDATA  18
#endif

extern const struct cpu_level cpu_scalar;
#if defined(__x86_64__)
extern const struct cpu_level cpu_avx2, cpu_avx512, cpu_avx512bf16, cpu_amx;
#endif

static const struct cpu_level *const levels[] = {
#if defined(__x86_64__)
    &cpu_amx, &cpu_avx512bf16, &cpu_avx512, &cpu_avx2,
#endif
    &cpu_scalar};

const struct cpu_level *cpu_level_at(size_t index)
{
    return index < TS_ARRAY_SIZE(levels) ? levels[index] : NULL;
}

#if defined(__x86_64__)
/* What clang 14 cannot ask for by name. */
static bool has_bf16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

/* Tiles must be asked for: the kernel then makes room for them in every thread of this process. */
static bool has_tiles(void)
{
    unsigned a, b, c, d, wanted = 1u << 22 | 1u << 24; /* AMX-BF16, AMX-TILE */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & wanted) == wanted &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 29);
}
#endif

/* The compiler's test includes xgetbv: whether the operating system keeps the wide registers. */
bool cpu_level_supported(const struct cpu_level *level)
{
#if defined(__x86_64__)
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (level == &cpu_amx)
        return avx512 && has_bf16() && has_tiles();
    if (level == &cpu_avx512bf16)
        return avx512 && has_bf16();
    if (level == &cpu_avx512)
        return avx512;
    if (level == &cpu_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
#endif
    return level == &cpu_scalar;
}

const struct cpu_level *cpu_level_pick(void)
{
    const char *wish = getenv("TS_CPU_LEVEL");
    size_t i = 0;
    for (size_t j = 0; wish && j < TS_ARRAY_SIZE(levels); j++) {
        if (strcmp(wish, levels[j]->name) == 0)
            i = j;
    }
    while (!cpu_level_supported(levels[i]))
        i++;
    return levels[i];
}

size_t cpu_attention_work(uint32_t head_dim, uint32_t group)
{
    size_t width = (head_dim + CPU_PANEL - 1) / CPU_PANEL * CPU_PANEL;
    size_t rows = group > CPU_ATTENTION_ROWS ? group : CPU_ATTENTION_ROWS;
    return CPU_ATTENTION_TILE * (head_dim + width) + rows * (2 * width + CPU_ATTENTION_TILE + 2);
}

uint16_t cpu_to_16(float value, enum ts_dtype dtype)
{
    union {
        float f;
        uint32_t u;
    } v = {.f = value}, magic;
    uint32_t sign = (v.u >> 16) & 0x8000, magnitude = v.u & 0x7fffffff;
    if (dtype == TS_DTYPE_BF16)
        return (uint16_t)(magnitude > 0x7f800000 ? v.u >> 16 | 0x40
                                                 : (v.u + 0x7fff + ((v.u >> 16) & 1)) >> 16);
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) { /* subnormal: adding 0.5 leaves the rounded fraction in the low bits */
        magic.u = magnitude;
        magic.f += 0.5f;
        return (uint16_t)(sign | (magic.u - 0x3f000000));
    }
    return (uint16_t)(sign | (((magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13) - (112u << 10)));
}
