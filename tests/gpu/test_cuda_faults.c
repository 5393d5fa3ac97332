/*
 * Every call that cuda_driver.c and cuda_driver_ops.c make of the driver fails once, each time at another
 * place of a program that uses all of a device: its status says what kind of failure it was, nothing is left,
 * and what is lost stays lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/cuda/device/cuda_driver.h"
#include "gpu/cuda/weights/weights_args.h"
#include "tests/gpu/cuda_child.h"
#include "tests/gpu/emulated_fixture.h"

#define LOST        719 /* CUDA_ERROR_LAUNCH_FAILED */
#define UNSUPPORTED 801 /* CUDA_ERROR_NOT_SUPPORTED */
#define BYTES       4096u

static const char *const functions[] = {
#define NAME(function, member) #function,
    CUDA_DRIVER_FUNCTIONS(NAME)
#undef NAME
};
#define FUNCTIONS (sizeof functions / sizeof *functions)

/* Those that give back: what they answer is of no use to anyone. */
static bool gives_back(const char *function)
{
    return strstr(function, "Destroy") || strstr(function, "Free") || strstr(function, "Release") ||
           strstr(function, "Unload") || strstr(function, "CloseMem");
}

/* --- a program ------------------------------------------------------------------------------------------ */

struct program {
    struct ts_cuda *cuda, *fork;
    ts_cuda_address a, b;
    void *pinned;
    struct ts_cuda_event *from, *to;
    struct ts_cuda_graph *graph;
    bool faulty; /* ts_cuda_fault says so */
};

static enum ts_status launch(struct ts_cuda *cuda, ts_cuda_address to, struct ts_error *err)
{
    const struct weights_fill_args args = {
        .to = (uint8_t *)(uintptr_t)to, .count = BYTES / 2, .seed = 1, .scale = 1.0f, .bf16 = 1};
    return ts_cuda_launch(cuda, "weights_fill", (struct ts_cuda_dim){1, 1, 1},
                          (struct ts_cuda_dim){WEIGHTS_THREADS, 1, 1}, 0, &args, sizeof args, err);
}

/* Goes on as long as all goes well. */
#define NEXT(call)                                                                                           \
    do {                                                                                                     \
        if (status == TS_OK)                                                                                 \
            status = (call);                                                                                 \
    } while (0)

static enum ts_status acquire(struct program *p, struct ts_error *err)
{
    uint64_t unused, total;
    enum ts_status status = ts_cuda_open(0, &p->cuda, err);
    NEXT(ts_cuda_fork(p->cuda, true, &p->fork, err));
    NEXT(ts_cuda_memory(p->cuda, &unused, &total, err));
    NEXT(ts_cuda_alloc(p->cuda, BYTES, &p->a, err));
    NEXT(ts_cuda_alloc(p->fork, BYTES, &p->b, err));
    NEXT(ts_cuda_pin(p->cuda, BYTES, &p->pinned, err));
    NEXT(ts_cuda_event_new(p->cuda, &p->from, err));
    NEXT(ts_cuda_event_new(p->cuda, &p->to, err));
    return status;
}

static enum ts_status use(struct program *p, struct ts_error *err)
{
    struct ts_cuda_share share;
    uint64_t ns;
    bool done;
    enum ts_status status = ts_cuda_record(p->cuda, p->from, err);
    NEXT(ts_cuda_clear(p->cuda, p->a, BYTES, err));
    NEXT(ts_cuda_upload(p->cuda, p->b, p->pinned, BYTES, err));
    NEXT(launch(p->cuda, p->a, err));
    NEXT(ts_cuda_record(p->cuda, p->to, err));
    NEXT(ts_cuda_after(p->fork, p->to, err));
    NEXT(ts_cuda_copy(p->fork, p->b, p->a, BYTES, err));
    NEXT(ts_cuda_download(p->fork, p->pinned, p->b, BYTES, err));
    NEXT(ts_cuda_event_wait(p->to, err));
    NEXT(ts_cuda_event_done(p->to, &done, err));
    NEXT(ts_cuda_elapsed(p->from, p->to, &ns, err));
    NEXT(ts_cuda_export(p->cuda, p->a, &share, err));
    NEXT(ts_cuda_wait(p->fork, err));
    return status;
}

/* A capture that was begun is ended, whatever its commands said. */
static enum ts_status use_graph(struct program *p, struct ts_error *err)
{
    struct ts_error ending;
    enum ts_status status = ts_cuda_capture_begin(p->cuda, err);
    if (status != TS_OK)
        return status;
    NEXT(ts_cuda_clear(p->cuda, p->b, BYTES, err));
    NEXT(launch(p->cuda, p->a, err));
    NEXT(ts_cuda_record(p->cuda, p->to, err));
    enum ts_status ended = ts_cuda_capture_end(p->cuda, &p->graph, &ending);
    if (status == TS_OK && ended != TS_OK)
        *err = ending;
    NEXT(ended);
    NEXT(ts_cuda_graph_launch(p->cuda, p->graph, err));
    NEXT(ts_cuda_wait(p->cuda, err));
    return status;
}

static void give_back(struct program *p)
{
    p->faulty = p->cuda && ts_cuda_fault(p->cuda);
    ts_cuda_graph_free(&p->graph);
    ts_cuda_event_free(&p->from);
    ts_cuda_event_free(&p->to);
    if (p->cuda) {
        ts_cuda_unpin(p->cuda, &p->pinned);
        ts_cuda_free(p->cuda, &p->a);
        ts_cuda_free(p->cuda, &p->b);
    }
    ts_cuda_close(&p->fork);
    ts_cuda_close(&p->cuda);
}

static enum ts_status run(struct program *p, struct ts_error *err)
{
    *p = (struct program){0};
    *err = (struct ts_error){0};
    enum ts_status status = acquire(p, err);
    NEXT(use(p, err));
    NEXT(use_graph(p, err));
    if (p->cuda && ts_cuda_fault(p->cuda)) { /* every operation says the same */
        struct ts_error again = {0};
        ts_cuda_address none;
        assert_int_equal(ts_cuda_alloc(p->cuda, 1, &none, &again), TS_EIO);
        assert_string_equal(again.text, ts_cuda_fault(p->cuda));
        assert_int_equal(ts_cuda_wait(p->fork ? p->fork : p->cuda, &again), TS_EIO);
    }
    give_back(p);
    return status;
}

/* --- faults --------------------------------------------------------------------------------------------- */

/* The `nth` call of the function fails with that result. What the program then says. */
static enum ts_status with_fault(const char *function, uint32_t nth, int result, bool sticky,
                                 struct program *p, struct ts_error *err)
{
    char fault[128];
    snprintf(fault, sizeof fault, "%s:%u:%d%s", function, nth, result, sticky ? ":sticky" : "");
    emulated->set_faults(fault);
    enum ts_status status = run(p, err);
    bool reached = emulated->calls(function) >= nth;
    emulated->set_faults("");
    if (!reached)
        fail_msg("%s: the program did not come to it", fault);
    for (int kind = 0; kind < EMULATED_KINDS; kind++) {
        if (emulated->left((enum emulated_kind)kind) != 0)
            fail_msg("%s: objects of kind %d are left", fault, kind);
    }
    if (status != TS_OK && !strchr(err->text, '('))
        fail_msg("%s: the words are '%s'", fault, err->text);
    return status;
}

static void expect(const char *function, uint32_t nth, const char *what, enum ts_status status,
                   enum ts_status wanted)
{
    if (status != wanted)
        fail_msg("call %u of %s, %s: %s, not %s", nth, function, what, ts_status_name(status),
                 ts_status_name(wanted));
}

static void check_call(const char *function, uint32_t nth)
{
    /* Refused, but the device is sound. */
    bool refusable = strcmp(function, "cuIpcGetMemHandle") == 0 || strstr(function, "Capture") ||
                     strcmp(function, "cuGraphInstantiateWithFlags") == 0;
    bool quiet = gives_back(function);
    struct program p;
    struct ts_error err;
    enum ts_status status = with_fault(function, nth, CUDA_OUT_OF_MEMORY, false, &p, &err);
    expect(function, nth, "out of memory", status, quiet ? TS_OK : TS_ENOMEM);
    assert_false(p.faulty);
    status = with_fault(function, nth, UNSUPPORTED, false, &p, &err);
    expect(function, nth, "not supported", status, quiet ? TS_OK : refusable ? TS_EUNSUPPORTED : TS_EIO);
    status = with_fault(function, nth, LOST, true, &p, &err);
    if (status == TS_OK && !quiet && strcmp(function, "cuStreamSynchronize") != 0)
        fail_msg("call %u of %s: the device is lost and nobody says so", nth, function);
    if (status != TS_OK)
        expect(function, nth, "lost", status, TS_EIO);
}

/* Whether the failing of this call can be seen by the program: closing asks too, and does not listen. */
static bool heard(const char *function, uint32_t nth, uint32_t calls)
{
    if (strcmp(function, "cuStreamSynchronize") == 0)
        return nth + 2 <= calls; /* two streams are closed */
    if (strcmp(function, "cuCtxSetCurrent") == 0)
        return nth + 8 <= calls; /* eight objects are given back */
    return true;
}

/* Called by other tests: at loading, and by another process. */
static bool elsewhere(const char *function)
{
    static const char *const names[] = {"cuInit", "cuGetErrorName", "cuIpcOpenMemHandle_v2",
                                        "cuIpcCloseMemHandle"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        found |= strcmp(names[i], function) == 0;
    return found;
}

static void test_every_call(void **state)
{
    uint32_t counts[FUNCTIONS], tried = 0;
    struct program p;
    struct ts_error err;
    (void)state;
    emulated->set_faults("");
    if (run(&p, &err) != TS_OK)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < FUNCTIONS; i++) {
        counts[i] = emulated->calls(functions[i]);
        if (counts[i] == 0 && !elsewhere(functions[i]))
            fail_msg("the program does not call %s", functions[i]);
    }
    for (size_t i = 0; i < FUNCTIONS; i++) {
        /* Of kernels, what the first calls show shows all: each has three. */
        bool each_kernel = strstr(functions[i], "cuFunc") || strstr(functions[i], "cuModuleGet");
        uint32_t most = each_kernel && counts[i] > 3 ? 3 : counts[i];
        for (uint32_t nth = 1; nth <= most; nth++) {
            if (heard(functions[i], nth, counts[i])) {
                check_call(functions[i], nth);
                tried++;
            }
        }
    }
    print_message("%u calls failed in turn, in three ways\n", tried);
    assert_true(tried > 100);
    emulated->set_faults("");
    assert_int_equal(run(&p, &err), TS_OK); /* and all is well again */
}

/* A capture that the driver calls off is no fault of the device. */
static void test_capture_called_off(void **state)
{
    struct program p;
    struct ts_error err;
    (void)state;
    enum ts_status status = with_fault("cuMemsetD8Async", 2, CUDA_CAPTURE_UNSUPPORTED + 1, false, &p, &err);
    assert_int_equal(status, TS_EUNSUPPORTED);
    assert_false(p.faulty);
}

/* The process that maps the memory of another, over the driver that stands before that of the tests. */
static void test_import(void **state)
{
    static const struct {
        const char *fault;
        enum ts_status status;
    } cases[] = {{"TS_FAULT=cuIpcOpenMemHandle_v2:1:801", TS_EUNSUPPORTED},
                 {"TS_FAULT=cuIpcOpenMemHandle_v2:2:801", TS_EUNSUPPORTED},
                 {"TS_FAULT=cuIpcOpenMemHandle_v2:1:2", TS_ENOMEM},
                 {"TS_FAULT=cuIpcOpenMemHandle_v2:1:719:sticky", TS_EIO},
                 {"TS_FAULT=cuIpcCloseMemHandle:1:801", TS_OK},
                 {"TS_FAULT=cuIpcCloseMemHandle:1:719:sticky", TS_EIO},
                 {"TS_FAULT=cuMemcpyDtoHAsync_v2:1:700:sticky", TS_EIO}};
    static uint8_t bytes[CUDA_CHILD_BYTES];
    struct ts_error err = {0};
    struct ts_cuda *cuda;
    struct ts_cuda_share share;
    ts_cuda_address at;
    (void)state;
    assert_int_equal(ts_cuda_open(0, &cuda, &err), TS_OK);
    assert_int_equal(ts_cuda_alloc(cuda, CUDA_CHILD_BYTES, &at, &err), TS_OK);
    assert_int_equal(ts_cuda_export(cuda, at, &share, &err), TS_OK);
    cuda_child_fill(bytes, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const variables[] = {"TS_CUDA_DRIVER=" TS_FAULT_DRIVER, cases[i].fault, NULL};
        assert_int_equal(ts_cuda_upload(cuda, at, bytes, CUDA_CHILD_BYTES, &err), TS_OK);
        assert_int_equal(cuda_child_import(&share, variables), cases[i].status);
    }
    ts_cuda_free(cuda, &at);
    assert_int_equal(cuda_child_import(&share, NULL), TS_EUNSUPPORTED); /* of memory that is gone */
    ts_cuda_close(&cuda);
    emulated_nothing_left();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call),
        cmocka_unit_test(test_capture_called_off),
        cmocka_unit_test(test_import),
    };
    struct ts_error err;
    struct ts_cuda *cuda;
    int status;
    if (cuda_child_main(argc, argv, &status))
        return status;
    if (!emulated_find() || ts_cuda_open(0, &cuda, &err) != TS_OK)
        return 1;
    ts_cuda_close(&cuda); /* cuInit is called once, and has its test in test_cuda_driver */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
