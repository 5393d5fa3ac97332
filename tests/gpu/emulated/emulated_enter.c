/* What stands before each call of the emulated driver, and what of its objects is left. */
#include <stdlib.h>

#include "tests/gpu/emulated/emulated.h"
#include "tests/gpu/faults/driver_faults.h"

static atomic_int left[EMULATED_KINDS];

_Thread_local int emulated_device = -1;
_Thread_local CUstream emulated_capture;

uint64_t emulated_number(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

CUresult emulated_enter(const char *function, int needs)
{
    CUresult result = driver_faults_next(function);
    if (result != 0)
        return result;
    if ((needs & EMULATED_CURRENT) && emulated_device < 0)
        return CUDA_INVALID_CONTEXT;
    if ((needs & EMULATED_UNCAPTURED) && emulated_capture) {
        emulated_capture->invalid = true;
        return CUDA_CAPTURE_UNSUPPORTED;
    }
    return 0;
}

/* --- what is left --------------------------------------------------------------------------------------- */

void emulated_count(enum emulated_kind kind, int change)
{
    if (atomic_fetch_add(&left[kind], change) + change < 0)
        abort(); /* given back twice */
}

static uint32_t left_of(enum emulated_kind kind)
{
    return (uint32_t)atomic_load(&left[kind]);
}

const struct emulated_driver ts_cuda_is_emulated = {driver_faults_set, driver_faults_calls, left_of};
