/*
 * Worlds by seed.
 *
 * - ts-sim-seed --seed N [--faults LIST] [--requests LIST] [--trace]: one, or what the lists leave of it.
 * - ts-sim-seed --from N --count N [--json] [--stop]: many; --json: sums as one line at the end.
 *
 * Of a seed that breaks an invariant it prints what is broken, the smallest script that still breaks it, the
 * command that repeats it, and the last events; then exits with 1.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim.h"

#define SEED_CPU_S 10 /* a thousand times what a seed takes: it does not come to an end */

struct arguments {
    uint64_t seed, from, count;
    bool one, trace, json, stop, masked_faults, masked_requests, calm;
    bool faults[SIM_FAULTS_MAX], requests[SIM_REQUESTS_MAX];
};

static volatile sig_atomic_t seed_low, seed_high; /* of the run under way, for the handler */

/* An assertion of a core, or a step without end, ends the process: say of which seed. */
static void on_abort(int signal_number)
{
    char text[64] = "aborted ";
    size_t n = strlen(text);
    char digits[24];
    size_t count = 0;
    uint64_t seed = (uint64_t)(uint32_t)seed_high << 32 | (uint32_t)seed_low;
    do
        digits[count++] = (char)('0' + seed % 10);
    while ((seed /= 10) > 0);
    while (count > 0)
        text[n++] = digits[--count];
    text[n++] = '\n';
    if (write(STDOUT_FILENO, text, n) < 0)
        _exit(3);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void print_line(void *context, const char *text)
{
    (void)context;
    puts(text);
}

static int usage(void)
{
    fputs("usage: ts-sim-seed --seed N [--faults LIST] [--requests LIST] [--calm] [--trace]\n"
          "       ts-sim-seed --from N --count N [--json] [--stop]\n"
          "LIST: 0,3-5 or none\n",
          stderr);
    return 2;
}

static bool parse(int argc, char **argv, struct arguments *a)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--trace") == 0) {
            a->trace = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            a->json = true;
        } else if (strcmp(argv[i], "--calm") == 0) {
            a->calm = true;
        } else if (strcmp(argv[i], "--stop") == 0) {
            a->stop = true;
        } else if (!value) {
            return false;
        } else if (strcmp(argv[i], "--seed") == 0) {
            a->one = true;
            a->seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--from") == 0) {
            a->from = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--count") == 0) {
            a->count = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--faults") == 0) {
            a->masked_faults = sim_mask_read(argv[++i], a->faults, SIM_FAULTS_MAX);
        } else if (strcmp(argv[i], "--requests") == 0) {
            a->masked_requests = sim_mask_read(argv[++i], a->requests, SIM_REQUESTS_MAX);
        } else {
            return false;
        }
    }
    return a->one != (a->count > 0);
}

static void print_result(const char *what, const struct sim_result *r)
{
    const struct cloud_counts *c = &r->counts;
#define N(field) (unsigned long long)(field)
    printf("%s: steps %llu, faults %llu, requests %llu: completed %llu cancelled %llu late %llu failed %llu "
           "refused %llu, "
           "retries %llu resyncs %llu preempted %llu refeeds %llu\n",
           what, N(r->steps), N(r->faults), N(r->requests), N(r->completed), N(r->cancelled), N(r->late),
           N(r->failed), N(r->refused), N(r->retries), N(r->resyncs), N(r->preempted), N(r->refeeds));
    printf(
        "  messages %llu lost %llu again %llu cuts %llu corrupted %llu kills %llu batches %llu encodes %llu "
        "scatters %llu, %.1f virtual s\n",
        N(c->messages), N(c->lost), N(c->duplicates), N(c->cuts), N(c->corrupted), N(c->kills), N(c->batches),
        N(c->encodes), N(c->scatters), r->virtual_s);
#undef N
}

static void print_json(const struct arguments *a, const struct sim_result *r, uint64_t failed)
{
    printf("{\"from\":%llu,\"count\":%llu,\"failed\":%llu,\"cpu_s\":%.3f,\"steps\":%llu,\"requests\":%llu,"
           "\"faults\":%llu,"
           "\"virtual_s\":%.1f,\"completed\":%llu,\"kinds\":{",
           (unsigned long long)a->from, (unsigned long long)a->count, (unsigned long long)failed,
           (double)clock() / CLOCKS_PER_SEC, (unsigned long long)r->steps, (unsigned long long)r->requests,
           (unsigned long long)r->faults, r->virtual_s, (unsigned long long)r->completed);
    for (uint32_t k = 0; k < SIM_FAULT_KIND_COUNT; k++) {
        printf("%s\"%s\":{\"happened\":%llu", k ? "," : "", sim_fault_names[k],
               (unsigned long long)r->matrix.happened[k]);
        for (uint32_t s = 0; s < SIM_STATE_COUNT; s++)
            printf(",\"%s\":%llu", sim_state_names[s], (unsigned long long)r->matrix.met[k][s]);
        printf("}");
    }
    printf("}}\n");
}

static int run_one(const struct arguments *a)
{
    struct sim_options options = {.seed = a->seed,
                                  .calm = a->calm,
                                  .faults = a->masked_faults ? a->faults : NULL,
                                  .requests = a->masked_requests ? a->requests : NULL,
                                  .line = a->trace ? print_line : NULL};
    static struct sim_result r;
    bool whole = !a->masked_faults && !a->masked_requests && !a->trace && !a->calm;
    if (whole)
        sim_run_apart(&options, &r);
    else
        sim_run(&options, &r);
    print_result(r.ok ? "ok" : r.why, &r);
    printf("  digest %016llx\n", (unsigned long long)r.digest);
    if (!r.ok && whole)
        sim_explain(a->seed, &r);
    return !r.ok;
}

static int run_many(const struct arguments *a)
{
    static struct sim_result sum, r;
    uint64_t failed = 0;
    for (uint64_t seed = a->from; seed < a->from + a->count; seed++) {
        struct sim_options options = {.seed = seed, .undigested = true};
        seed_low = (sig_atomic_t)(uint32_t)seed;
        seed_high = (sig_atomic_t)(uint32_t)(seed >> 32);
        setitimer(ITIMER_PROF, &(struct itimerval){.it_value = {.tv_sec = SEED_CPU_S}}, NULL);
        sim_run(&options, &r);
        sim_add(&sum, &r);
        if (r.ok)
            continue;
        failed++;
        if (a->json)
            printf("failed %llu %s\n", (unsigned long long)seed, r.why);
        else
            sim_explain(seed, &r);
        if (a->stop)
            break;
    }
    if (a->json)
        print_json(a, &sum, failed);
    else
        print_result("all", &sum);
    return failed > 0;
}

int main(int argc, char **argv)
{
    static struct arguments a;
    a.from = 1;
    if (!parse(argc, argv, &a))
        return usage();
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGABRT, on_abort);
    signal(SIGSEGV, on_abort);
    signal(SIGPROF, on_abort);
    return a.one ? run_one(&a) : run_many(&a);
}
