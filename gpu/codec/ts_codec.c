/* The choice of a dispatch level. */
#include "gpu/codec/ts_codec.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "gpu/codec/codec_impl.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* --- dispatch --- */

static const struct codec_level *const levels[] = {
#if defined(TS_CODEC_SIMD)
    &codec_avx512bf16, &codec_avx512, &codec_avx2,
#endif
    &codec_scalar};

static _Atomic(const struct codec_level *) current;

#if defined(TS_CODEC_SIMD)
/* What clang 14 cannot ask for by name. The system keeps the registers where AVX and AVX-512 F are there. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & 1u << 29);
}

static bool has_bf16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}
#endif

static bool supported(const struct codec_level *l)
{
#if defined(TS_CODEC_SIMD)
    if (l == &codec_avx512bf16)
        return supported(&codec_avx512) && has_bf16();
    if (l == &codec_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
               __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni") &&
               __builtin_cpu_supports("popcnt");
    if (l == &codec_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && has_f16c();
#endif
    return l == &codec_scalar;
}

enum ts_status ts_codec_set_level(const char *name)
{
    for (size_t i = 0; i < TS_ARRAY_SIZE(levels); i++) {
        if (strcmp(levels[i]->name, name) == 0 && supported(levels[i])) {
            atomic_store(&current, levels[i]);
            return TS_OK;
        }
    }
    return TS_EUNSUPPORTED;
}

const struct codec_level *codec_level(void)
{
    const struct codec_level *l = atomic_load_explicit(&current, memory_order_relaxed);
    if (l)
        return l;
    const char *wish = getenv("TS_CPU_LEVEL");
    if (!wish || ts_codec_set_level(wish) != TS_OK) {
        size_t i = 0;
        while (i + 1 < TS_ARRAY_SIZE(levels) && !supported(levels[i])) /* the last one runs anywhere */
            i++;
        atomic_store(&current, levels[i]);
    }
    return atomic_load(&current);
}
