/*
 * A device of the driver from open to close, over the driver whose device is the CPU (emulated/). Where the
 * toolkit is installed the declarations of cuda_driver.h are compared with cuda.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(TS_CUDA_HEADER)
#include <cuda.h>
#endif
#include "gpu/cuda/device/cuda_driver.h"
#include "gpu/cuda/device/ts_cuda.h"
#include "tests/gpu/cuda_child.h"
#include "tests/gpu/emulated_fixture.h"
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
EQUAL(CUDA_LAUNCH_OVERLAP, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
EQUAL(CUDA_FUNCTION_SHARED_BYTES, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
EQUAL(CUDA_FUNCTION_DYNAMIC_BYTES, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
_Static_assert(sizeof(CUresult) == sizeof(int) && sizeof(CUdevice) == sizeof(int) &&
                   sizeof(CUdevice_attribute) == sizeof(int) && sizeof(CUfunction_attribute) == sizeof(int) &&
                   sizeof(CUstreamCaptureMode) == sizeof(int) &&
                   sizeof(CUdeviceptr) == sizeof(unsigned long long) && sizeof(CUuuid) == 16 &&
                   sizeof(CUipcMemHandle) == 64 && sizeof(CUlaunchAttribute) == 72 &&
                   offsetof(CUlaunchAttribute, value) == 8 && sizeof(CUlaunchConfig) == 56 &&
                   offsetof(CUlaunchConfig, attrs) == 40,
               "types are as large as cuda_driver.h has them without cuda.h");
#endif

/* Keys of the list of a launch: pointers, which no compiler compares before. */
static void test_launch_keys(void **state)
{
    (void)state;
#if defined(TS_CUDA_HEADER)
    assert_ptr_equal(CUDA_PARAMS_POINTER, CU_LAUNCH_PARAM_BUFFER_POINTER);
    assert_ptr_equal(CUDA_PARAMS_BYTES, CU_LAUNCH_PARAM_BUFFER_SIZE);
    assert_ptr_equal(CUDA_PARAMS_END, CU_LAUNCH_PARAM_END);
#endif
}

/* The kernels' own tests, through cuda_driver.c. */
static void test_device(void **state)
{
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    (void)state;
    assert_int_equal(ts_cuda_open(0, &cuda, &err), TS_OK);
    assert_string_equal(ts_cuda_name(cuda), "the CPU as a GPU");
    assert_string_equal(ts_cuda_properties(cuda)->uuid, "e0e1e2e3-e4e5-e6e7-e8e9-eaebecedee00");
    assert_true(ts_cuda_properties(cuda)->emulated);
    assert_null(ts_cuda_native_stream(cuda));
    kernel_use(cuda, NULL);
    kernel_test_refusals(NULL);
    ts_cuda_close(&cuda);
    assert_null(cuda);
    emulated_nothing_left();
}

static void test_ordinals(void **state)
{
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    (void)state;
    assert_int_equal(ts_cuda_open(1, &cuda, &err), TS_ENOTFOUND);
    assert_null(cuda);
    assert_string_equal(err.text, "no CUDA device: number 1 is asked for, the driver shows 1");
    emulated_nothing_left();
}

#define BEFORE "TS_CUDA_DRIVER=" TS_FAULT_DRIVER /* stands before the driver of the tests (faults/) */

/* Without one, one line says why. */
static void test_no_device(void **state)
{
    static const struct {
        const char *variables[3], *reason;
    } cases[] = {{{"TS_EMULATED_DEVICES=0"}, "libcuda.so.1 says CUDA_ERROR_NO_DEVICE"},
                 {{BEFORE, "TS_EMULATED_DEVICES=0"}, TS_FAULT_DRIVER " says CUDA_ERROR_NO_DEVICE"},
                 {{BEFORE, "TS_FAULT=cuInit:1:999"}, TS_FAULT_DRIVER " says an unknown error"},
                 {{BEFORE, "TS_FAULT=cuInit:1:100:sticky"}, TS_FAULT_DRIVER " says CUDA_ERROR_NO_DEVICE"},
                 {{BEFORE, "TS_FAULT=cuMemAlloc_v2:1:2,cuCtxSetCurrent:1:46:sticky"},
                  "the CPU as a GPU: cuCtxSetCurrent: an unknown error (46)"}};
    char note[700], expected[700];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_not_equal(cuda_child_open(cases[i].variables, note, sizeof note), TS_OK);
        snprintf(expected, sizeof expected, "no CUDA device: %s", cases[i].reason);
        assert_string_equal(note, expected);
    }
}

/* A file by the driver's name that is none. */
static void test_no_driver(void **state)
{
    char folder[] = "/tmp/ts-no-driver-XXXXXX", path[64], variable[64], note[700];
    const char *const variables[] = {variable, NULL};
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/libcuda.so.1", folder);
    snprintf(variable, sizeof variable, "LD_LIBRARY_PATH=%s", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(cuda_child_open(variables, note, sizeof note), TS_EUNSUPPORTED);
    remove(path);
    rmdir(folder);
    assert_non_null(strstr(note, "no CUDA device: "));
    assert_non_null(strstr(note, "libcuda.so.1: file too short"));
}

/* The driver that stands before another one, and finds none. */
static void test_nothing_behind(void **state)
{
    static const char *const variables[] = {BEFORE, "TS_FAULT_DRIVER=/no/such/driver", NULL};
    char note[700];
    (void)state;
    assert_int_equal(cuda_child_open(variables, note, sizeof note), TS_EUNSUPPORTED);
    assert_string_equal(note, "no CUDA device: " TS_FAULT_DRIVER " has no cuInit: the driver is too old");
}

/* Faults that wait for a file. */
static void test_faults_since(void **state)
{
    static const char *const before[] = {BEFORE, "TS_FAULT=cuInit:1:999", "TS_FAULT_SINCE=/no/such/file",
                                         NULL},
                             *const after[] = {BEFORE, "TS_FAULT=cuInit:1:999", "TS_FAULT_SINCE=/proc", NULL};
    char note[700];
    (void)state;
    assert_int_equal(cuda_child_open(before, note, sizeof note), TS_OK);
    assert_int_equal(cuda_child_open(after, note, sizeof note), TS_EUNSUPPORTED);
}

/* What a real one refuses: memory that is not the device's, and the own process' handles. */
static void test_refusals(void **state)
{
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    struct ts_cuda_share share;
    ts_cuda_address at, imported;
    uint8_t bytes[8] = {0};
    (void)state;
    assert_int_equal(ts_cuda_open(0, &cuda, &err), TS_OK);
    assert_int_equal(ts_cuda_alloc(cuda, 100, &at, &err), TS_OK);
    assert_int_equal(ts_cuda_export(cuda, at, &share, &err), TS_OK);
    assert_int_equal(ts_cuda_import(cuda, &share, &imported, &err), TS_EUNSUPPORTED);
    share.bytes[0] ^= 1;
    assert_int_equal(ts_cuda_import(cuda, &share, &imported, &err), TS_EUNSUPPORTED);
    assert_null(ts_cuda_fault(cuda));
    assert_int_equal(ts_cuda_upload(cuda, at + 93, bytes, 8, &err), TS_EIO);
    assert_string_equal(ts_cuda_fault(cuda),
                        "the CPU as a GPU: cuMemcpyHtoDAsync: CUDA_ERROR_INVALID_VALUE (1)");
    ts_cuda_free(cuda, &at);
    ts_cuda_close(&cuda);
    emulated_nothing_left();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launch_keys),  cmocka_unit_test(test_device),
        cmocka_unit_test(test_ordinals),     cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_no_driver),    cmocka_unit_test(test_nothing_behind),
        cmocka_unit_test(test_faults_since), cmocka_unit_test(test_refusals),
    };
    int status;
    if (cuda_child_main(argc, argv, &status))
        return status;
    if (!emulated_find())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
