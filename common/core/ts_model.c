#include "common/core/ts_model.h"

const char *ts_dtype_name(enum ts_dtype dtype)
{
    switch (dtype) {
    case TS_DTYPE_F32:
        return "f32";
    case TS_DTYPE_F16:
        return "f16";
    case TS_DTYPE_BF16:
        return "bf16";
    }
    return "unknown";
}
