#include "tests/gpu/cuda_child.h"

#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"

void cuda_child_fill(uint8_t *bytes, uint32_t seed)
{
    for (uint32_t i = 0; i < CUDA_CHILD_BYTES; i++)
        bytes[i] = (uint8_t)((i * 2654435761u ^ seed * 40503u) >> 13);
}

/* --- the child ------------------------------------------------------------------------------------------ */

static enum ts_status use(struct ts_cuda *cuda, ts_cuda_address at, struct ts_error *err)
{
    uint8_t *found = ts_xmalloc(CUDA_CHILD_BYTES), *wanted = ts_xmalloc(CUDA_CHILD_BYTES);
    cuda_child_fill(wanted, 1);
    enum ts_status status = ts_cuda_download(cuda, found, at, CUDA_CHILD_BYTES, err);
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    if (status == TS_OK && memcmp(found, wanted, CUDA_CHILD_BYTES) != 0)
        status = ts_error_set(err, TS_ECORRUPT, "other bytes than the exporter wrote");
    cuda_child_fill(wanted, 2);
    if (status == TS_OK)
        status = ts_cuda_upload(cuda, at, wanted, CUDA_CHILD_BYTES, err);
    if (status == TS_OK)
        status = ts_cuda_wait(cuda, err);
    ts_free(found);
    ts_free(wanted);
    return status;
}

static enum ts_status import(const char *text, struct ts_error *err)
{
    struct ts_cuda_share share;
    struct ts_cuda *cuda;
    ts_cuda_address first = 0, second = 0;
    for (size_t i = 0; i < sizeof share.bytes; i++) {
        char digits[3] = {text[2 * i], text[2 * i + 1], '\0'};
        share.bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    enum ts_status status = ts_cuda_open(0, &cuda, err);
    if (status != TS_OK)
        return status;
    status = ts_cuda_import(cuda, &share, &first, err);
    if (status == TS_OK)
        status = ts_cuda_import(cuda, &share, &second, err);
    if (status == TS_OK && first != second)
        status = ts_error_set(err, TS_EINVAL, "the second import is at another address");
    ts_cuda_unimport(cuda, &second);
    if (status == TS_OK)
        status = use(cuda, first, err);
    ts_cuda_unimport(cuda, &first);
    ts_cuda_close(&cuda);
    return status;
}

bool cuda_child_main(int argc, char **argv, int *status)
{
    struct ts_error err = {0};
    struct ts_cuda *cuda = NULL;
    if (argc != 3)
        return false;
    if (strcmp(argv[1], "import") == 0) {
        *status = (int)import(argv[2], &err);
    } else {
        *status = (int)ts_cuda_open((uint32_t)atoi(argv[2]), &cuda, &err);
        ts_cuda_close(&cuda);
    }
    printf("%s", err.text);
    return true;
}

/* --- the parent ----------------------------------------------------------------------------------------- */

static bool named_alike(const char *a, const char *b)
{
    size_t length = strcspn(a, "=") + 1;
    return strncmp(a, b, length) == 0;
}

/* Ours, and those of this process with other names. */
static char *const *environment_with(const char *const *variables, char **out, size_t size)
{
    size_t count = 0, ours;
    for (const char *const *v = variables; v && *v; v++)
        out[count++] = (char *)(uintptr_t)*v; /* read, not written */
    ours = count;
    for (char **e = environ; *e && count + 1 < size; e++) {
        bool replaced = false;
        for (size_t i = 0; i < ours; i++)
            replaced |= named_alike(out[i], *e);
        if (!replaced)
            out[count++] = *e;
    }
    out[count] = NULL;
    return out;
}

static int run(const char *mode, const char *argument, const char *const *variables, char *said, size_t size)
{
    char *changed[512], program[] = "/proc/self/exe", first[16], second[160];
    char *arguments[] = {program, first, second, NULL};
    posix_spawn_file_actions_t actions;
    int pipes[2], status;
    size_t count = 0;
    ssize_t got;
    pid_t pid;
    snprintf(first, sizeof first, "%s", mode);
    snprintf(second, sizeof second, "%s", argument);
    assert_int_equal(pipe(pipes), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, pipes[0]);
    posix_spawn_file_actions_addclose(&actions, pipes[1]);
    assert_int_equal(posix_spawn(&pid, program, &actions, NULL, arguments,
                                 environment_with(variables, changed, sizeof changed / sizeof *changed)),
                     0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipes[1]);
    while (count + 1 < size && (got = read(pipes[0], said + count, size - count - 1)) > 0)
        count += (size_t)got;
    said[count] = '\0';
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

enum ts_status cuda_child_import(const struct ts_cuda_share *share, const char *const *variables)
{
    char text[2 * sizeof share->bytes + 1], said[700];
    for (size_t i = 0; i < sizeof share->bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", share->bytes[i]);
    enum ts_status status = (enum ts_status)run("import", text, variables, said, sizeof said);
    if (status != TS_OK)
        print_message("the other process: %s\n", said);
    return status;
}

enum ts_status cuda_child_open(const char *const *variables, char *said, size_t size)
{
    return (enum ts_status)run("open", "0", variables, said, size);
}
