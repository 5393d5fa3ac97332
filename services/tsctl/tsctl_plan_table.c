#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_plan.h"

#define MATRIX_COLUMNS_MAX 8 /* more decode replicas than fit in a line: flows are listed instead */

/* The widest text of a column of the replicas. */
struct widths {
    int gpus, shape, layers;
};

static struct widths widths_of(const struct tsctl_plan_doc *doc)
{
    struct widths w = {.gpus = 7, .shape = 7, .layers = 6};
    char words[TSCTL_PLAN_WORDS];
    for (uint32_t g = 0; g < doc->plan->group_count; g++) {
        int gpus = (int)strlen(tsctl_plan_gpus_brief(doc, &doc->plan->groups[g], words));
        int layers = (int)strlen(tsctl_plan_layers_words(&doc->plan->groups[g], words));
        w.gpus = gpus > w.gpus ? gpus : w.gpus;
        int shape = (int)strlen(tsctl_plan_shape_words(&doc->plan->groups[g], words));
        w.shape = shape > w.shape ? shape : w.shape;
        w.layers = layers > w.layers ? layers : w.layers;
    }
    return w;
}

static void print_replicas(const struct tsctl_plan_doc *doc, FILE *to)
{
    struct widths w = widths_of(doc);
    char gpus[TSCTL_PLAN_WORDS], layers[TSCTL_PLAN_WORDS], shape[TSCTL_PLAN_WORDS];
    fprintf(to, "%-5s %-9s %-*s %-*s %-*s %8s %8s\n", "#", "phase", w.gpus, "devices", w.shape, "shape",
            w.layers, "layers", "req/s", "$/h");
    for (uint32_t g = 0; g < doc->plan->group_count; g++) {
        const struct ts_group *group = &doc->plan->groups[g];
        char name[16];
        snprintf(name, sizeof name, "%c%u", tsctl_plan_phase_letter(group->phase), g);
        fprintf(to, "%-5s %-9s %-*s %-*s %-*s %8.3f %8.3f\n", name,
                group->phase == TS_PHASE_BOTH ? "colocated" : tsctl_plan_phase_name(group->phase), w.gpus,
                tsctl_plan_gpus_brief(doc, group, gpus), w.shape, tsctl_plan_shape_words(group, shape),
                w.layers, tsctl_plan_layers_words(group, layers), tsctl_plan_group_rate(doc->plan, g),
                tsctl_plan_group_price(doc, g));
    }
}

/* How KV goes: in 16 bits, in 4, or some requests so and some so. */
static const char *codec_words(double rate, double squeezed)
{
    return squeezed <= 0 ? "" : squeezed >= rate ? " i4" : " part i4";
}

/* The rate from one replica to another, over all classes (or one); `squeezed`: of that, in 4 bits. */
static double rate_of(const struct ts_plan *plan, uint32_t prefill, uint32_t decode, uint32_t class_or_all,
                      double *squeezed)
{
    double rate = 0;
    *squeezed = 0;
    for (uint32_t i = 0; i < plan->flow_count; i++) {
        const struct ts_flow *f = &plan->flows[i];
        if (f->prefill != prefill || f->decode != decode ||
            (class_or_all != UINT32_MAX && f->length_class != class_or_all))
            continue;
        rate += f->rate;
        *squeezed += f->codec != TS_COST_CODEC_NONE ? f->rate : 0;
    }
    return rate;
}

static double sent_by(const struct ts_plan *plan, uint32_t prefill, uint32_t class_or_all)
{
    double rate = 0;
    for (uint32_t i = 0; i < plan->flow_count; i++)
        if (plan->flows[i].prefill == prefill &&
            (class_or_all == UINT32_MAX || plan->flows[i].length_class == class_or_all))
            rate += plan->flows[i].rate;
    return rate;
}

static void print_cell(FILE *to, double rate, double sent, double squeezed)
{
    char cell[24];
    if (rate <= 0)
        snprintf(cell, sizeof cell, ".");
    else
        snprintf(cell, sizeof cell, "%.3g%%%s", 100 * rate / sent, codec_words(rate, squeezed));
    fprintf(to, " %13s", cell);
}

static void print_matrix(const struct ts_plan *plan, uint32_t class_or_all, FILE *to)
{
    double squeezed = 0;
    fprintf(to, "      ");
    for (uint32_t d = 0; d < plan->group_count; d++) {
        char name[16];
        snprintf(name, sizeof name, "D%u", d);
        if (plan->groups[d].phase == TS_PHASE_DECODE)
            fprintf(to, " %13s", name);
    }
    fprintf(to, " %9s\n", "req/s");
    for (uint32_t p = 0; p < plan->group_count; p++) {
        double sent = sent_by(plan, p, class_or_all);
        if (plan->groups[p].phase != TS_PHASE_PREFILL)
            continue;
        char name[16];
        snprintf(name, sizeof name, "P%u", p);
        fprintf(to, "%-6s", name);
        for (uint32_t d = 0; d < plan->group_count; d++)
            if (plan->groups[d].phase == TS_PHASE_DECODE) {
                double rate = rate_of(plan, p, d, class_or_all, &squeezed);
                print_cell(to, rate, sent, squeezed);
            }
        fprintf(to, " %9.3f\n", sent);
    }
}

static void print_list(const struct ts_plan *plan, uint32_t class_or_all, FILE *to)
{
    double squeezed = 0;
    for (uint32_t p = 0; p < plan->group_count; p++) {
        double sent = sent_by(plan, p, class_or_all);
        if (plan->groups[p].phase != TS_PHASE_PREFILL)
            continue;
        fprintf(to, "P%u (%.3f req/s) ->", p, sent);
        for (uint32_t d = 0; d < plan->group_count; d++) {
            double rate =
                plan->groups[d].phase == TS_PHASE_DECODE ? rate_of(plan, p, d, class_or_all, &squeezed) : 0;
            if (rate > 0)
                fprintf(to, " D%u %.3g%%%s", d, 100 * rate / sent, codec_words(rate, squeezed));
        }
        fprintf(to, "\n");
    }
}

/* Colocated replicas keep what they take: the table of replicas says all about them. */
static void print_routing(const struct ts_plan *plan, uint32_t class_or_all, FILE *to)
{
    uint32_t columns = 0;
    for (uint32_t d = 0; d < plan->group_count; d++)
        columns += plan->groups[d].phase == TS_PHASE_DECODE;
    if (columns > MATRIX_COLUMNS_MAX)
        print_list(plan, class_or_all, to);
    else if (columns > 0)
        print_matrix(plan, class_or_all, to);
}

static void print_all_routing(const struct tsctl_plan_doc *doc, bool by_class, FILE *to)
{
    const struct ts_plan *plan = doc->plan;
    bool split = false;
    for (uint32_t g = 0; g < plan->group_count; g++)
        split = split || plan->groups[g].phase == TS_PHASE_PREFILL;
    if (!split) {
        fprintf(to, "\nRouting: no request is split; each replica keeps what it takes\n");
        return;
    }
    fprintf(to,
            "\nRouting: share of a prefill replica's requests by decode replica (i4 = KV goes in 4 bits)\n");
    print_routing(plan, UINT32_MAX, to);
    for (uint32_t k = 0; by_class && k < doc->demand->class_count; k++) {
        const struct ts_class *c = &doc->demand->classes[k];
        fprintf(to, "\nClass %u: %.0f tokens in, %.0f out, %.3f req/s\n", k, c->prompt_tokens,
                c->output_tokens, c->rate);
        print_routing(plan, k, to);
    }
}

static void print_objective(const struct tsctl_plan_doc *doc, FILE *to)
{
    const struct ts_plan *plan = doc->plan;
    bool goodput = strcmp(doc->inputs.objective, "goodput") == 0;
    if (goodput)
        fprintf(to, "Objective   %.4g requests/s within all deadlines", plan->objective);
    else
        fprintf(to, "Objective   %.2f %% of all requests within all deadlines", 100 * plan->objective);
    if (isnan(plan->bound))
        fprintf(to, "; no bound was computed\n");
    else if (goodput)
        fprintf(to, "; no plan exceeds %.4g (gap %.2f %%)\n", plan->bound, 100 * tsctl_plan_gap(plan));
    else
        fprintf(to, "; no plan exceeds %.2f %% (gap %.2f %%)\n", 100 * plan->bound,
                100 * tsctl_plan_gap(plan));
}

static uint32_t idle_gpus(const struct tsctl_plan_doc *doc)
{
    uint32_t used = 0, alive = 0;
    for (uint32_t g = 0; g < doc->plan->group_count; g++)
        used += ts_group_gpus(&doc->plan->groups[g]);
    for (uint32_t g = 0; g < doc->cluster->gpu_count; g++)
        alive += doc->cluster->gpus[g].alive;
    return alive - used;
}

void tsctl_plan_table(const struct tsctl_plan_doc *doc, bool by_class, FILE *to)
{
    const struct ts_plan *plan = doc->plan;
    double served = 0;
    uint32_t idle = idle_gpus(doc);
    for (uint32_t i = 0; i < plan->flow_count; i++)
        served += plan->flows[i].rate;
    fprintf(to, "%s on %s, %s at %.4g requests/s (%s, seed %llu%s)\n\n", doc->model->name, doc->cluster->name,
            doc->demand->name, doc->plan->rate, plan->algorithm, (unsigned long long)doc->inputs.seed,
            doc->finished ? "" : ", stopped before its end");
    print_replicas(doc, to);
    if (idle > 0)
        fprintf(to, "%u device%s not used\n", idle, idle == 1 ? " is" : "s are");
    print_all_routing(doc, by_class, to);
    fprintf(to,
            "\nAttained    first token %.2f %%, time per token %.2f %%, end to end %.2f %%, all %.2f %%\n",
            100 * plan->attained_ttft, 100 * plan->attained_tpot, 100 * plan->attained_e2e,
            100 * tsctl_plan_attained(doc));
    fprintf(to, "Served      %.4g of %.4g requests/s; %.4g MB of KV between nodes for each\n", served,
            doc->plan->rate, tsctl_plan_crossing_bytes(doc) / 1e6);
    print_objective(doc, to);
    fprintf(to, "Price       %.3f $/h", plan->price_per_hour);
    if (plan->price_per_hour > 0 && served > 0)
        fprintf(to, ", %.4g $ for a million requests", plan->price_per_hour / served / 3600 * 1e6);
    fprintf(to, "\nLimit       %s\n", plan->limit[0] ? plan->limit : "none stated");
}
