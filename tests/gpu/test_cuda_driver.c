/*
 * A device of the driver from open to close, over a driver made for this test that fails where it is told to
 * (fake_driver.c). Where the toolkit is installed the declarations of cuda_driver.h are compared with cuda.h.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#if defined(TS_CUDA_HEADER)
#include <cuda.h>
#endif
#include "gpu/cuda/cuda_driver.h"
#include "gpu/cuda/ts_cuda.h"
#include "tests/gpu/fake_driver.h"
#include "tests/gpu/kernel_fixture.h"

#if defined(TS_CUDA_HEADER)
#define SAME(function, member)                                                                               \
    _Static_assert(                                                                                          \
        __builtin_types_compatible_p(__typeof__(&function), __typeof__(((struct cuda_driver *)0)->member)),  \
        #function " is declared as in cuda.h");
CUDA_DRIVER_FUNCTIONS(SAME)
#define EQUAL(ours, theirs) _Static_assert((ours) == (int)(theirs), #ours " is that of cuda.h")
EQUAL(CUDA_INVALID_VALUE, CUDA_ERROR_INVALID_VALUE);
EQUAL(CUDA_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
EQUAL(CUDA_NO_DEVICE, CUDA_ERROR_NO_DEVICE);
EQUAL(CUDA_INVALID_CONTEXT, CUDA_ERROR_INVALID_CONTEXT);
EQUAL(CUDA_INVALID_HANDLE, CUDA_ERROR_INVALID_HANDLE);
EQUAL(CUDA_NOT_FOUND, CUDA_ERROR_NOT_FOUND);
EQUAL(CUDA_NOT_READY, CUDA_ERROR_NOT_READY);
EQUAL(CUDA_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS);
EQUAL(CUDA_CAPTURE_UNSUPPORTED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
EQUAL(CUDA_CAPTURE_LAST, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
EQUAL(CUDA_STREAM_NON_BLOCKING, CU_STREAM_NON_BLOCKING);
EQUAL(CUDA_EXTERNAL, CU_EVENT_RECORD_EXTERNAL);
EQUAL(CUDA_EXTERNAL, CU_EVENT_WAIT_EXTERNAL);
EQUAL(CUDA_HOST_PORTABLE, CU_MEMHOSTALLOC_PORTABLE);
EQUAL(CUDA_CAPTURE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
EQUAL(CUDA_IPC_LAZY_PEER_ACCESS, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
EQUAL(CUDA_MULTIPROCESSORS, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
EQUAL(CUDA_L2_BYTES, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
EQUAL(CUDA_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
EQUAL(CUDA_CAPABILITY_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
EQUAL(CUDA_SHARED_BYTES_OPTIN, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
EQUAL(CUDA_FUNCTION_SHARED_BYTES, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
EQUAL(CUDA_FUNCTION_DYNAMIC_BYTES, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
_Static_assert(CUDA_PARAMS_POINTER == CU_LAUNCH_PARAM_BUFFER_POINTER &&
                   CUDA_PARAMS_BYTES == CU_LAUNCH_PARAM_BUFFER_SIZE && CUDA_PARAMS_END == CU_LAUNCH_PARAM_END,
               "keys of arguments are those of cuda.h");
_Static_assert(sizeof(CUresult) == sizeof(int) && sizeof(CUdevice) == sizeof(int) &&
                   sizeof(CUdevice_attribute) == sizeof(int) && sizeof(CUfunction_attribute) == sizeof(int) &&
                   sizeof(CUstreamCaptureMode) == sizeof(int) &&
                   sizeof(CUdeviceptr) == sizeof(unsigned long long) && sizeof(CUuuid) == 16 &&
                   sizeof(CUipcMemHandle) == 64,
               "types are as large as cuda_driver.h has them without cuda.h");
#endif

static struct fake_driver *fake;

static void nothing_is_left(void)
{
    assert_int_equal(fake->contexts, 0);
    assert_int_equal(fake->modules, 0);
    assert_int_equal(fake->streams, 0);
    assert_int_equal(fake->buffers, 0);
}

/* The kernels' own tests, through cuda_driver.c. */
static void test_device(void **state)
{
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    (void)state;
    assert_int_equal(ts_cuda_open(0, &cuda, &err), TS_OK);
    assert_string_equal(ts_cuda_name(cuda), "a driver made for a test");
    kernel_use(cuda, NULL);
    kernel_test_refusals(NULL);
    ts_cuda_close(&cuda);
    assert_null(cuda);
    nothing_is_left();
}

static void test_no_such_device(void **state)
{
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    (void)state;
    assert_int_equal(ts_cuda_open(1, &cuda, &err), TS_ENOTFOUND);
    assert_string_equal(err.text, "no CUDA device: number 1 is asked for, the driver shows 1");
    assert_null(cuda);
    fake->devices = 0;
    assert_int_equal(ts_cuda_open(0, &cuda, &err), TS_ENOTFOUND);
    fake->devices = 1;
    nothing_is_left();
}

static void test_open_fails(void **state)
{
    static const char *const functions[] = {"cuDeviceGetCount",
                                            "cuDeviceGet",
                                            "cuDeviceGetName",
                                            "cuCtxSetCurrent",
                                            "cuStreamCreateWithPriority",
                                            "cuDevicePrimaryCtxRetain",
                                            "cuModuleLoadData",
                                            "cuModuleGetFunction"};
    (void)state;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        struct ts_error err = {0};
        struct ts_cuda *cuda;
        fake->fails = functions[i];
        fake->result = 100;
        assert_int_equal(ts_cuda_open(0, &cuda, &err), TS_EIO);
        assert_non_null(strstr(err.text, "CUDA_ERROR_NO_DEVICE (100)"));
        assert_null(cuda);
        fake->fails = NULL;
        assert_int_equal(fake->contexts, 0);
        assert_int_equal(fake->modules, 0);
    }
    nothing_is_left();
}

static enum ts_status try_all(struct ts_cuda *cuda, struct ts_error *err)
{
    uint8_t byte = 5;
    ts_cuda_address at = 0;
    enum ts_status status = ts_cuda_alloc(cuda, 1, &at, err);
    if (status == TS_OK)
        status = ts_cuda_clear(cuda, at, 1, err);
    if (status == TS_OK)
        status = ts_cuda_upload(cuda, at, &byte, 1, err);
    byte = 6;
    if (status == TS_OK)
        status = ts_cuda_download(cuda, &byte, at, 1, err);
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    if (status == TS_OK)
        assert_int_equal(byte, 5);
    ts_cuda_free(cuda, &at);
    return status;
}

/* Device memory that is used up is ordinary, all else is an error that names the device and the operation. */
static void test_operations_fail(void **state)
{
    static const struct {
        const char *function, *named;
    } cases[] = {{"cuMemAlloc_v2", "cuMemAlloc"},
                 {"cuMemsetD8Async", "cuMemsetD8Async"},
                 {"cuMemcpyHtoDAsync_v2", "cuMemcpyHtoDAsync"},
                 {"cuMemcpyDtoHAsync_v2", "cuMemcpyDtoHAsync"},
                 {"cuStreamSynchronize", "cuStreamSynchronize"}};
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[128];
        assert_int_equal(ts_cuda_open(0, &cuda, &err), TS_OK);
        assert_int_equal(try_all(cuda, &err), TS_OK);
        fake->fails = cases[i].function;
        fake->result = CUDA_OUT_OF_MEMORY;
        assert_int_equal(try_all(cuda, &err), TS_ENOMEM);
        assert_null(ts_cuda_fault(cuda));
        fake->result = 719;
        assert_int_equal(try_all(cuda, &err), TS_EIO);
        snprintf(expected, sizeof expected, "a driver made for a test: %s: an unknown error (719)",
                 cases[i].named);
        assert_string_equal(err.text, expected);
        assert_string_equal(ts_cuda_fault(cuda), expected);
        fake->fails = NULL;
        err = (struct ts_error){0};
        assert_int_equal(try_all(cuda, &err), TS_EIO);
        assert_string_equal(err.text, expected);
        ts_cuda_close(&cuda);
        nothing_is_left();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device),
        cmocka_unit_test(test_no_such_device),
        cmocka_unit_test(test_open_fails),
        cmocka_unit_test(test_operations_fail),
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    struct fake_driver *(*find)(void) = NULL;
    if (library)
        *(void **)(void *)&find = dlsym(library, "fake_driver");
    if (!find) {
        printf("run by ctest, which puts the driver of this test in the way: %s\n", dlerror());
        return 1;
    }
    fake = find();
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    if (ts_cuda_open(0, &cuda, &err) == TS_EUNSUPPORTED) {
        printf("SKIP: no-gpu %s\n", err.text); /* no kernels in this build */
        return 77;
    }
    ts_cuda_close(&cuda);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
