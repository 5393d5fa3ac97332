/*
 * ts-sim-bench: what the simulation costs, one core. CPU seconds of this process; an event is one step of
 * one core.
 *
 *   decode          short prompts, long outputs, few replicas: output tokens per second, target 1,000,000
 *   decode-checks   the same with digests, KV cells and texts
 *   conversation    the Azure trace as recorded on 32 GPUs (paper-cloud, LLaMA-30B, a plan of `thunder`):
 *                   seconds, target 10
 *   large-part      20,000 requests on 1,024 GPUs
 *   large           1,000,000 of them: seconds, and the memory of the process
 *
 * Requests that did not get all their tokens are counted, and named on stderr: what became of them, and what
 * the router's trace says.
 *
 *   ts-sim-bench [--conf FOLDER] [--traces FOLDER] [NAME ...]     without names: the first three
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base/ts_mem.h"
#include "common/inputs/ts_inputs.h"
#include "common/inputs/ts_requests.h"
#include "services/cloud/cloud_site.h"
#include "services/planner/plan_algorithm.h"

#define CONVERSATION_RATE 5.4 /* requests/s of the trace */
#define SEARCH_WORK       20000
#define LARGE             UINT64_C(1000000) /* requests */
#define NAMED             20                /* failed requests, at most */
#define CONTEXT           16384u            /* the longest request of the trace has 14,050 + 1,000 tokens */

struct bench {
    const char *conf_dir, *traces;
    struct ts_catalogue *catalogue;
    struct ts_cluster *cluster;
    struct ts_model model;
    struct ts_demand demand;
    struct ts_plan *plan;
    bool checks;
};

static void fatal(const struct ts_error *err)
{
    fprintf(stderr, "ts-sim-bench: %s\n", err->text);
    exit(1);
}

static double cpu_s(double *peak_mb)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    *peak_mb = (double)usage.ru_maxrss / 1024;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* --- requests ---------------------------------------------------------------------------------------- */

struct stream {
    struct ts_requests *requests; /* NULL: equal ones */
    uint32_t prompt_tokens, output_tokens;
    ts_time every;
    uint64_t count, asked, ended, failed, tokens;
};

static bool next(void *context, struct cloud_request *out)
{
    struct stream *s = context;
    struct ts_request_item item = {.prompt_tokens = s->prompt_tokens, .output_tokens = s->output_tokens};
    if (s->requests ? !ts_requests_next(s->requests, &item) : s->asked == s->count)
        return false;
    out->at = s->requests ? (ts_time)(item.at_s * 1e9) : (ts_time)s->asked * s->every;
    out->prompt_count = item.prompt_tokens;
    out->sampling.seed = s->asked++;
    out->sampling.max_tokens = item.output_tokens;
    out->sampling.ignore_eos = true;
    return true;
}

static double seconds(int64_t ns)
{
    return ns < 0 ? -1 : (double)ns / 1e9;
}

static void name_failed(const struct cloud_request *request, const struct cloud_outcome *outcome)
{
    const struct ts_trace *t = outcome->trace;
    fprintf(stderr, "ts-sim-bench: request %llu, %.3f s: %u of %u tokens, prompt of %u; %s, %s",
            (unsigned long long)request->sampling.seed, (double)request->at / 1e9, outcome->token_count,
            request->sampling.max_tokens, request->prompt_count,
            outcome->refused ? "refused" : ts_finish_name(outcome->finish), ts_reason_name(outcome->reason));
    if (t)
        fprintf(
            stderr,
            "; %u attempts, %.*s -> %.*s -> %.*s; assigned %.3f, prefill %.3f to %.3f, first token %.3f, KV "
            "%.3f to %.3f, decode %.3f, end %.3f s",
            t->attempts, (int)t->prefill.count, (const char *)t->prefill.data, (int)t->relay.count,
            (const char *)t->relay.data, (int)t->decode.count, (const char *)t->decode.data,
            seconds(t->assigned_ns), seconds(t->prefill_begin_ns), seconds(t->prefill_end_ns),
            seconds(t->first_token_ns), seconds(t->kv_open_ns), seconds(t->kv_commit_ns),
            seconds(t->decode_begin_ns), seconds(t->end_ns));
    fputc('\n', stderr);
}

static void ended(void *context, const struct cloud_request *request, const struct cloud_outcome *outcome)
{
    struct stream *s = context;
    const bool failed = outcome->refused || outcome->finish != TS_FINISH_LENGTH;
    s->ended++;
    s->failed += failed;
    s->tokens += outcome->token_count;
    if (failed && s->failed <= NAMED)
        name_failed(request, outcome);
}

/* --- one row ----------------------------------------------------------------------------------------- */

static void load(struct bench *b, const char *cluster, const char *model)
{
    struct ts_error err = {0};
    if (ts_inputs_cluster(b->catalogue, b->conf_dir, cluster, &b->cluster, &err) != TS_OK ||
        ts_inputs_model(b->conf_dir, model, &b->model, &err) != TS_OK ||
        ts_inputs_demand(b->conf_dir, "azure-conv", 0, &b->demand, &err) != TS_OK ||
        ts_inputs_slo(b->catalogue, b->conf_dir, "scale-5", &b->model, &b->demand, &err) != TS_OK)
        fatal(&err);
}

static void unload(struct bench *b)
{
    ts_plan_destroy(&b->plan);
    ts_cluster_destroy(&b->cluster);
}

/* Tokens/s, or seconds where `seconds`; 0 = nothing is asked. The ratio is 1 or more where it is reached. */
static void print_target(double target, double reached, bool seconds)
{
    if (target > 0)
        printf("%g,%g,%.2f,", target, reached, seconds ? target / reached : reached / target);
    else
        printf(",%g,,", reached);
}

static void play(struct bench *b, const char *what, struct stream *stream, double target, bool seconds)
{
    struct cloud_site_settings settings = cloud_site_defaults();
    const struct cloud_source source = {stream, next, ended, 0};
    struct cloud_site *site = NULL;
    struct ts_error err = {0};
    double peak_mb = 0, start = cpu_s(&peak_mb);
    settings.cluster = b->cluster;
    settings.model = &b->model;
    settings.plan = b->plan;
    settings.demand = &b->demand;
    settings.cloud.checks = b->checks;
    settings.cloud.context_tokens = CONTEXT;
    if (cloud_site_new(&settings, &source, &site, &err) != TS_OK ||
        cloud_site_run(site, 24 * 3600 * TS_S, &err) != TS_OK)
        fatal(&err);
    double cpu = cpu_s(&peak_mb) - start, tokens = (double)stream->tokens;
    double events = (double)cloud_steps(cloud_site_cloud(site));
    printf("%s,%u,%llu,%llu,%.0f,%.0f,%.2f,%.0f,%.0f,", what, b->cluster->gpu_count,
           (unsigned long long)stream->ended, (unsigned long long)stream->failed, tokens, events, cpu,
           tokens / cpu, events / cpu);
    print_target(target, seconds ? cpu : tokens / cpu, seconds);
    printf("%.0f,%.1f\n", (double)cloud_now(cloud_site_cloud(site)) / 1e9, peak_mb);
    fflush(stdout);
    cloud_site_destroy(&site);
}

/* --- plans ------------------------------------------------------------------------------------------- */

static void set_group(struct ts_plan *plan, uint32_t g, enum ts_phase phase, uint32_t gpu, uint32_t tp,
                      uint32_t layers)
{
    struct ts_group *group = &plan->groups[g];
    *group = (struct ts_group){.phase = phase, .stages = {{.tp = tp, .layers = layers}}, .stage_count = 1};
    for (uint32_t i = 0; i < tp; i++)
        group->stages[0].gpus[i] = gpu + i;
}

/* Two devices prefill for four. */
static struct ts_plan *two_and_four(const struct ts_model *model)
{
    struct ts_plan *plan = ts_plan_new(6, 8);
    for (uint32_t i = 0; i < 6; i++)
        set_group(plan, i, i < 2 ? TS_PHASE_PREFILL : TS_PHASE_DECODE, i, 1, model->layers);
    for (uint32_t i = 0; i < 8; i++)
        plan->flows[i] = (struct ts_flow){.prefill = i / 4, .decode = 2 + i % 4, .rate = 1, .attained = 1};
    plan->rate = 8;
    return plan;
}

/* Half a node each; of four groups three prefill, and feed the fourth and that of the next four. */
static struct ts_plan *rings(const struct ts_cluster *cluster, const struct ts_model *model)
{
    uint32_t groups = cluster->gpu_count / 4;
    struct ts_plan *plan = ts_plan_new(groups, groups / 4 * 6);
    for (uint32_t g = 0, flow = 0; g < groups; g++) {
        set_group(plan, g, g % 4 == 3 ? TS_PHASE_DECODE : TS_PHASE_PREFILL, 4 * g, 4, model->layers);
        for (uint32_t i = 0; g % 4 != 3 && i < 2; i++)
            plan->flows[flow++] = (struct ts_flow){.prefill = g,
                                                   .decode = (g / 4 * 4 + 4 * i + 3) % groups,
                                                   .rate = 1,
                                                   .attained = 1,
                                                   .codec = TS_COST_CODEC_I4};
    }
    plan->rate = plan->flow_count;
    return plan;
}

static struct ts_plan *thunder(struct bench *b)
{
    struct ts_error err = {0};
    struct plan_problem problem = plan_problem_defaults(b->cluster, &b->model, &b->demand);
    if (plan_problem_check(&problem, &err) != TS_OK)
        fatal(&err);
    struct plan_search *search = plan_algorithm_thunder.open(&problem, &err);
    if (!search)
        fatal(&err);
    for (uint64_t work = 0; work < SEARCH_WORK && !plan_algorithm_thunder.step(search, 1000); work += 1000) {
    }
    struct ts_plan *plan = plan_algorithm_thunder.best(search);
    plan_algorithm_thunder.close(&search);
    return plan;
}

/* --- rows -------------------------------------------------------------------------------------------- */

static void bench_decode(struct bench *b, bool checks)
{
    struct stream stream = {
        .count = checks ? 2000 : 10000, .prompt_tokens = 32, .output_tokens = 400, .every = 20 * TS_MS};
    load(b, "gpus-1024", "llama-2-7b");
    b->plan = two_and_four(&b->model);
    b->checks = checks;
    play(b, checks ? "decode-checks" : "decode", &stream, checks ? 0 : 1e6, false);
    b->checks = false;
    unload(b);
}

static void bench_conversation(struct bench *b)
{
    char path[1024];
    struct stream stream = {.count = 0};
    struct ts_requests_options options = {.seed = 1};
    struct ts_error err = {0};
    load(b, "paper-cloud", "llama-30b");
    ts_demand_scale_rate(&b->demand, CONVERSATION_RATE / ts_demand_rate(&b->demand));
    b->plan = thunder(b);
    snprintf(path, sizeof path, "%s/AzureLLMInferenceTrace_conv.csv", b->traces);
    if (ts_requests_open(b->conf_dir, path, &options, &stream.requests, &err) != TS_OK)
        fatal(&err);
    play(b, "conversation", &stream, 10, true);
    ts_requests_close(&stream.requests);
    unload(b);
}

static void bench_large(struct bench *b, uint64_t count)
{
    struct stream stream = {.count = 0};
    /* Length classes have no longest prompt: one that fills the context is refused as too long. */
    struct ts_requests_options options = {
        .seed = 1, .rate = 400, .count = count, .prompt_tokens_max = CONTEXT - 1};
    struct ts_error err = {0};
    load(b, "gpus-1024", "llama-3-70b");
    b->plan = rings(b->cluster, &b->model);
    if (ts_requests_open(b->conf_dir, "azure-conv", &options, &stream.requests, &err) != TS_OK)
        fatal(&err);
    play(b, count < LARGE ? "large-part" : "large", &stream, 0, true);
    ts_requests_close(&stream.requests);
    unload(b);
}

static bool run(struct bench *b, const char *name)
{
    if (strcmp(name, "decode") == 0)
        bench_decode(b, false);
    else if (strcmp(name, "decode-checks") == 0)
        bench_decode(b, true);
    else if (strcmp(name, "conversation") == 0)
        bench_conversation(b);
    else if (strcmp(name, "large") == 0)
        bench_large(b, LARGE);
    else if (strcmp(name, "large-part") == 0)
        bench_large(b, LARGE / 50);
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"decode", "decode-checks", "conversation"};
    struct bench b = {.conf_dir = "conf", .traces = "tests/data/traces"};
    struct ts_error err = {0};
    int first = 1;
    for (; first + 1 < argc && strncmp(argv[first], "--", 2) == 0; first += 2) {
        if (strcmp(argv[first], "--conf") == 0)
            b.conf_dir = argv[first + 1];
        else if (strcmp(argv[first], "--traces") == 0)
            b.traces = argv[first + 1];
    }
    if (ts_catalogue_load(b.conf_dir, "measured", &b.catalogue, &err) != TS_OK)
        fatal(&err);
    printf("what,gpus,requests,failed,tokens,events,cpu_s,tokens_per_s,events_per_s,target,reached,ratio,"
           "virtual_s,peak_mb\n");
    for (size_t i = 0; first >= argc && i < sizeof names / sizeof *names; i++)
        run(&b, names[i]);
    for (int i = first; i < argc; i++) {
        if (!run(&b, argv[i]))
            fprintf(stderr,
                    "ts-sim-bench: %s is not decode, decode-checks, conversation, large-part or large\n",
                    argv[i]);
    }
    ts_catalogue_destroy(&b.catalogue);
    return 0;
}
