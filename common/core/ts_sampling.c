#include "common/core/ts_sampling.h"

struct ts_sampling ts_sampling_apply(const struct ts_sampling *request, const struct ts_sampling *defaults)
{
    const struct ts_sampling neutral = ts_sampling_defaults();
    struct ts_sampling out = *request;
#define SOURCE(bit)                                                                                          \
    (request->given & TS_SAMPLING_##bit ? request : defaults->given & TS_SAMPLING_##bit ? defaults : &neutral)
    out.temperature = SOURCE(TEMPERATURE)->temperature;
    out.top_k = SOURCE(TOP_K)->top_k;
    out.top_p = SOURCE(TOP_P)->top_p;
    out.min_p = SOURCE(MIN_P)->min_p;
    out.repetition_penalty = SOURCE(REPETITION_PENALTY)->repetition_penalty;
#undef SOURCE
    out.given = TS_SAMPLING_ALL;
    return out;
}
