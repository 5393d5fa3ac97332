#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "services/tsctl/tsctl.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} verbs[] = {
    {"up", tsctl_up, "CONF: start a local cluster in the foreground; SIGTERM stops it"},
    {"generate", tsctl_generate, "--router URL --prompt TEXT: send one request and print what comes"},
    {"engine", tsctl_engine, "--model DIR --prompt TEXT: the same in one process, without sockets"},
    {"status", tsctl_status, "--router URL: what runs, and how loaded it is"},
    {"why", tsctl_why, "--router URL --client C --request-id R: what happened to a request"},
    {"cancel", tsctl_cancel, "--router URL --client C --request-id R: cancel a request"},
    {"drain", tsctl_drain, "--router URL --service ID: let a service finish and leave"},
    {"phase", tsctl_phase, "--router URL --service ID --phase P: let a worker serve prefill, decode or both"},
    {"links", tsctl_links, "[test A B] --router URL: what KV reaches between hosts; measure one link now"},
    {"metrics", tsctl_metrics, "--router URL: numbers of a cluster, as Prometheus reads them"},
    {"codec", tsctl_codec, "encode|decode --codec C --dtype D --head-dim N FILE: the KV codec on a file"},
    {"quality", tsctl_quality, "--model DIR --text FILE [--codec A,B]: what KV codecs cost in quality"},
    {"random-model", tsctl_random_model, "[--key-bias X] [--outliers N] DIR: write a random model"},
    {"plan", tsctl_plan,
     "--cluster C --model M --workload W --slo S: plan a cluster; also explain, diff, show"},
    {"simulate", tsctl_simulate,
     "--cluster C --model M --workload W: a plan under load, in virtual time; also validate"},
    {"report", tsctl_report, "FILE.csv: latencies, attainment and goodput of recorded requests"},
    {"workload", tsctl_workload, "TRACE.csv: cut a trace into length classes, for conf/workloads"},
    {"cost", tsctl_cost, "eval FILE [--json]: errors of the cost model on measurements; fit, loo"},
    {"replay", tsctl_replay, "[--print] FILE: feed a recording to its core and compare the actions"},
};

int tsctl_fail(const char *verb, int code, const char *text)
{
    fprintf(stderr, "tsctl %s: %s\n", verb, text);
    return code;
}

static int usage(FILE *to, int code)
{
    fprintf(to, "usage: tsctl VERB [--help] ...\n\n");
    for (size_t i = 0; i < TS_ARRAY_SIZE(verbs); i++)
        fprintf(to, "  %-12s %s\n", verbs[i].name, verbs[i].help);
    return code;
}

/* Who reads the results must not take a part of them for all. */
static int flushed(const char *verb, int code)
{
    bool lost = fflush(stdout) != 0;
    if (!lost && !ferror(stdout))
        return code;
    tsctl_fail(verb, 1, "stdout took only a part of the results: is its disk full, or its reader gone?");
    return code ? code : 1;
}

int main(int argc, char **argv)
{
    ts_log_init("tsctl", TS_LOG_WARN);
    if (argc < 2)
        return usage(stderr, 2);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
        return flushed("--help", usage(stdout, 0));
    for (size_t i = 0; i < TS_ARRAY_SIZE(verbs); i++) {
        char program[64];
        if (strcmp(argv[1], verbs[i].name) != 0)
            continue;
        snprintf(program, sizeof program, "tsctl %s", verbs[i].name);
        argv[1] = program; /* as help names it */
        return flushed(verbs[i].name, verbs[i].run(argc - 1, argv + 1));
    }
    fprintf(stderr, "tsctl: unknown verb \"%s\"; tsctl --help lists them\n", argv[1]);
    return 2;
}
