#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/planner/plan_adopt.h"
#include "services/tsctl/tsctl_plan.h"

enum change { CHANGE_KEPT, CHANGE_FLIPPED, CHANGE_REGROUPED, CHANGE_NEW, CHANGE_GONE, CHANGE_COUNT };

static const char *const change_names[CHANGE_COUNT] = {"kept", "flipped", "regrouped", "new", "gone"};

struct move { /* one replica of `b`, or of `a` when it is gone */
    enum change change;
    uint32_t before, after; /* indices; UINT32_MAX = none, or several */
    uint32_t reload_gpus;
    double reload_bytes;
};

struct diff {
    const struct tsctl_plan_doc *a, *b;
    struct ts_plan *from; /* a's plan over b's cluster, without replicas that lost a device */
    uint32_t *was;        /* by device of b's cluster: its replica of a; UINT32_MAX = none */
    double *bytes;        /* likewise: weights to load; a flip loads none */
    struct move *moves;
    uint32_t move_count, counts[CHANGE_COUNT];
    uint32_t reload_gpus;
    double reload_bytes;
};

/* The replica of `a` that this one of `b` is, but for its phase; UINT32_MAX if there is none. `any`: at least
 * one of its devices was in use. */
static uint32_t predecessor(const struct diff *d, const struct ts_group *group, bool *any)
{
    uint32_t from = UINT32_MAX;
    *any = false;
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            from = d->was[group->stages[s].gpus[i]];
            *any = *any || from != UINT32_MAX;
        }
    }
    for (uint32_t g = 0; g < d->from->group_count; g++)
        if (from != UINT32_MAX && ts_group_same_devices(&d->from->groups[g], group))
            return from;
    return UINT32_MAX;
}

static void add_move(struct diff *d, struct move move)
{
    d->moves[d->move_count++] = move;
    d->counts[move.change]++;
    d->reload_gpus += move.reload_gpus;
    d->reload_bytes += move.reload_bytes;
}

static void add_after(struct diff *d, uint32_t index)
{
    const struct ts_group *group = &d->b->plan->groups[index];
    bool any;
    struct move move = {.before = predecessor(d, group, &any), .after = index};
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            move.reload_gpus += d->bytes[group->stages[s].gpus[i]] > 0;
            move.reload_bytes += d->bytes[group->stages[s].gpus[i]];
        }
    }
    if (move.before != UINT32_MAX)
        move.change = d->a->plan->groups[move.before].phase == group->phase ? CHANGE_KEPT : CHANGE_FLIPPED;
    else
        move.change = any ? CHANGE_REGROUPED : CHANGE_NEW;
    add_move(d, move);
}

/* Replicas of `a` none of whose devices serve in `b`. */
static void add_gone(struct diff *d)
{
    bool *seen = ts_xcalloc(d->a->plan->group_count + 1, sizeof *seen);
    for (uint32_t g = 0; g < d->b->plan->group_count; g++) {
        const struct ts_group *group = &d->b->plan->groups[g];
        for (uint32_t s = 0; s < group->stage_count; s++)
            for (uint32_t i = 0; i < group->stages[s].tp; i++)
                if (d->was[group->stages[s].gpus[i]] != UINT32_MAX)
                    seen[d->was[group->stages[s].gpus[i]]] = true;
    }
    for (uint32_t g = 0; g < d->a->plan->group_count; g++)
        if (!seen[g])
            add_move(d, (struct move){.change = CHANGE_GONE, .before = g, .after = UINT32_MAX});
    ts_free(seen);
}

static void fill_was(struct diff *d)
{
    const struct ts_plan *plan = d->a->plan;
    for (uint32_t i = 0; i < d->b->cluster->gpu_count; i++)
        d->was[i] = UINT32_MAX;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        for (uint32_t s = 0; s < plan->groups[g].stage_count; s++) {
            for (uint32_t i = 0; i < plan->groups[g].stages[s].tp; i++) {
                uint32_t gpu =
                    tsctl_plan_same_gpu(d->a->cluster, plan->groups[g].stages[s].gpus[i], d->b->cluster);
                if (gpu < d->b->cluster->gpu_count)
                    d->was[gpu] = g;
            }
        }
    }
}

static void diff_init(struct diff *d, const struct tsctl_plan_doc *a, const struct tsctl_plan_doc *b)
{
    bool same_model = strcmp(a->model->name, b->model->name) == 0 && a->model->layers == b->model->layers &&
                      a->model->hidden == b->model->hidden;
    *d = (struct diff){.a = a, .b = b};
    if (!same_model || tsctl_plan_bind(a, b->cluster, &d->from, NULL, NULL) != TS_OK)
        d->from = ts_plan_new(0, 0); /* nothing in memory is of use */
    d->was = ts_xcalloc(b->cluster->gpu_count + 1, sizeof *d->was);
    d->bytes = ts_xcalloc(b->cluster->gpu_count + 1, sizeof *d->bytes);
    d->moves = ts_xcalloc(a->plan->group_count + b->plan->group_count + 1, sizeof *d->moves);
    plan_change_bytes(b->cluster, b->model, d->from, b->plan, d->bytes);
    fill_was(d);
    for (uint32_t g = 0; g < b->plan->group_count; g++)
        add_after(d, g);
    add_gone(d);
}

static void diff_fini(struct diff *d)
{
    ts_plan_destroy(&d->from);
    ts_free(d->was);
    ts_free(d->bytes);
    ts_free(d->moves);
}

static void put_text(struct ts_json *object, const char *key, const char *text)
{
    ts_json_put_string(object, key, text, strlen(text));
}

static void put_index(struct ts_json *object, const char *key, uint32_t index)
{
    if (index == UINT32_MAX)
        ts_json_put_null(object, key);
    else
        ts_json_put_integer(object, key, index);
}

static void put_pair(struct ts_json *object, const char *key, double before, double after)
{
    struct ts_json *pair = ts_json_new_object();
    ts_json_put_number(pair, "before", before);
    ts_json_put_number(pair, "after", after);
    ts_json_put_number(pair, "change", after - before);
    ts_json_put(object, key, &pair);
}

/* The devices that load weights, and how much. */
static struct ts_json *reload_json(const struct diff *d, const struct ts_group *group)
{
    const struct ts_cluster *cluster = d->b->cluster;
    struct ts_json *out = ts_json_new_array();
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            uint32_t gpu = group->stages[s].gpus[i];
            if (d->bytes[gpu] <= 0)
                continue;
            struct ts_json *item = ts_json_new_object();
            put_text(item, "node", cluster->nodes[cluster->gpus[gpu].node].name);
            put_text(item, "type", tsctl_plan_type(cluster, gpu)->name);
            ts_json_put_integer(item, "index", tsctl_plan_place(cluster, gpu));
            ts_json_put_number(item, "bytes", d->bytes[gpu]);
            ts_json_put(out, NULL, &item);
        }
    }
    return out;
}

static struct ts_json *move_json(const struct diff *d, const struct move *move)
{
    struct ts_json *out = ts_json_new_object();
    bool gone = move->change == CHANGE_GONE;
    const struct tsctl_plan_doc *doc = gone ? d->a : d->b;
    const struct ts_group *group = &doc->plan->groups[gone ? move->before : move->after];
    char words[TSCTL_PLAN_WORDS];
    put_text(out, "change", change_names[move->change]);
    put_index(out, "before", move->before);
    put_index(out, "after", move->after);
    put_text(out, "phase", tsctl_plan_phase_name(group->phase));
    put_text(out, "gpus", tsctl_plan_gpus_words(doc, group, true, words));
    ts_json_put_integer(out, "reload_gpus", move->reload_gpus);
    ts_json_put_number(out, "reload_bytes", move->reload_bytes);
    if (!gone) {
        struct ts_json *reload = reload_json(d, group);
        ts_json_put(out, "reload", &reload);
    }
    return out;
}

struct ts_json *tsctl_plan_diff(const struct tsctl_plan_doc *a, const struct tsctl_plan_doc *b)
{
    struct diff d;
    struct ts_json *out = ts_json_new_object(), *replicas = ts_json_new_array();
    diff_init(&d, a, b);
    for (int c = 0; c < CHANGE_COUNT; c++)
        ts_json_put_integer(out, change_names[c], d.counts[c]);
    ts_json_put_integer(out, "reload_gpus", d.reload_gpus);
    ts_json_put_number(out, "reload_bytes", d.reload_bytes);
    put_pair(out, "objective", a->plan->objective, b->plan->objective);
    put_pair(out, "price_per_hour", a->plan->price_per_hour, b->plan->price_per_hour);
    put_pair(out, "attained", tsctl_plan_attained(a), tsctl_plan_attained(b));
    put_pair(out, "cross_node_kv_bytes_per_request", tsctl_plan_crossing_bytes(a),
             tsctl_plan_crossing_bytes(b));
    for (uint32_t i = 0; i < d.move_count; i++) {
        struct ts_json *item = move_json(&d, &d.moves[i]);
        ts_json_put(replicas, NULL, &item);
    }
    ts_json_put(out, "replicas", &replicas);
    diff_fini(&d);
    return out;
}

static void name_of(const struct tsctl_plan_doc *doc, uint32_t index, char out[16])
{
    if (index == UINT32_MAX)
        snprintf(out, 16, "-");
    else
        snprintf(out, 16, "%c%u", tsctl_plan_phase_letter(doc->plan->groups[index].phase), index);
}

static void print_move(const struct diff *d, const struct move *move, FILE *to)
{
    bool gone = move->change == CHANGE_GONE;
    const struct tsctl_plan_doc *doc = gone ? d->a : d->b;
    const struct ts_group *group = &doc->plan->groups[gone ? move->before : move->after];
    char before[16], after[16], gpus[TSCTL_PLAN_WORDS], shape[TSCTL_PLAN_WORDS];
    name_of(d->a, move->before, before);
    name_of(d->b, move->after, after);
    fprintf(to, "%-10s %-5s %-5s ", change_names[move->change], before, after);
    if (move->reload_gpus > 0)
        fprintf(to, "%4u %8.2f", move->reload_gpus, move->reload_bytes / 1e9);
    else
        fprintf(to, "%4s %8s", "-", "-");
    fprintf(to, "  %s, %s\n", tsctl_plan_gpus_brief(doc, group, gpus), tsctl_plan_shape_words(group, shape));
}

void tsctl_plan_diff_table(const struct tsctl_plan_doc *a, const struct tsctl_plan_doc *b, FILE *to)
{
    struct diff d;
    diff_init(&d, a, b);
    fprintf(to, "%-10s %-5s %-5s %4s %8s  devices\n", "change", "from", "to", "load", "GB");
    for (int c = 0; c < CHANGE_COUNT; c++)
        for (uint32_t i = 0; i < d.move_count; i++)
            if (d.moves[i].change == (enum change)c)
                print_move(&d, &d.moves[i], to);
    fprintf(to, "\nReplicas    %u kept, %u flipped, %u regrouped, %u new, %u gone\n", d.counts[CHANGE_KEPT],
            d.counts[CHANGE_FLIPPED], d.counts[CHANGE_REGROUPED], d.counts[CHANGE_NEW],
            d.counts[CHANGE_GONE]);
    fprintf(to, "Reload      %u devices, %.2f GB of weights\n", d.reload_gpus, d.reload_bytes / 1e9);
    fprintf(to, "Objective   %.6g -> %.6g (%+.3g)\n", a->plan->objective, b->plan->objective,
            b->plan->objective - a->plan->objective);
    fprintf(to, "Price       %.3f -> %.3f $/h (%+.3f)\n", a->plan->price_per_hour, b->plan->price_per_hour,
            b->plan->price_per_hour - a->plan->price_per_hour);
    fprintf(to, "KV          %.4g -> %.4g MB between nodes for each request\n",
            tsctl_plan_crossing_bytes(a) / 1e6, tsctl_plan_crossing_bytes(b) / 1e6);
    diff_fini(&d);
}
