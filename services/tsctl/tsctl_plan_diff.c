#include <math.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_plan.h"

/*
 * A device keeps its weights when it keeps its place in a replica of the same shape: the same layers, the
 * same TP, the same rank, of the same model. Otherwise it loads its whole shard. So a flip loads nothing.
 */

enum change { CHANGE_KEPT, CHANGE_FLIPPED, CHANGE_REGROUPED, CHANGE_NEW, CHANGE_GONE, CHANGE_COUNT };

static const char *const change_names[CHANGE_COUNT] = {"kept", "flipped", "regrouped", "new", "gone"};

/* What a device holds in one plan. */
struct shard {
    uint32_t group; /* UINT32_MAX: none */
    uint32_t layer_begin, layer_end, tp, rank;
    bool head;
};

struct move { /* one replica of `b`, or of `a` when it is gone */
    enum change change;
    uint32_t before, after; /* indices; UINT32_MAX = none, or several */
    uint32_t reload_gpus;
    double reload_bytes;
};

struct diff {
    const struct tsctl_plan_doc *a, *b;
    struct shard *before, *after; /* by device of a's and of b's cluster */
    uint32_t *old;                /* by device of b: the same one in a; a's gpu_count = it is new */
    struct move *moves;
    uint32_t move_count, counts[CHANGE_COUNT];
    uint32_t reload_gpus;
    double reload_bytes;
};

static struct shard *shards_of(const struct tsctl_plan_doc *doc)
{
    struct shard *shards = ts_xcalloc(doc->cluster->gpu_count + 1, sizeof *shards);
    for (uint32_t i = 0; i < doc->cluster->gpu_count; i++)
        shards[i].group = UINT32_MAX;
    for (uint32_t g = 0; g < doc->plan->group_count; g++) {
        const struct ts_group *group = &doc->plan->groups[g];
        for (uint32_t s = 0, layer = 0; s < group->stage_count; layer += group->stages[s++].layers)
            for (uint32_t i = 0; i < group->stages[s].tp; i++)
                shards[group->stages[s].gpus[i]] =
                    (struct shard){.group = g,
                                   .layer_begin = layer,
                                   .layer_end = layer + group->stages[s].layers,
                                   .tp = group->stages[s].tp,
                                   .rank = i,
                                   .head = s + 1 == group->stage_count};
    }
    return shards;
}

/* The device of `a` at the place of this one of `b`: same node name, place and type. */
static uint32_t same_gpu(const struct tsctl_plan_doc *a, const struct tsctl_plan_doc *b, uint32_t gpu)
{
    const char *node = b->cluster->nodes[b->cluster->gpus[gpu].node].name;
    uint32_t place = tsctl_plan_place(b->cluster, gpu), g = 0;
    while (g < a->cluster->gpu_count && strcmp(a->cluster->nodes[a->cluster->gpus[g].node].name, node) != 0)
        g++;
    g += place;
    if (g < a->cluster->gpu_count && strcmp(a->cluster->nodes[a->cluster->gpus[g].node].name, node) == 0 &&
        strcmp(tsctl_plan_type(a->cluster, g)->name, tsctl_plan_type(b->cluster, gpu)->name) == 0)
        return g;
    return a->cluster->gpu_count;
}

static bool same_model(const struct diff *d)
{
    return strcmp(d->a->model->name, d->b->model->name) == 0 && d->a->model->layers == d->b->model->layers &&
           d->a->model->hidden == d->b->model->hidden;
}

static bool holds_already(const struct diff *d, uint32_t gpu)
{
    const struct shard *now = &d->after[gpu], *was;
    if (d->old[gpu] == d->a->cluster->gpu_count || !same_model(d))
        return false;
    was = &d->before[d->old[gpu]];
    return was->group != UINT32_MAX && was->layer_begin == now->layer_begin &&
           was->layer_end == now->layer_end && was->tp == now->tp && was->rank == now->rank &&
           was->head == now->head;
}

/* The one replica of `a` that the devices of this one of `b` made up, whole and in this shape; otherwise
 * UINT32_MAX. `any`: at least one of them was in use. */
static uint32_t predecessor(const struct diff *d, const struct ts_group *group, bool *any)
{
    uint32_t from = UINT32_MAX;
    bool same = true;
    *any = false;
    for (uint32_t s = 0; s < group->stage_count; s++) {
        for (uint32_t i = 0; i < group->stages[s].tp; i++) {
            uint32_t old = d->old[group->stages[s].gpus[i]];
            uint32_t was = old < d->a->cluster->gpu_count ? d->before[old].group : UINT32_MAX;
            same = same && was != UINT32_MAX && (from == UINT32_MAX || was == from) &&
                   holds_already(d, group->stages[s].gpus[i]);
            *any = *any || was != UINT32_MAX;
            from = was != UINT32_MAX ? was : from;
        }
    }
    return same && from != UINT32_MAX &&
                   tsctl_plan_group_gpus(&d->a->plan->groups[from]) == tsctl_plan_group_gpus(group)
               ? from
               : UINT32_MAX;
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
            if (holds_already(d, group->stages[s].gpus[i]))
                continue;
            move.reload_gpus++;
            move.reload_bytes += tsctl_plan_stage_bytes(d->b->model, group, s);
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
    for (uint32_t gpu = 0; gpu < d->b->cluster->gpu_count; gpu++) {
        uint32_t old = d->old[gpu];
        if (d->after[gpu].group != UINT32_MAX && old < d->a->cluster->gpu_count &&
            d->before[old].group != UINT32_MAX)
            seen[d->before[old].group] = true;
    }
    for (uint32_t g = 0; g < d->a->plan->group_count; g++)
        if (!seen[g])
            add_move(d, (struct move){.change = CHANGE_GONE, .before = g, .after = UINT32_MAX});
    ts_free(seen);
}

static void diff_init(struct diff *d, const struct tsctl_plan_doc *a, const struct tsctl_plan_doc *b)
{
    *d = (struct diff){.a = a, .b = b, .before = shards_of(a), .after = shards_of(b)};
    d->old = ts_xcalloc(b->cluster->gpu_count + 1, sizeof *d->old);
    d->moves = ts_xcalloc(a->plan->group_count + b->plan->group_count + 1, sizeof *d->moves);
    for (uint32_t gpu = 0; gpu < b->cluster->gpu_count; gpu++)
        d->old[gpu] = same_gpu(a, b, gpu);
    for (uint32_t g = 0; g < b->plan->group_count; g++)
        add_after(d, g);
    add_gone(d);
}

static void diff_fini(struct diff *d)
{
    ts_free(d->before);
    ts_free(d->after);
    ts_free(d->old);
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
    fprintf(to, "%-10s %-5s %-5s %-9s ", change_names[move->change], before, after,
            tsctl_plan_shape_words(group, shape));
    if (move->reload_gpus > 0)
        fprintf(to, "%3u %9.2f  ", move->reload_gpus, move->reload_bytes / 1e9);
    else
        fprintf(to, "%3s %9s  ", "-", "-");
    fprintf(to, "%s\n", tsctl_plan_gpus_words(doc, group, true, gpus));
}

void tsctl_plan_diff_table(const struct tsctl_plan_doc *a, const struct tsctl_plan_doc *b, FILE *to)
{
    struct diff d;
    diff_init(&d, a, b);
    fprintf(to, "%-10s %-5s %-5s %-9s %3s %9s  devices\n", "change", "from", "to", "shape", "GPU", "GB load");
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
