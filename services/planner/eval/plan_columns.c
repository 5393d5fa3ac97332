#include "services/planner/eval/plan_columns.h"

#include <math.h>
#include <string.h>

#include "common/base/ts_arena.h"
#include "common/base/ts_assert.h"
#include "common/base/ts_map.h"
#include "common/base/ts_mem.h"

#define MEMORY_MAX ((size_t)40 << 20)
#define SLOTS_MAX  (TS_CLASSES_MAX * TS_COST_CODEC_COUNT)
#define CELLS_MAX  (PLAN_POINTS_MAX * PLAN_POINTS_MAX)

/* Each layer range that two replicas share is a leg over at most three cards; so is a hop of a pipeline. */
#define CARDS_MAX (3 * 2 * TS_STAGES_MAX)

/* Below this a column gains nothing worth a row's room; also what a beaten column may be better by. */
#define GAIN_MIN 1e-9
#define GAIN_TIE 1e-12

struct scratch { /* of one table while it is made */
    uint32_t first[SLOTS_MAX + 1], count;
    double gain[SLOTS_MAX * CELLS_MAX];
    uint8_t p[SLOTS_MAX * CELLS_MAX], q[SLOTS_MAX * CELLS_MAX];
    double gain_max[SLOTS_MAX], visible_s[SLOTS_MAX];
    double cells[CELLS_MAX]; /* of one slot: gain by (p, q), 0 = none */
};

struct plan_columns {
    struct plan_shapes *shapes;
    const struct plan_problem *problem;
    struct ts_arena arena;
    struct ts_map *kinds, *tables, *pairs;
    uint32_t kind_count, pair_count;
    double bytes[SLOTS_MAX];
    struct plan_card *cards; /* scratch */
    uint32_t *link_ids;      /* [from * nodes + to]: 0 = not asked yet */
    struct link {
        uint16_t from, to;
    } * links; /* [id - 2 * nodes] */
    uint32_t link_count;
    size_t links_capacity;
    struct scratch *scratch;
};

struct plan_columns *plan_columns_new(struct plan_shapes *shapes)
{
    struct plan_columns *columns = ts_xcalloc(1, sizeof *columns);
    columns->shapes = shapes;
    columns->problem = plan_shapes_problem(shapes);
    ts_arena_init(&columns->arena);
    columns->kinds = ts_map_new();
    columns->tables = ts_map_new();
    columns->pairs = ts_map_new();
    size_t nodes = columns->problem->cluster->node_count;
    columns->cards = ts_xcalloc(CARDS_MAX, sizeof *columns->cards);
    columns->link_ids = ts_xcalloc(nodes * nodes, sizeof *columns->link_ids);
    columns->scratch = ts_xmalloc(sizeof *columns->scratch);
    const struct ts_demand *demand = columns->problem->demand;
    for (uint32_t k = 0; k < demand->class_count; k++) {
        double prompt = demand->classes[k].prompt_tokens;
        for (enum ts_cost_codec c = 0; c < TS_COST_CODEC_COUNT; c++) {
            columns->bytes[plan_columns_slot(k, c)] =
                prompt * (double)ts_model_kv_token_bytes(columns->problem->model) *
                ts_cost_codec_ratio(c, prompt);
        }
    }
    return columns;
}

void plan_columns_destroy(struct plan_columns **columns)
{
    struct plan_columns *old = *columns;
    if (!old) {
        return;
    }
    ts_map_destroy(&old->kinds);
    ts_map_destroy(&old->tables);
    ts_map_destroy(&old->pairs);
    ts_arena_fini(&old->arena);
    ts_free(old->cards);
    ts_free(old->link_ids);
    ts_free(old->links);
    ts_free(old->scratch);
    ts_free(old);
    *columns = NULL;
}

bool plan_columns_trim(struct plan_columns *columns)
{
    if (columns->arena.used_bytes < MEMORY_MAX) {
        return false;
    }
    struct ts_map **maps[] = {&columns->kinds, &columns->tables, &columns->pairs};
    for (size_t i = 0; i < TS_ARRAY_SIZE(maps); i++) {
        ts_map_destroy(maps[i]);
        *maps[i] = ts_map_new();
    }
    ts_arena_reset(&columns->arena);
    columns->kind_count = columns->pair_count = 0;
    return true;
}

double plan_columns_bytes(const struct plan_columns *columns, uint32_t k, enum ts_cost_codec codec)
{
    return columns->bytes[plan_columns_slot(k, codec)];
}

/* --- Cards --- */

uint32_t plan_columns_card_count(const struct plan_columns *columns)
{
    return 2 * columns->problem->cluster->node_count + columns->link_count;
}

bool plan_columns_card_is_link(const struct plan_columns *columns, uint32_t id, uint32_t *from, uint32_t *to)
{
    uint32_t cards = 2 * columns->problem->cluster->node_count;
    if (id < cards) {
        return false;
    }
    *from = columns->links[id - cards].from;
    *to = columns->links[id - cards].to;
    return true;
}

double plan_columns_card_speed(const struct plan_columns *columns, uint32_t id)
{
    const struct ts_cluster *cluster = columns->problem->cluster;
    uint32_t from, to;
    if (plan_columns_card_is_link(columns, id, &from, &to)) {
        return ts_cluster_link(cluster, from, to)->bytes_per_s;
    }
    return id % 2 ? cluster->nodes[id / 2].nic_in_bytes_per_s : cluster->nodes[id / 2].nic_out_bytes_per_s;
}

/* The card of a link, made at first use; 0 where the nodes' own cards are no faster. */
static uint32_t link_card(struct plan_columns *columns, uint32_t from, uint32_t to)
{
    const struct ts_cluster *cluster = columns->problem->cluster;
    uint32_t *id = &columns->link_ids[(size_t)from * cluster->node_count + to];
    double own = fmin(cluster->nodes[from].nic_out_bytes_per_s, cluster->nodes[to].nic_in_bytes_per_s);
    if (*id == 0 && ts_cluster_link(cluster, from, to)->bytes_per_s < own) {
        ts_array_reserve((void **)&columns->links, &columns->links_capacity, columns->link_count + 1,
                         sizeof *columns->links);
        columns->links[columns->link_count] = (struct link){(uint16_t)from, (uint16_t)to};
        *id = 2 * cluster->node_count + columns->link_count++;
    }
    return *id;
}

/* Adds to the card's load, in the order of first mention. */
static uint32_t load_card(struct plan_card *cards, uint32_t count, uint32_t id, double load)
{
    for (uint32_t i = 0; i < count; i++) {
        if (cards[i].id == id) {
            cards[i].load += load;
            return count;
        }
    }
    TS_ASSERT(count < CARDS_MAX);
    cards[count] = (struct plan_card){.id = id, .load = load};
    return count + 1;
}

/* All cards on the way from one node to another. */
static uint32_t load_way(struct plan_columns *columns, uint32_t count, uint32_t from, uint32_t to,
                         double load)
{
    uint32_t link = link_card(columns, from, to);
    count = load_card(columns->cards, count, from * 2, load);
    count = load_card(columns->cards, count, to * 2 + 1, load);
    return link ? load_card(columns->cards, count, link, load) : count;
}

/* --- Kinds --- */

static void make_kind(struct plan_columns *columns, struct plan_kind *kind, const struct plan_group *group)
{
    const struct ts_cluster *cluster = columns->problem->cluster;
    const struct plan_shape *shape = group->shape;
    uint8_t order[PLAN_PARTS_MAX];
    plan_shape_parts(columns->shapes, group, order);
    *kind =
        (struct plan_kind){.id = columns->kind_count++, .shape = shape, .stage_count = shape->stage_count};
    double hop = ts_cost_hop_bytes(columns->problem->model, 1);
    uint32_t count = 0;
    for (uint32_t s = 0; s < shape->stage_count; s++) {
        const struct ts_cell *cell = &cluster->cells[group->parts[order[shape->stages[s].part]].cell];
        kind->stages[s] = (struct plan_kind_stage){cell->node, cell->type, shape->stages[s].layers};
        if (s > 0 && kind->stages[s - 1].node != cell->node) {
            count = load_way(columns, count, kind->stages[s - 1].node, cell->node, hop);
        }
    }
    kind->card_count = count;
    kind->cards = ts_arena_copy(&columns->arena, columns->cards, count * sizeof *columns->cards);
}

struct plan_kind *plan_columns_kind(struct plan_columns *columns, const struct plan_group *group)
{
    struct {
        uint32_t shape, count;
        struct plan_part parts[PLAN_PARTS_MAX];
    } key = {.shape = group->shape->id, .count = group->part_count};
    memcpy(key.parts, group->parts, group->part_count * sizeof *key.parts);
    size_t size = offsetof(__typeof__(key), parts) + group->part_count * sizeof *key.parts;
    struct plan_kind *kind = ts_map_get(columns->kinds, &key, size);
    if (!kind) {
        kind = ts_arena_alloc(&columns->arena, sizeof *kind);
        make_kind(columns, kind, group);
        (void)ts_map_put(columns->kinds, &key, size, kind);
    }
    return kind;
}

/* --- Tables --- */

static const struct plan_point *point_of(const struct plan_shape *shape, uint32_t index)
{
    return &shape->points[index];
}

static double charge(enum ts_cost_codec codec)
{
    return codec == TS_COST_CODEC_NONE ? 0 : PLAN_LOSSY_CHARGE;
}

static void fill_cells(const struct plan_columns *columns, const struct plan_shape *prefill,
                       const struct plan_shape *decode, uint32_t k, enum ts_cost_codec codec,
                       double visible_s, double *cells)
{
    const struct ts_class *class_ = &columns->problem->demand->classes[k];
    bool both = prefill == decode;
    for (uint32_t p = 0; p < prefill->point_count; p++) {
        for (uint32_t q = 0; q < decode->point_count; q++) {
            double gain = 0;
            if (!both || p == q) {
                gain = 1 - charge(codec) -
                       plan_miss_of(class_, prefill->prefill_s[k], point_of(prefill, p), point_of(decode, q),
                                    visible_s)
                           .any;
            }
            cells[p * decode->point_count + q] = gain > GAIN_MIN ? gain : 0;
        }
    }
}

/* Whether point b takes no more of the replica than point a does. */
static bool takes_less(const struct plan_shape *shape, uint32_t k, uint32_t b, uint32_t a)
{
    const struct plan_point *x = point_of(shape, b), *y = point_of(shape, a);
    if (((shape->phase & TS_PHASE_PREFILL) && x->prefill[k] > y->prefill[k]) ||
        ((shape->phase & TS_PHASE_DECODE) &&
         (x->compute[k] > y->compute[k] || x->memory[k] > y->memory[k]))) {
        return false;
    }
    return true;
}

/* Columns are compared along one of their two points: a chain of such steps finds every column that is beaten
 * in both. A column that is left out beats nothing any more, so of equal ones the last stays. */
static void drop_beaten(const struct plan_shape *prefill, const struct plan_shape *decode, uint32_t k,
                        double *cells)
{
    uint32_t rows = prefill->point_count, width = decode->point_count;
    bool both = prefill == decode;
    for (uint32_t a = 0; a < rows; a++) {
        for (uint32_t b = 0; b < rows; b++) {
            if (a == b || !takes_less(prefill, k, b, a)) {
                continue;
            }
            for (uint32_t q = 0; q < width; q++) {
                double *mine = &cells[a * width + (both ? a : q)], other = cells[b * width + (both ? b : q)];
                if (other > 0 && other >= *mine - GAIN_TIE) {
                    *mine = 0;
                }
            }
        }
    }
    for (uint32_t a = 0; a < width && !both; a++) {
        for (uint32_t b = 0; b < width; b++) {
            if (a == b || !takes_less(decode, k, b, a)) {
                continue;
            }
            for (uint32_t p = 0; p < rows; p++) {
                double *mine = &cells[p * width + a], other = cells[p * width + b];
                if (other > 0 && other >= *mine - GAIN_TIE) {
                    *mine = 0;
                }
            }
        }
    }
}

static void add_cells(struct scratch *s, uint32_t slot, uint32_t rows, uint32_t width)
{
    s->gain_max[slot] = 0;
    for (uint32_t i = 0; i < rows * width; i++) {
        if (s->cells[i] > 0) {
            s->gain[s->count] = s->cells[i];
            s->p[s->count] = (uint8_t)(i / width);
            s->q[s->count] = (uint8_t)(i % width);
            s->gain_max[slot] = fmax(s->gain_max[slot], s->cells[i]);
            s->count++;
        }
    }
}

static void fill_slot(struct plan_columns *columns, const struct plan_shape *prefill,
                      const struct plan_shape *decode, const struct ts_link *path, uint32_t slot)
{
    struct scratch *s = columns->scratch;
    uint32_t k = slot / TS_COST_CODEC_COUNT;
    enum ts_cost_codec codec = (enum ts_cost_codec)(slot % TS_COST_CODEC_COUNT);
    bool both = prefill == decode;
    bool allowed = both ? codec == TS_COST_CODEC_NONE : columns->problem->codec_allowed[codec];
    s->gain_max[slot] = 0;
    s->visible_s[slot] = 0;
    if (!allowed || !prefill->fits[k] || !decode->fits[k]) {
        return;
    }
    if (!both) {
        s->visible_s[slot] =
            ts_cost_kv_visible_s(path, columns->problem->model, columns->bytes[slot], prefill->prefill_s[k]);
    }
    fill_cells(columns, prefill, decode, k, codec, s->visible_s[slot], s->cells);
    drop_beaten(prefill, decode, k, s->cells);
    add_cells(s, slot, prefill->point_count, decode->point_count);
}

static struct plan_table *make_table(struct plan_columns *columns, const struct plan_shape *prefill,
                                     const struct plan_shape *decode, const struct ts_link *path)
{
    struct scratch *s = columns->scratch;
    uint32_t slots = columns->problem->demand->class_count * TS_COST_CODEC_COUNT;
    s->count = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        s->first[slot] = s->count;
        fill_slot(columns, prefill, decode, path, slot);
    }
    s->first[slots] = s->count;
    struct ts_arena *arena = &columns->arena;
    struct plan_table *table = ts_arena_alloc(arena, sizeof *table);
    *table = (struct plan_table){
        .first = ts_arena_copy(arena, s->first, (slots + 1) * sizeof *s->first),
        .gain = ts_arena_copy(arena, s->gain, s->count * sizeof *s->gain),
        .p = ts_arena_copy(arena, s->p, s->count),
        .q = ts_arena_copy(arena, s->q, s->count),
        .gain_max = ts_arena_copy(arena, s->gain_max, slots * sizeof *s->gain_max),
        .visible_s = ts_arena_copy(arena, s->visible_s, slots * sizeof *s->visible_s),
    };
    return table;
}

static const struct plan_table *find_table(struct plan_columns *columns, const struct plan_shape *prefill,
                                           const struct plan_shape *decode, const struct ts_link *path)
{
    struct {
        uint32_t prefill, decode;
        double bytes_per_s, latency_s;
    } key = {prefill->id, decode->id, path->bytes_per_s, path->latency_s};
    struct plan_table *table = ts_map_get(columns->tables, &key, sizeof key);
    if (!table) {
        table = make_table(columns, prefill, decode, path);
        (void)ts_map_put(columns->tables, &key, sizeof key, table);
    }
    return table;
}

/* --- Pairs --- */

struct path {
    double s_per_byte; /* of all KV, by the slowest link or card */
    double latency_s;
    uint32_t card_count;
};

/* The layers that stage a of prefill owns and stage b of decode too, as a share of the model. */
static void add_leg(struct plan_columns *columns, struct path *path, const struct plan_kind_stage *a,
                    const struct plan_kind_stage *b, double share)
{
    const struct ts_cluster *cluster = columns->problem->cluster;
    if (a->node != b->node) {
        path->latency_s = fmax(path->latency_s, ts_cluster_link(cluster, a->node, b->node)->latency_s);
        path->card_count = load_way(columns, path->card_count, a->node, b->node, share);
        return;
    }
    const struct ts_link *links[] = {ts_cluster_inner(cluster, a->node, a->type),
                                     ts_cluster_inner(cluster, b->node, b->type)};
    for (size_t i = 0; i < TS_ARRAY_SIZE(links); i++) {
        path->latency_s = fmax(path->latency_s, links[i]->latency_s);
        path->s_per_byte = fmax(path->s_per_byte, share / links[i]->bytes_per_s);
    }
}

static struct path find_path(struct plan_columns *columns, const struct plan_kind *prefill,
                             const struct plan_kind *decode)
{
    struct path path = {0};
    uint32_t a = 0, b = 0, a_end = prefill->stages[0].layers, b_end = decode->stages[0].layers, at = 0;
    while (a < prefill->stage_count && b < decode->stage_count) {
        uint32_t end = a_end < b_end ? a_end : b_end;
        add_leg(columns, &path, &prefill->stages[a], &decode->stages[b],
                (double)(end - at) / columns->problem->model->layers);
        at = end;
        if (end == a_end && ++a < prefill->stage_count) {
            a_end += prefill->stages[a].layers;
        }
        if (end == b_end && ++b < decode->stage_count) {
            b_end += decode->stages[b].layers;
        }
    }
    for (uint32_t i = 0; i < path.card_count; i++) {
        const struct plan_card *card = &columns->cards[i];
        path.s_per_byte = fmax(path.s_per_byte, card->load / plan_columns_card_speed(columns, card->id));
    }
    return path;
}

static struct plan_pair *make_pair(struct plan_columns *columns, const struct plan_kind *prefill,
                                   const struct plan_kind *decode)
{
    struct plan_pair *pair = ts_arena_alloc(&columns->arena, sizeof *pair);
    *pair = (struct plan_pair){.id = columns->pair_count++, .prefill = prefill, .decode = decode};
    struct ts_link link = {.bytes_per_s = INFINITY};
    if (prefill != decode) {
        struct path path = find_path(columns, prefill, decode);
        link = (struct ts_link){.bytes_per_s = 1 / path.s_per_byte, .latency_s = path.latency_s};
        pair->card_count = path.card_count;
        pair->cards =
            ts_arena_copy(&columns->arena, columns->cards, path.card_count * sizeof *columns->cards);
    }
    if (link.bytes_per_s > 0) {
        pair->table = find_table(columns, prefill->shape, decode->shape, &link);
    }
    return pair;
}

const struct plan_pair *plan_columns_pair(struct plan_columns *columns, const struct plan_kind *prefill,
                                          const struct plan_kind *decode)
{
    uint64_t key = (uint64_t)prefill->id << 32 | decode->id;
    struct plan_pair *pair = ts_map_get_u64(columns->pairs, key);
    if (!pair) {
        pair = make_pair(columns, prefill, decode);
        (void)ts_map_put_u64(columns->pairs, key, pair);
    }
    return pair;
}

struct plan_miss plan_columns_miss(const struct plan_columns *columns, const struct plan_pair *pair,
                                   uint32_t k, enum ts_cost_codec codec, uint32_t p, uint32_t q)
{
    const struct plan_shape *prefill = pair->prefill->shape;
    return plan_miss_of(&columns->problem->demand->classes[k], prefill->prefill_s[k], point_of(prefill, p),
                        point_of(pair->decode->shape, q),
                        pair->table->visible_s[plan_columns_slot(k, codec)]);
}
