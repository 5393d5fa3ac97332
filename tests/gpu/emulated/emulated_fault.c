/* Calls that are told to fail, and what is left of them. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/emulated/emulated.h"

#define FUNCTIONS_MAX 64
#define FAULTS_MAX    16

static struct function {
    const char *name; /* the driver's own text */
    uint32_t calls;
} functions[FUNCTIONS_MAX];

static struct fault {
    char function[64];
    uint32_t nth;
    int result;
    bool sticky;
} faults[FAULTS_MAX];

static uint32_t function_count, fault_count;
static int lost; /* result of all calls from now on */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t environment = PTHREAD_ONCE_INIT;
static atomic_int left[EMULATED_KINDS];

_Thread_local int emulated_device = -1;
_Thread_local CUstream emulated_capture;

uint64_t emulated_number(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* --- what is to fail ------------------------------------------------------------------------------------ */

/* A text that cannot be read ends the program: a test that injects nothing would pass. */
static void add_fault(char *text)
{
    char *rest = text, *function = strsep(&rest, ":"), *nth = strsep(&rest, ":"),
         *result = strsep(&rest, ":");
    if (!nth || !result || fault_count == FAULTS_MAX || strlen(function) >= sizeof faults->function ||
        (rest && strcmp(rest, "sticky") != 0) || atoi(nth) <= 0 || atoi(result) <= 0)
        abort();
    struct fault *f = &faults[fault_count++];
    strcpy(f->function, function);
    f->nth = (uint32_t)atoi(nth);
    f->result = atoi(result);
    f->sticky = rest != NULL;
}

static void set_locked(const char *text)
{
    char *copy = strdup(text ? text : ""), *rest = copy, *item;
    fault_count = function_count = 0;
    lost = 0;
    while ((item = strsep(&rest, ",")) != NULL) {
        if (*item)
            add_fault(item);
    }
    free(copy);
}

/* Whether the program has that name, or was started with that word, such as the name of a service. */
static bool started_with(const char *word)
{
    char line[4096];
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t bytes = file ? fread(line, 1, sizeof line - 1, file) : 0;
    bool found = false;
    line[bytes] = '\0';
    for (size_t at = 0; at < bytes && !found; at += strlen(line + at) + 1) {
        const char *name = at == 0 ? strrchr(line, '/') : NULL;
        found = strcmp(name ? name + 1 : line + at, word) == 0;
    }
    if (file)
        fclose(file);
    return found;
}

static void read_environment(void)
{
    const char *only = getenv("TS_FAULT_IN");
    set_locked(!only || !*only || started_with(only) ? getenv("TS_FAULT") : NULL);
}

static void set_faults(const char *text)
{
    pthread_once(&environment, read_environment);
    pthread_mutex_lock(&lock);
    set_locked(text);
    pthread_mutex_unlock(&lock);
}

/* --- calls ---------------------------------------------------------------------------------------------- */

static struct function *function_of(const char *name)
{
    uint32_t i = 0;
    while (i < function_count && strcmp(functions[i].name, name) != 0)
        i++;
    if (i == FUNCTIONS_MAX)
        abort();
    if (i == function_count)
        functions[function_count++] = (struct function){name, 0};
    return &functions[i];
}

static uint32_t calls(const char *name)
{
    uint32_t count = 0;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < function_count; i++)
        count += strcmp(functions[i].name, name) == 0 ? functions[i].calls : 0;
    pthread_mutex_unlock(&lock);
    return count;
}

static CUresult told_to_return(const char *name)
{
    pthread_mutex_lock(&lock);
    uint32_t nth = ++function_of(name)->calls;
    CUresult result = lost;
    for (uint32_t i = 0; result == 0 && i < fault_count; i++) {
        if (faults[i].nth == nth && strcmp(faults[i].function, name) == 0) {
            result = faults[i].result;
            lost = faults[i].sticky ? result : 0;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult emulated_enter(const char *function, int needs)
{
    pthread_once(&environment, read_environment);
    CUresult result = told_to_return(function);
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

const struct emulated_driver ts_cuda_is_emulated = {set_faults, calls, left_of};
