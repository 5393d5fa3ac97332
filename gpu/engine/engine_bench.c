/*
 * ts-engine-bench: speed of the CPU engine against what the machine can do at the same moment. Each measured
 * run stands between two runs of its probe; its ratio is against their mean, so a drifting host moves both.
 * A run during which other processes took more than 3 % of the cores is discarded; when all were, the best is
 * printed all the same and marked as disturbed. `cpu_ratio` is the median of the same ratio by processor time
 * instead of the clock: what the work costs when others take the cores; waiting asleep is not in it. CSV on
 * stdout, remarks on stderr.
 *
 * Prefill: operations are 2 x layer-matrix parameters x tokens + causal attention + lm_head of one position,
 * against registers-only arithmetic. Decode: bytes are the packed weights and the keys and values of a step,
 * against reading a buffer of that size. Two engines: two processes with as many threads as there are cores
 * each, against one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/ts_clock.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/cpu/cpu_level.h"
#include "gpu/cpu/cpu_probe.h"
#include "gpu/engine/random_model.h"
#include "gpu/ts_engine.h"

#define PREFILL    512u
#define ROWS       16u
#define PROMPT     64u
#define STEPS      8u
#define DISTURBED  0.03
#define ROUNDS_MAX 100u
#define TWO_NS     (2 * TS_S)

static const struct {
    const char *name;
    struct ts_random_model model;
} models[] = {
    {"110m",
     {.type = "llama",
      .hidden = 768,
      .intermediate = 2048,
      .layers = 12,
      .heads = 12,
      .kv_heads = 12,
      .head_dim = 64,
      .vocab = 32000,
      .context = 2048,
      .tied = true,
      .dtype = TS_DTYPE_BF16,
      .gain = 1,
      .seed = 1}},
    {"1.1b",
     {.type = "llama",
      .hidden = 2048,
      .intermediate = 5632,
      .layers = 22,
      .heads = 32,
      .kv_heads = 4,
      .head_dim = 64,
      .vocab = 32000,
      .context = 2048,
      .dtype = TS_DTYPE_BF16,
      .gain = 1,
      .seed = 2}},
};

struct bench {
    const char *name;
    char dir[512];
    struct ts_engine *engine;
    const struct ts_model *model;
    struct cpu_threads *threads; /* of the probes */
    uint32_t thread_count;
    uint8_t *buffer; /* read by the probe */
    size_t buffer_bytes;
    uint32_t *tokens; /* [PREFILL] */
    uint32_t *blocks; /* [ROWS][blocks of PREFILL] */
};

/* One measured run between its probes: rates by the clock and by processor time. */
struct run {
    double floor, reached, cpu_floor, cpu_reached;
    bool disturbed;
};

struct busy {
    double all, own; /* seconds of processor time */
    ts_time at;
};

static double own_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct busy busy_now(void)
{
    struct busy b = {.at = ts_clock_now()};
    unsigned long long v[8] = {0};
    FILE *f = fopen("/proc/stat", "r");
    if (f && fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4],
                    &v[5], &v[6], &v[7]) == 8)
        b.all = (double)(v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) / (double)sysconf(_SC_CLK_TCK);
    if (f)
        fclose(f);
    b.own = own_seconds();
    return b;
}

/* Whether others (steal and nice included) took more than their share in between. The kernel counts in ticks
 * of 10 ms, so two of them pass. */
static bool disturbed(const struct busy *before, struct busy now)
{
    double seconds = (double)(now.at - before->at) * 1e-9 * (double)sysconf(_SC_NPROCESSORS_ONLN);
    double others = now.all - before->all - (now.own - before->own);
    return others > DISTURBED * seconds + 0.02;
}

static void die(const char *what, const struct ts_error *err)
{
    fprintf(stderr, "ts-engine-bench: %s: %s\n", what, err->text);
    exit(1);
}

static void open_engine(struct bench *b)
{
    struct ts_error err;
    uint32_t blocks = ts_kv_blocks_for(PREFILL);
    struct ts_engine_options options = {.model_dir = b->dir,
                                        .device = "cpu",
                                        .kv_blocks = ROWS * blocks,
                                        .threads = b->thread_count,
                                        .max_batch_tokens = PREFILL,
                                        .max_batch_rows = ROWS};
    if (ts_engine_open(&options, &b->engine, &err) != TS_OK)
        die(b->dir, &err);
    b->model = &ts_engine_info(b->engine)->model;
    b->tokens = ts_xcalloc(PREFILL, sizeof *b->tokens);
    b->blocks = ts_xcalloc(ROWS * blocks, sizeof *b->blocks);
    struct ts_rng rng;
    ts_rng_init(&rng, 3);
    for (uint32_t i = 0; i < PREFILL; i++)
        b->tokens[i] = (uint32_t)ts_rng_below(&rng, b->model->vocab);
    for (uint32_t i = 0; i < ROWS * blocks; i++)
        b->blocks[i] = i;
}

static void close_engine(struct bench *b)
{
    ts_engine_close(&b->engine);
    ts_free(b->tokens);
    ts_free(b->blocks);
}

/* `rows` sequences compute `count` tokens each; the last positions are sampled. */
static void compute(struct bench *b, uint32_t rows, uint32_t position, uint32_t count)
{
    static const struct ts_sampling greedy = {.top_p = 1, .repetition_penalty = 1, .max_tokens = 1};
    struct ts_engine_row row[ROWS];
    struct ts_engine_event event;
    struct ts_error err;
    for (uint32_t i = 0; i < rows; i++)
        row[i] = (struct ts_engine_row){.position = position,
                                        .token_count = count,
                                        .tokens = b->tokens + position,
                                        .blocks = b->blocks + i * ts_kv_blocks_for(PREFILL),
                                        .block_count = ts_kv_blocks_for(PREFILL),
                                        .sample = true,
                                        .sampling = &greedy};
    struct ts_engine_batch batch = {.rows = row, .row_count = rows};
    if (ts_engine_submit(b->engine, &batch, &err) != TS_OK)
        die("submit", &err);
    ts_engine_wait(b->engine, &event);
}

static double layer_parameters(const struct ts_model *m)
{
    double q = (double)m->heads * m->head_dim, kv = (double)m->kv_heads * m->head_dim;
    return m->layers * (double)m->hidden * (2 * q + 2 * kv + 3.0 * m->intermediate);
}

static double prefill_operations(const struct ts_model *m)
{
    double pairs = PREFILL * (PREFILL + 1.0) / 2; /* of a query and a key */
    return 2 * layer_parameters(m) * PREFILL + 4.0 * m->layers * m->heads * m->head_dim * pairs +
           2.0 * m->vocab * m->hidden;
}

static double step_bytes(const struct ts_model *m, uint32_t rows)
{
    double weights = (layer_parameters(m) + (double)m->vocab * m->hidden) * ts_dtype_bytes(m->weight_dtype);
    return weights + (double)rows * (PROMPT + STEPS / 2.0) * (double)ts_model_kv_token_bytes(m);
}

struct stopwatch {
    ts_time wall;
    double cpu;
};

static struct stopwatch start(void)
{
    return (struct stopwatch){ts_clock_now(), own_seconds()};
}

/* Adds half of the rate of `work` since the start. */
static void add_half(const struct bench *b, const struct stopwatch *since, double work, double *wall,
                     double *cpu)
{
    *wall += work / ((double)(ts_clock_now() - since->wall) * 1e-9) / 2;
    *cpu += work * b->thread_count / (own_seconds() - since->cpu) / 2;
}

static void probe_arithmetic(struct bench *b, enum cpu_probe probe, struct run *r)
{
    struct stopwatch watch = start();
    add_half(b, &watch, cpu_probe_flops(probe, b->threads), &r->floor, &r->cpu_floor);
}

static void probe_memory(struct bench *b, struct run *r)
{
    struct stopwatch watch = start();
    cpu_probe_read(b->buffer, b->buffer_bytes, b->threads);
    add_half(b, &watch, (double)b->buffer_bytes, &r->floor, &r->cpu_floor);
}

static void decode(struct bench *b, uint32_t rows)
{
    for (uint32_t i = 0; i < STEPS; i++)
        compute(b, rows, PROMPT + i, 1);
}

static void probe_one_row(struct bench *b, struct run *r)
{
    struct stopwatch watch = start();
    decode(b, 1);
    add_half(b, &watch, STEPS, &r->floor, &r->cpu_floor);
}

static struct run run_prefill(struct bench *b, enum cpu_probe probe)
{
    struct busy before = busy_now();
    struct run r = {0};
    probe_arithmetic(b, probe, &r);
    struct stopwatch watch = start();
    compute(b, 1, 0, PREFILL);
    add_half(b, &watch, 2 * prefill_operations(b->model), &r.reached, &r.cpu_reached);
    probe_arithmetic(b, probe, &r);
    r.disturbed = disturbed(&before, busy_now());
    return r;
}

static struct run run_decode(struct bench *b)
{
    struct busy before = busy_now();
    struct run r = {0};
    probe_memory(b, &r);
    struct stopwatch watch = start();
    decode(b, 1);
    add_half(b, &watch, 2 * STEPS * step_bytes(b->model, 1), &r.reached, &r.cpu_reached);
    probe_memory(b, &r);
    r.disturbed = disturbed(&before, busy_now());
    return r;
}

/* Tokens per second of a batch against those of one row. */
static struct run run_batch(struct bench *b)
{
    struct busy before = busy_now();
    struct run r = {0};
    probe_one_row(b, &r);
    struct stopwatch watch = start();
    decode(b, ROWS);
    add_half(b, &watch, 2.0 * STEPS * ROWS, &r.reached, &r.cpu_reached);
    probe_one_row(b, &r);
    r.disturbed = disturbed(&before, busy_now());
    return r;
}

static int by_ratio(const void *a, const void *b)
{
    const struct run *x = a, *y = b;
    double p = x->reached / x->floor, q = y->reached / y->floor;
    return (p > q) - (p < q);
}

static double median_cpu_ratio(const struct run *runs, uint32_t count)
{
    double ratios[ROUNDS_MAX] = {0};
    for (uint32_t i = 0; i < count; i++) {
        double ratio = runs[i].cpu_floor > 0 ? runs[i].cpu_reached / runs[i].cpu_floor : 0;
        uint32_t at = i;
        for (; at > 0 && ratios[at - 1] > ratio; at--)
            ratios[at] = ratios[at - 1];
        ratios[at] = ratio;
    }
    return ratios[count / 2];
}

/* The best and the median of the runs that nothing disturbed. */
static void print_runs(const struct bench *b, const char *what, const char *unit, double scale,
                       struct run *runs, uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!runs[i].disturbed) {
            struct run t = runs[kept];
            runs[kept++] = runs[i];
            runs[i] = t;
        }
    }
    uint32_t used = kept ? kept : count;
    qsort(runs, used, sizeof *runs, by_ratio);
    const struct run *best = &runs[used - 1], *median = &runs[used / 2];
    printf("%s,%s,%u,%s,%.4g,%.4g,%.3f,%.3f,%.3f,%u,%u,%s\n", b->name, what, b->thread_count, unit,
           best->floor / scale, best->reached / scale, best->reached / best->floor,
           median->reached / median->floor, median_cpu_ratio(runs, used), count, count - kept,
           kept ? "quiet" : "disturbed");
    fflush(stdout);
}

static void measure(struct bench *b, uint32_t rounds)
{
    struct run *runs = ts_xcalloc(rounds, sizeof *runs);
    ts_time begin = ts_clock_now();
    open_engine(b);
    fprintf(stderr, "%s, %u threads, %s: opened in %.2f s\n", b->name, b->thread_count,
            ts_engine_info(b->engine)->kind, (double)(ts_clock_now() - begin) * 1e-9);
    b->threads = cpu_threads_new(b->thread_count);
    compute(b, 1, 0, PREFILL); /* touches everything once */
    for (enum cpu_probe p = 0; p < CPU_PROBES; p++) {
        char what[64];
        if (cpu_probe_flops(p, b->threads) == 0)
            continue;
        for (uint32_t i = 0; i < rounds; i++)
            runs[i] = run_prefill(b, p);
        snprintf(what, sizeof what, "prefill-%u/%s-peak", PREFILL, cpu_probe_name(p));
        print_runs(b, what, "GFLOP/s", 1e9, runs, rounds);
    }
    for (uint32_t i = 0; i < ROWS; i += PREFILL / PROMPT)
        compute(b, PREFILL / PROMPT, 0, PROMPT);
    for (uint32_t i = 0; i < rounds; i++)
        runs[i] = run_decode(b);
    print_runs(b, "decode-1/read", "GB/s", 1e9, runs, rounds);
    for (uint32_t i = 0; i < rounds; i++)
        runs[i] = run_batch(b);
    print_runs(b, "decode-16/decode-1", "tokens/s", 1, runs, rounds);
    cpu_threads_destroy(&b->threads);
    close_engine(b);
    ts_free(runs);
}

/* The child of the two-engine measurement: says that it is open, waits for a line, computes for a while, says
 * how many tokens per second. */
static int child(const char *dir, bool prefill)
{
    struct bench b = {.name = "child"};
    char line[16];
    snprintf(b.dir, sizeof b.dir, "%s", dir);
    open_engine(&b);
    compute(&b, 1, 0, PREFILL);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        ts_time begin = ts_clock_now(), now = begin;
        double tokens = 0;
        for (uint32_t i = 0; now - begin < TWO_NS; i++, now = ts_clock_now()) {
            compute(&b, 1, prefill ? 0 : PROMPT + i % (PREFILL - PROMPT), prefill ? PREFILL : 1);
            tokens += prefill ? PREFILL : 1;
        }
        printf("%.6g\n", tokens / ((double)(now - begin) * 1e-9));
        fflush(stdout);
    }
    close_engine(&b);
    return 0;
}

struct helper {
    pid_t pid;
    FILE *to, *from;
};

static void start_helper(struct helper *h, const char *dir, bool prefill)
{
    int to[2], from[2];
    struct ts_error err;
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0 || (h->pid = fork()) < 0) {
        ts_error_set(&err, TS_EIO, "%s", strerror(errno));
        die("cannot start a second engine", &err);
    }
    if (h->pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        execl("/proc/self/exe", "ts-engine-bench", "--child", prefill ? "prefill" : "decode", dir,
              (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    h->to = fdopen(to[1], "w");
    h->from = fdopen(from[0], "r");
}

static double read_number(struct helper *h)
{
    char line[64];
    return fgets(line, sizeof line, h->from) ? strtod(line, NULL) : 0;
}

/* Adds what the helpers used to what this process did. */
static struct busy busy_of(const struct helper *h, uint32_t count)
{
    struct busy b = busy_now();
    for (uint32_t i = 0; i < count; i++) {
        char path[64];
        unsigned long long user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", (int)h[i].pid);
        FILE *f = fopen(path, "r"); /* the name in brackets is without blanks */
        if (f &&
            fscanf(f, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu", &user, &system) == 2)
            b.own += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
        if (f)
            fclose(f);
    }
    return b;
}

static double run_helpers(struct helper *h, uint32_t count)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        fputs("go\n", h[i].to);
        fflush(h[i].to);
    }
    for (uint32_t i = 0; i < count; i++)
        sum += read_number(&h[i]);
    return sum;
}

static void measure_two(struct bench *b, bool prefill, uint32_t rounds)
{
    struct helper h[2];
    struct run *runs = ts_xcalloc(rounds, sizeof *runs);
    for (uint32_t i = 0; i < 2; i++)
        start_helper(&h[i], b->dir, prefill);
    for (uint32_t i = 0; i < 2; i++)
        read_number(&h[i]); /* "ready" */
    for (uint32_t i = 0; i < rounds; i++) {
        struct busy before = busy_of(h, 2);
        runs[i].floor = run_helpers(h, 1) / 2;
        runs[i].reached = run_helpers(h, 2);
        runs[i].floor += run_helpers(h, 1) / 2;
        runs[i].disturbed = disturbed(&before, busy_of(h, 2));
    }
    for (uint32_t i = 0; i < 2; i++) {
        fclose(h[i].to);
        fclose(h[i].from);
        waitpid(h[i].pid, NULL, 0);
    }
    b->thread_count = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    print_runs(b, prefill ? "two-engines-prefill/one" : "two-engines-decode/one", "tokens/s", 1, runs,
               rounds);
    ts_free(runs);
}

static void bench_model(size_t index, const char *parent, uint32_t rounds)
{
    struct bench b = {.name = models[index].name};
    struct ts_error err;
    snprintf(b.dir, sizeof b.dir, "%s/%s-XXXXXX", parent, b.name);
    if (!mkdtemp(b.dir)) {
        ts_error_set(&err, TS_EIO, "%s", strerror(errno));
        die(b.dir, &err);
    }
    if (ts_random_model_write(&models[index].model, b.dir, &err) != TS_OK)
        die(b.dir, &err);
    uint32_t cores = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    for (b.thread_count = 1; b.thread_count <= cores; b.thread_count *= 2) {
        const struct ts_random_model *m = &models[index].model;
        struct ts_model shape = {.layers = m->layers,
                                 .hidden = m->hidden,
                                 .intermediate = m->intermediate,
                                 .heads = m->heads,
                                 .kv_heads = m->kv_heads,
                                 .head_dim = m->head_dim,
                                 .vocab = m->vocab,
                                 .weight_dtype = m->dtype,
                                 .kv_dtype = m->dtype};
        b.buffer_bytes = (size_t)step_bytes(&shape, 1);
        b.buffer = ts_xaligned((size_t)2 << 20, b.buffer_bytes);
        madvise(b.buffer, b.buffer_bytes, MADV_HUGEPAGE); /* as the weights lie */
        memset(b.buffer, 1, b.buffer_bytes);
        measure(&b, rounds);
        ts_free(b.buffer);
    }
    measure_two(&b, false, (rounds + 1) / 2);
    measure_two(&b, true, (rounds + 1) / 2);
    ts_random_model_remove(b.dir);
}

/* Arithmetic of one core of the reference machine, a quiet AMD EPYC of the Zen 4 generation. */
static const struct {
    enum cpu_probe probe;
    double flops_per_s;
} reference[] = {{CPU_PROBE_FP32, 117e9}, {CPU_PROBE_BF16, 234e9}};

static bool is_reference(char *name, size_t size)
{
    char line[256];
    bool bf16 = false;
    FILE *f = fopen("/proc/cpuinfo", "r");
    name[0] = '\0';
    while (f && fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (value && strncmp(line, "model name", 10) == 0)
            snprintf(name, size, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
        if (strncmp(line, "flags", 5) == 0)
            bf16 = strstr(line, " avx512_bf16") != NULL;
    }
    if (f)
        fclose(f);
    return bf16 && strstr(name, "AMD EPYC") != NULL;
}

/* Says whether the probe reads here what it should: within 5 % of the reference, or why not. */
static void compare_probe(uint32_t rounds)
{
    char name[128];
    bool same = is_reference(name, sizeof name);
    struct cpu_threads *one = cpu_threads_new(1);
    for (size_t i = 0; i < sizeof reference / sizeof *reference; i++) {
        double best = 0;
        bool quiet = false;
        for (uint32_t j = 0; j < rounds; j++) {
            struct busy before = busy_now();
            ts_time begin = ts_clock_now();
            double rate =
                cpu_probe_flops(reference[i].probe, one) / ((double)(ts_clock_now() - begin) * 1e-9);
            best = rate > best ? rate : best;
            quiet |= !disturbed(&before, busy_now());
        }
        double off = best / reference[i].flops_per_s - 1;
        const char *verdict = !same ? "another processor than the reference, not comparable"
                              : off > -0.05 && off < 0.05 ? "agrees within 5 %"
                              : quiet                     ? "does not agree: the host runs at another clock"
                                                          : "does not agree: other processes took the core";
        fprintf(stderr, "probe %s: %.1f GFLOP/s of a core of %s, reference %.0f (AMD EPYC Zen 4): %s\n",
                cpu_probe_name(reference[i].probe), best / 1e9, name, reference[i].flops_per_s / 1e9,
                verdict);
    }
    cpu_threads_destroy(&one);
}

int main(int argc, char **argv)
{
    uint32_t rounds = 5;
    const char *parent = "/tmp", *only = NULL;
    if (argc == 4 && strcmp(argv[1], "--child") == 0)
        return child(argv[3], strcmp(argv[2], "prefill") == 0);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--rounds") == 0)
            rounds = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--dir") == 0)
            parent = argv[i + 1];
        else if (strcmp(argv[i], "--model") == 0)
            only = argv[i + 1];
    }
    if (argc % 2 == 0 || rounds == 0 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: ts-engine-bench [--model 110m|1.1b] [--rounds N] [--dir FOLDER]\n");
        return 2;
    }
    compare_probe(rounds);
    printf("model,what,threads,unit,floor,reached,ratio,median_ratio,cpu_ratio,rounds,discarded,machine\n");
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (!only || strcmp(only, models[i].name) == 0)
            bench_model(i, parent, rounds);
    }
    return 0;
}
