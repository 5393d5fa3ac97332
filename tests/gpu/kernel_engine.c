/* The CUDA engine on a device that is made of the CPU. */
#include "tests/gpu/cuda_engine_fixture.h"

#include "gpu/cuda/host/kernel_host.h"
#include "tests/gpu/engine_fixture.h"

static enum ts_status open_emulated(const struct ts_engine_options *options, struct ts_engine **out,
                                    struct ts_error *err)
{
    return ts_cuda_engine_open_on(options, kernel_host_open(NULL), out, err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {CUDA_ENGINE_TESTS};
    cuda_engine_use(open_emulated);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
