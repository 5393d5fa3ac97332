#include "gpu/cpu/cpu_level.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"

static bool supported(const struct cpu_level *level)
{
#if defined(__x86_64__)
    if (level == &cpu_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl");
    if (level == &cpu_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               __builtin_cpu_supports("f16c");
#endif
    return level == &cpu_scalar;
}

const struct cpu_level *cpu_level_pick(void)
{
    static const struct cpu_level *const levels[] = {
#if defined(__x86_64__)
        &cpu_avx512,
        &cpu_avx2,
#endif
        &cpu_scalar
    };
    const char *wish = getenv("TS_CPU_LEVEL");
    for (size_t i = 0; i < TS_ARRAY_SIZE(levels); i++) {
        if (supported(levels[i]) && (!wish || strcmp(wish, levels[i]->name) == 0))
            return levels[i];
    }
    return &cpu_scalar;
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
