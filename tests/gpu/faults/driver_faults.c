#include "tests/gpu/faults/driver_faults.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
static int lost;          /* result of all calls from now on */
static const char *since; /* a path: nothing counts before it is there; NULL = it is */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* --- what is to fail ------------------------------------------------------------------------------------ */

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

void driver_faults_set(const char *text)
{
    pthread_mutex_lock(&lock);
    char *copy = strdup(text ? text : ""), *rest = copy, *item;
    fault_count = function_count = 0;
    lost = 0;
    since = NULL;
    while ((item = strsep(&rest, ",")) != NULL) {
        if (*item)
            add_fault(item);
    }
    free(copy);
    pthread_mutex_unlock(&lock);
}

/* The program's name is behind the last slash of the first word. */
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

void driver_faults_from_environment(void)
{
    const char *only = getenv("TS_FAULT_IN"), *path = getenv("TS_FAULT_SINCE");
    driver_faults_set(!only || !*only || started_with(only) ? getenv("TS_FAULT") : NULL);
    since = path && *path ? path : NULL;
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

uint32_t driver_faults_calls(const char *name)
{
    uint32_t count = 0;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < function_count; i++)
        count += strcmp(functions[i].name, name) == 0 ? functions[i].calls : 0;
    pthread_mutex_unlock(&lock);
    return count;
}

/* Whether calls count by now. */
static bool counts(void)
{
    if (since && access(since, F_OK) == 0)
        since = NULL;
    return !since;
}

int driver_faults_next(const char *name)
{
    int result = 0;
    pthread_mutex_lock(&lock);
    if (counts()) {
        uint32_t nth = ++function_of(name)->calls;
        result = lost;
        for (uint32_t i = 0; result == 0 && i < fault_count; i++) {
            if (faults[i].nth == nth && strcmp(faults[i].function, name) == 0) {
                result = faults[i].result;
                lost = faults[i].sticky ? result : 0;
            }
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}
