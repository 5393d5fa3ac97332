/*
 * Delta debugging (Zeller and Hildebrandt, IEEE TSE 28, 2002): halves, quarters, ... of what is left are left
 * out as long as the run fails in the same words.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/sim_impl.h"

void sim_run_apart(const struct sim_options *options, struct sim_result *out)
{
    int ends[2], status = 0;
    *out = (struct sim_result){.ok = false};
    snprintf(out->why, sizeof out->why, "no process to run it in");
    if (pipe(ends) != 0)
        return;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        sim_run(options, out);
        ssize_t wrote = write(ends[1], out, sizeof *out);
        fflush(NULL);
        _exit(wrote == (ssize_t)sizeof *out ? 0 : 1);
    }
    close(ends[1]);
    size_t got = 0;
    while (child > 0 && got < sizeof *out) {
        ssize_t n = read(ends[0], (char *)out + got, sizeof *out - got);
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    close(ends[0]);
    if (child > 0 && waitpid(child, &status, 0) == child && got < sizeof *out) {
        *out = (struct sim_result){.ok = false};
        snprintf(out->why, sizeof out->why, "the process was ended by signal %d: see the assertion above",
                 WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    }
}

/* Words without the numbers in them. */
static void words_of(const char *why, char *out, size_t size)
{
    size_t n = 0;
    const char *from = strstr(why, ": ");
    for (const char *p = from ? from : why; *p && n + 1 < size; p++) {
        if (*p < '0' || *p > '9')
            out[n++] = *p;
    }
    out[n] = '\0';
}

struct shrink {
    struct sim_options options;
    char words[200];
    uint32_t runs, most;
    struct sim_result *result;
};

static bool fails_alike(struct shrink *s)
{
    struct sim_result *r = malloc(sizeof *r);
    char words[200];
    if (!r)
        return false;
    s->runs++;
    sim_run_apart(&s->options, r);
    words_of(r->why, words, sizeof words);
    bool alike = !r->ok && strncmp(words, s->words, 40) == 0;
    if (alike)
        *s->result = *r;
    free(r);
    return alike;
}

static void reduce(struct shrink *s, bool *mask, uint32_t size)
{
    bool before[SIM_REQUESTS_MAX];
    uint32_t at[SIM_REQUESTS_MAX], left = 0;
    for (uint32_t i = 0; i < size; i++) {
        if (mask[i])
            at[left++] = i;
    }
    for (uint32_t part = left; part >= 1 && s->runs < s->most; part /= 2) {
        for (uint32_t from = 0; from < left && s->runs < s->most;) {
            uint32_t count = part < left - from ? part : left - from;
            memcpy(before, mask, size * sizeof *mask);
            for (uint32_t i = 0; i < count; i++)
                mask[at[from + i]] = false;
            if (fails_alike(s)) {
                memmove(&at[from], &at[from + count], (left - from - count) * sizeof *at);
                left -= count;
            } else {
                memcpy(mask, before, size * sizeof *mask);
                from += count;
            }
        }
    }
}

uint32_t sim_shrink(uint64_t seed, bool *faults, bool *requests, uint32_t runs, struct sim_result *out)
{
    struct shrink s = {
        .options = {.seed = seed, .faults = faults, .requests = requests}, .most = runs, .result = out};
    words_of(out->why, s.words, sizeof s.words);
    if (!fails_alike(&s))
        return s.runs;
    reduce(&s, faults, SIM_FAULTS_MAX);
    reduce(&s, requests, SIM_REQUESTS_MAX);
    reduce(&s, faults, SIM_FAULTS_MAX);
    return s.runs;
}
