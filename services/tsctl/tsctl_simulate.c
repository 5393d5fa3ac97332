#include "services/tsctl/tsctl_simulate.h"
#include "services/planner/trial/plan_trial.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_plan_make.h"
#include "services/tsctl/tsctl_validate.h"

#define CONTEXT_TOKENS (1u << 20) /* traces are longer than the models of the literature were trained for */

struct flags {
    struct ts_conf *conf;
    struct tsctl_plan_inputs inputs;
    const char *algorithm, *load, *plan, *scales, *csv, *events, *admission;
    double time_limit, duration_s, skip_s, noise, warmup, patience_s, timeline_s;
    uint64_t requests;
    bool poisson, shuffle, repeat, planner, invariants, json, progress;
};

#define F(field) offsetof(struct flags, field)

static const struct ts_option options[] = {
    {"cluster", TS_OPTION_STRING, F(inputs.cluster), NULL, 0, 0, "file, or name in conf/clusters"},
    {"model", TS_OPTION_STRING, F(inputs.model), NULL, 0, 0,
     "name in conf/models, or a .conf, a config.json, a folder with one"},
    {"workload", TS_OPTION_STRING, F(inputs.workload), NULL, 0, 0,
     "file or name in conf/workloads, or a trace, CSV or JSONL"},
    {"slo", TS_OPTION_STRING, F(inputs.slo), NULL, 0, 0,
     "as of tsctl plan; of single requests, not of classes (default: scale-5)"},
    {"plan", TS_OPTION_STRING, F(plan), NULL, 0, 0,
     "the plan in force, as JSON; flags that are not given are as in it"},
    {"algorithm", TS_OPTION_STRING, F(algorithm), "thunder", 0, 0, "who makes the plan: tsctl plan --help"},
    {"load", TS_OPTION_STRING, F(load), NULL, 0, 0, "an algorithm of your own: shared object"},
    {"planner", TS_OPTION_BOOL, F(planner), "false", 0, 0,
     "the real planner in the loop: it measures the load, re-routes and flips phases"},
    {"rate", TS_OPTION_F64, F(inputs.rate), NULL, 1e-6, 1e6,
     "requests/s of plan and stream, instead of the workload's own"},
    {"poisson", TS_OPTION_BOOL, F(poisson), "false", 0, 0, "arrivals are redrawn as a Poisson process"},
    {"shuffle", TS_OPTION_BOOL, F(shuffle), "false", 0, 0,
     "lengths are those of random rows of the trace, not in its order"},
    {"requests", TS_OPTION_U64, F(requests), "0", 0, 1e9,
     "at most so many; 0 = a trace once, otherwise 10,000"},
    {"duration_s", TS_OPTION_F64, F(duration_s), "0", 0, 1e9, "none is sent later; 0 = no bound"},
    {"skip_s", TS_OPTION_F64, F(skip_s), "0", 0, 1e9, "a trace starts there"},
    {"repeat", TS_OPTION_BOOL, F(repeat), "false", 0, 0, "a trace starts over at its end"},
    {"scale_lengths", TS_OPTION_F64, F(inputs.scale_lengths), "1", 0.01, 100,
     "prompts and outputs times this"},
    {"seed", TS_OPTION_U64, F(inputs.seed), "1", 0, 9e15, "same seed, same bytes"},
    {"noise", TS_OPTION_F64, F(noise), "0", 0, 2, "of batch times: standard deviation of their logarithm"},
    {"admission", TS_OPTION_CHOICE, F(admission), "none|slo", 0, 0,
     "slo: requests carry their TTFT and TPOT, so that a router may refuse what it cannot serve in time"},
    {"warmup", TS_OPTION_F64, F(warmup), "0", 0, 0.45,
     "share of the sending time at either end whose requests do not count"},
    {"scales", TS_OPTION_STRING, F(scales), "", 0, 0, "SLO scales to state attainment at, as 1,2,5"},
    {"events", TS_OPTION_STRING, F(events), "", 0, 0,
     "JSON list of what happens on the way: losses, plans, links (README)"},
    {"patience_s", TS_OPTION_F64, F(patience_s), "3600", 0, 1e9,
     "the run is cut off that long after the last request was sent"},
    {"invariants", TS_OPTION_BOOL, F(invariants), "false", 0, 0, "check every step, and hash it"},
    {"json", TS_OPTION_BOOL, F(json), "false", 0, 0, "print one document instead of tables"},
    {"csv", TS_OPTION_STRING, F(csv), NULL, 0, 0, "write a record of each request: columns in tsctl report"},
    {"timeline_s", TS_OPTION_F64, F(timeline_s), "0", 0, 1e9,
     "sample replicas and links every so many seconds, for --json; 0 = not"},
    {"conf_dir", TS_OPTION_STRING, F(inputs.conf_dir), NULL, 0, 0,
     "where names are looked up; default: conf here, or that of the source tree"},
    {"devices", TS_OPTION_STRING, F(inputs.devices), "measured", 0, 0,
     "catalogue of devices: measured, paper"},
    {"link_gbit", TS_OPTION_F64, F(inputs.link_gbit), NULL, 0, 1e5,
     "Gbit/s between nodes, instead of the cluster's"},
    {"objective", TS_OPTION_CHOICE, F(inputs.objective), "attainment|goodput", 0, 0, "as of tsctl plan"},
    {"attainment", TS_OPTION_F64, F(inputs.attainment), "0.9", 0.01, 1, "as of tsctl plan"},
    {"no_colocate", TS_OPTION_BOOL, F(inputs.no_colocate), "false", 0, 0, "every request is split"},
    {"codec", TS_OPTION_CHOICE, F(inputs.codec), "auto|none|i4", 0, 0, "of KV on the wire"},
    {"max_stages", TS_OPTION_U32, F(inputs.max_stages), "0", 0, TS_STAGES_MAX,
     "pipeline stages of a replica; 0 = the planner's default"},
    {"effort", TS_OPTION_F64, F(inputs.effort), "1", 0.01, 1e4, "thunder: times its usual work"},
    {"time_limit", TS_OPTION_F64, F(time_limit), "600", 0.001, 1e6,
     "seconds of the search; a plan cut short depends on the machine"},
    {"progress", TS_OPTION_BOOL, F(progress), "false", 0, 0, "a line on stderr now and then"},
};

/* The plan, and what it was made over. */
struct made {
    struct tsctl_plan_world world;
    struct tsctl_plan_doc *doc;             /* of --plan, NULL otherwise */
    struct ts_plan *plan;                   /* ours */
    const struct ts_demand *demand;         /* whose classes its flows name */
    const struct plan_algorithm *algorithm; /* NULL with --plan */
    char *conf_dir;
};

static const char help[] =
    "Runs a plan on a cluster under a stream of requests: the cores of all services, virtual time,\n"
    "modelled devices and links. Prints what became of the requests.\n\n"
    "  tsctl simulate --cluster C --model M --workload W [flags]      with a plan made for it\n"
    "  tsctl simulate --plan PLAN.json [flags]                        with that plan\n"
    "  tsctl simulate validate FILE [--json]                          against measured serving\n"
    "  tsctl simulate local CONF --requests FILE [flags]              what tsctl up would do with it\n\n";

/* --- Inputs --- */

/* What no flag gave is as the plan's document says. */
static void inherit(struct flags *f, const struct tsctl_plan_inputs *from)
{
    const char **const texts[] = {&f->inputs.cluster, &f->inputs.model, &f->inputs.workload, &f->inputs.slo};
    const char *const theirs[] = {from->cluster, from->model, from->workload, from->slo};
    for (size_t i = 0; i < TS_ARRAY_SIZE(texts); i++)
        if (!**texts[i])
            *texts[i] = theirs[i];
    if (!ts_conf_given(f->conf, "rate"))
        f->inputs.rate = from->rate;
    if (!ts_conf_given(f->conf, "devices"))
        f->inputs.devices = from->devices;
    if (!ts_conf_given(f->conf, "link_gbit"))
        f->inputs.link_gbit = from->link_gbit;
    if (!ts_conf_given(f->conf, "scale_lengths"))
        f->inputs.scale_lengths = from->scale_lengths;
}

static int read_plan(struct flags *f, struct made *m, struct ts_error *err)
{
    uint32_t lost = 0;
    inherit(f, &m->doc->inputs);
    if (tsctl_plan_world_load(&f->inputs, &m->world, err) != TS_OK)
        return 1;
    m->demand = m->doc->demand;
    enum ts_status status = tsctl_plan_bind(m->doc, m->world.cluster, &m->plan, &lost, err);
    if (status == TS_OK)
        status = ts_plan_check(m->plan, m->world.cluster, &m->world.model, m->demand, err);
    if (status == TS_OK && lost == 0)
        return 0;
    if (status == TS_OK)
        ts_error_set(err, TS_EINVAL, "%u of its replicas stand on devices that the cluster does not have",
                     lost);
    ts_error_prefix(err, "--plan %s", f->plan);
    ts_plan_destroy(&m->plan);
    tsctl_plan_world_fini(&m->world);
    return 1;
}

static int make_plan(struct flags *f, struct made *m, struct ts_error *err)
{
    struct tsctl_plan_flags p = {.inputs = f->inputs,
                                 .algorithm = f->algorithm,
                                 .load = f->load,
                                 .depth = "regroup",
                                 .current = "",
                                 .out = "",
                                 .svg = "",
                                 .time_limit = f->time_limit,
                                 .trial = PLAN_TRIAL_REQUESTS,
                                 .no_bound = true,
                                 .progress = f->progress};
    struct tsctl_plan_search search;
    int code = tsctl_plan_make(&p, &m->world, &search, err);
    if (code)
        return code;
    m->plan = search.plan;
    m->algorithm = search.algorithm;
    m->demand = &m->world.demand;
    return 0;
}

/* 0 = the plan is there and to be freed; otherwise the exit code. */
static int prepare(struct flags *f, struct made *m, struct ts_error *err)
{
    *m = (struct made){.plan = NULL};
    if (*f->plan && tsctl_plan_read(f->plan, &m->doc, err) != TS_OK)
        return 1;
    if (!*f->inputs.slo && !m->doc)
        f->inputs.slo = "scale-5";
    int code = m->doc ? read_plan(f, m, err) : make_plan(f, m, err);
    if (code) {
        tsctl_plan_doc_destroy(&m->doc);
        return code;
    }
    m->conf_dir = *f->inputs.conf_dir ? ts_xstrdup(f->inputs.conf_dir) : tsctl_conf_dir();
    return 0;
}

static void made_free(struct made *m)
{
    ts_plan_destroy(&m->plan);
    tsctl_plan_doc_destroy(&m->doc);
    tsctl_plan_world_fini(&m->world);
    ts_free(m->conf_dir);
}

/* --- The report --- */

static void describe_replicas(const struct made *m, const struct tsctl_simulation *s, struct tsctl_report *r)
{
    struct tsctl_plan_doc doc = tsctl_plan_world_doc(&m->world, m->plan);
    double end_s = tsctl_records_end(&s->records);
    r->replica_count = cloud_site_replica_count(s->running);
    r->replicas = ts_xcalloc(r->replica_count + 1, sizeof *r->replicas);
    for (size_t i = 0; i < r->replica_count; i++) {
        struct cloud_site_replica from = cloud_site_replica_at(s->running, i);
        struct tsctl_replica *to = &r->replicas[i];
        const struct ts_group *group = from.shape;
        char words[TSCTL_PLAN_WORDS], shape[TSCTL_PLAN_WORDS];
        double sum = 0, most = 0;
        for (uint32_t k = 0; k < group->stage_count; k++) {
            sum += from.busy_s[k];
            most = fmax(most, from.busy_s[k]);
        }
        (void)snprintf(to->name, sizeof to->name, "g%zu", i);
        (void)snprintf(to->what, sizeof to->what, "%.80s %.30s", tsctl_plan_gpus_brief(&doc, group, words),
                       tsctl_plan_shape_words(group, shape));
        to->phase = from.phase;
        to->lived_s = fmax(0, fmin(end_s, from.died_s) - fmax(0, from.born_s));
        to->kv_mean = from.kv_used_mean;
        to->kv_max = from.kv_used_max;
        to->batches = from.batches;
        if (to->lived_s > 0) {
            to->busy = most / to->lived_s;
            to->busy_mean = sum / group->stage_count / to->lived_s;
            to->prompt_tokens_per_s = (double)from.prompt_tokens / to->lived_s;
            to->output_tokens_per_s = (double)from.output_tokens / to->lived_s;
        }
    }
}

static void describe_links(const struct made *m, const struct tsctl_simulation *s, struct tsctl_report *r)
{
    const struct ts_cluster *cluster = m->world.cluster;
    double end_s = tsctl_records_end(&s->records);
    r->link_count = cloud_site_link_count(s->running);
    r->links = ts_xcalloc(r->link_count + 1, sizeof *r->links);
    for (size_t i = 0; i < r->link_count; i++) {
        struct cloud_site_link from = cloud_site_link_at(s->running, i);
        struct tsctl_link *to = &r->links[i];
        memcpy(to->from, cluster->nodes[from.from].name, sizeof to->from);
        memcpy(to->to, cluster->nodes[from.to].name, sizeof to->to);
        to->capacity_bytes_per_s = from.bytes_per_s;
        if (end_s > 0) {
            to->busy = from.busy_s / end_s;
            to->bytes_per_s = from.bytes / end_s;
        }
    }
}

static void put_text(struct ts_json *object, const char *key, const char *text)
{
    ts_json_put_string(object, key, text, strlen(text));
}

static enum ts_status print_json(const struct flags *f, const struct made *m,
                                 const struct tsctl_simulation *s, const struct tsctl_report *r,
                                 struct ts_error *err)
{
    struct ts_json *doc = ts_json_new_object();
    char digest[24];
    put_text(doc, "cluster", m->world.cluster->name);
    put_text(doc, "model", m->world.model.name);
    put_text(doc, "workload", f->inputs.workload);
    put_text(doc, "slo_words", f->inputs.slo);
    put_text(doc, "algorithm", m->plan->algorithm);
    ts_json_put_bool(doc, "planner", f->planner);
    ts_json_put_integer(doc, "seed", (int64_t)f->inputs.seed);
    ts_json_put_number(doc, "plan_objective", m->plan->objective);
    ts_json_put_number(doc, "plan_attained_ttft", m->plan->attained_ttft);
    ts_json_put_number(doc, "plan_attained_tpot", m->plan->attained_tpot);
    ts_json_put_number(doc, "plan_attained_e2e", m->plan->attained_e2e);
    ts_json_put_integer(doc, "steps", (int64_t)s->steps);
    ts_json_put_integer(doc, "messages", (int64_t)s->counts.messages);
    ts_json_put_integer(doc, "batches", (int64_t)s->counts.batches);
    if (f->invariants) {
        (void)snprintf(digest, sizeof digest, "%016llx", (unsigned long long)s->digest);
        put_text(doc, "digest", digest);
    }
    tsctl_report_json(r, doc);
    if (f->timeline_s > 0)
        tsctl_timeline_json(&s->timeline, r, doc);
    return tsctl_plan_write_json(&doc, NULL, err);
}

static enum ts_status tell(const struct flags *f, const struct made *m, const struct tsctl_simulation *s,
                           const struct tsctl_report_options *o, struct ts_error *err)
{
    struct tsctl_report r;
    enum ts_status status = *f->csv ? tsctl_records_save(&s->records, f->csv, err) : TS_OK;
    tsctl_report_make(&s->records, o, &r);
    describe_replicas(m, s, &r);
    describe_links(m, s, &r);
    tsctl_report_bottleneck(&r);
    if (status == TS_OK && f->json) {
        status = print_json(f, m, s, &r, err);
    } else if (status == TS_OK) {
        printf("%s on %s, %s at %.4g requests/s, plan by %s, seed %llu\n\n", m->world.model.name,
               m->world.cluster->name, f->inputs.workload, r.offered_per_s, m->plan->algorithm,
               (unsigned long long)f->inputs.seed);
        printf(
            "Planner     expects %.2f %% first tokens, %.2f %% times per token, %.2f %% ends in time at %.4g "
            "requests/s\n",
            100 * m->plan->attained_ttft, 100 * m->plan->attained_tpot, 100 * m->plan->attained_e2e,
            m->plan->rate);
        tsctl_report_print(&r, stdout);
    }
    tsctl_report_fini(&r);
    return status;
}

/* --- The run --- */

static enum ts_status open_stream(const struct flags *f, const struct made *m, struct ts_requests **out,
                                  struct ts_error *err)
{
    const struct ts_requests_options o = {.rate = f->inputs.rate,
                                          .poisson = f->poisson,
                                          .shuffle = f->shuffle,
                                          .count = f->requests,
                                          .duration_s = f->duration_s,
                                          .skip_s = f->skip_s,
                                          .repeat = f->repeat,
                                          .scale_lengths = f->inputs.scale_lengths,
                                          .seed = f->inputs.seed};
    return ts_requests_open(m->conf_dir, f->inputs.workload, &o, out, err);
}

static bool next_item(void *stream, struct ts_request_item *out)
{
    return ts_requests_next(stream, out);
}

static enum ts_status simulate(const struct flags *f, const struct made *m, struct ts_error *err)
{
    struct tsctl_report_options o = tsctl_report_defaults();
    struct tsctl_simulation s = {.site = cloud_site_defaults(),
                                 .events = *f->events ? f->events : NULL,
                                 .admission = strcmp(f->admission, "slo") == 0,
                                 .patience_s = f->patience_s,
                                 .progress = f->progress,
                                 .timeline = {.step_s = f->timeline_s}};
    struct ts_slo *slo = NULL;
    struct ts_requests *requests = NULL;
    enum ts_status status = *f->scales ? tsctl_report_scales(f->scales, &o, err) : TS_OK;
    struct tsctl_planner planner = {.catalogue = m->world.catalogue,
                                    .cluster = m->world.cluster,
                                    .algorithm = m->algorithm ? m->algorithm : plan_algorithm_find("thunder"),
                                    .colocate = m->world.problem.colocate};
    s.site.cluster = m->world.cluster;
    s.site.model = &m->world.model;
    s.site.plan = m->plan;
    s.site.demand = m->demand;
    s.site.noise = f->noise;
    s.site.cloud.seed = f->inputs.seed;
    s.site.cloud.checks = f->invariants;
    s.site.cloud.context_tokens = CONTEXT_TOKENS;
    if (status == TS_OK && strcmp(f->inputs.slo, "none") != 0)
        status = ts_slo_open(m->world.catalogue, m->conf_dir, f->inputs.slo, &m->world.model, &slo, err);
    if (status == TS_OK)
        status = open_stream(f, m, &requests, err);
    if (status == TS_OK) {
        s.slo = slo;
        if (f->planner) {
            planner.slo = slo;
            memcpy(planner.codec_allowed, m->world.problem.codec_allowed, sizeof planner.codec_allowed);
            tsctl_planner_fill(&planner, m->demand, f->inputs.seed);
            s.site.planner = &planner.settings;
        }
        s.next = next_item;
        s.stream = requests;
        o.slo_scale = slo ? ts_slo_scale(slo) : 1;
        o.warmup = f->warmup;
        o.price_per_hour = m->plan->price_per_hour;
        for (uint32_t g = 0; g < m->plan->group_count; g++)
            o.gpus += ts_group_gpus(&m->plan->groups[g]);
        status = tsctl_simulation_run(&s, err);
    }
    if (status == TS_OK)
        status = tell(f, m, &s, &o, err);
    tsctl_simulation_fini(&s);
    ts_requests_close(&requests);
    ts_slo_close(&slo);
    return status;
}

static int run(struct flags *f, struct ts_error *err)
{
    struct made m;
    if (!ts_conf_given(f->conf, "link_gbit"))
        f->inputs.link_gbit = -1;
    int code = prepare(f, &m, err);
    if (code)
        return code;
    code = simulate(f, &m, err) == TS_OK ? 0 : 1;
    made_free(&m);
    return code;
}

int tsctl_simulate(int argc, char **argv)
{
    struct flags f = {.conf = NULL};
    struct ts_error err = {0};
    int code = 0;

    if (argc > 1 && strcmp(argv[1], "validate") == 0)
        return tsctl_validate(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "local") == 0)
        return tsctl_simulate_local(argc - 1, argv + 1);
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0)
            fputs(help, stdout);
    switch (ts_conf_load("simulate", options, TS_ARRAY_SIZE(options), argc, argv, &f, NULL, &f.conf, &err)) {
    case TS_CONF_EXIT:
        break;
    case TS_CONF_ERROR:
        return tsctl_fail("simulate", 2, err.text);
    case TS_CONF_RUN:
        code = run(&f, &err);
    }
    ts_conf_destroy(&f.conf);
    return code ? tsctl_fail("simulate", code, err.text) : 0;
}
