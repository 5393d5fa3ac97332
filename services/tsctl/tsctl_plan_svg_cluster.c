#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_plan_svg.h"

#define CHUNK_GPUS_MAX 8   /* squares in a row of a group's outline */
#define LABELLED_MAX   128 /* with more devices the squares are small and bear no text */
#define BOX_SPACE      16.0
#define BOX_MOST       ((SVG_WIDTH - 2 * SVG_MARGIN - BOX_SPACE) / 2) /* so two nodes stand side by side */

/* A device and what it does. */
struct tile {
    uint32_t gpu, group, stage; /* group UINT32_MAX: none */
    uint32_t layer_begin, layer_end;
    double x, y; /* of the square, once it is placed */
};

/* Devices of one group that stand side by side in a node: one outline. */
struct chunk {
    uint32_t first, count; /* tiles */
    double x, y, width;    /* inside the node's box */
};

struct box { /* a node */
    uint32_t node, first_chunk, chunk_count, gpus;
    double width, height, x, y;
};

struct layout {
    const struct tsctl_plan_doc *doc;
    struct tile *tiles; /* by node, then group, stage and rank; idle ones last */
    struct chunk *chunks;
    struct box *boxes;
    uint32_t tile_count, chunk_count, box_count;
    bool small;
    double side_x, side_y, gap, pad, strip, title; /* square, between, around, label of a group, of a node */
};

static int by_place(const void *a, const void *b)
{
    const struct tile *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->stage != y->stage)
        return x->stage < y->stage ? -1 : 1;
    return x->gpu < y->gpu ? -1 : x->gpu > y->gpu;
}

static void fill_tiles(struct layout *l)
{
    const struct ts_cluster *cluster = l->doc->cluster;
    const struct ts_plan *plan = l->doc->plan;
    l->tile_count = cluster->gpu_count;
    l->tiles = ts_xcalloc(l->tile_count + 1, sizeof *l->tiles);
    for (uint32_t i = 0; i < l->tile_count; i++)
        l->tiles[i] = (struct tile){.gpu = i, .group = UINT32_MAX};
    for (uint32_t g = 0; g < plan->group_count; g++) {
        const struct ts_group *group = &plan->groups[g];
        for (uint32_t s = 0, layer = 0; s < group->stage_count; layer += group->stages[s++].layers)
            for (uint32_t i = 0; i < group->stages[s].tp; i++) {
                struct tile *tile = &l->tiles[group->stages[s].gpus[i]];
                tile->group = g;
                tile->stage = s;
                tile->layer_begin = layer;
                tile->layer_end = layer + group->stages[s].layers;
            }
    }
    for (uint32_t i = 0; i < l->tile_count;) {
        uint32_t end = i;
        while (end < l->tile_count && cluster->gpus[end].node == cluster->gpus[i].node)
            end++;
        qsort(&l->tiles[i], end - i, sizeof *l->tiles, by_place);
        i = end;
    }
}

/* Places the chunks of a node in rows of about equal width, and so finds the size of its box. */
static void place_chunks(struct layout *l, struct box *box)
{
    double x = l->pad, y = l->title, row = l->strip + 2 * l->pad + l->side_y, sum = l->pad;
    for (uint32_t c = box->first_chunk; c < box->first_chunk + box->chunk_count; c++) {
        l->chunks[c].width = l->chunks[c].count * (l->side_x + l->gap) - l->gap + 2 * l->pad;
        sum += l->chunks[c].width + l->pad;
    }
    double even = sum / ceil(sum / BOX_MOST);
    for (uint32_t c = box->first_chunk; c < box->first_chunk + box->chunk_count; c++) {
        struct chunk *chunk = &l->chunks[c];
        if (x > l->pad && (x + chunk->width + l->pad > BOX_MOST + 1 || x + chunk->width / 2 > even)) {
            x = l->pad;
            y += row + l->pad;
        }
        chunk->x = x;
        chunk->y = y;
        x += chunk->width + l->pad;
        box->width = x > box->width ? x : box->width;
    }
    box->height = y + row + l->pad;
}

static void fill_boxes(struct layout *l)
{
    const struct ts_cluster *cluster = l->doc->cluster;
    l->chunks = ts_xcalloc(l->tile_count + 1, sizeof *l->chunks);
    l->boxes = ts_xcalloc(cluster->node_count + 1, sizeof *l->boxes);
    for (uint32_t i = 0; i < l->tile_count;) {
        struct box *box = &l->boxes[l->box_count++];
        box->node = cluster->gpus[l->tiles[i].gpu].node;
        box->first_chunk = l->chunk_count;
        while (i < l->tile_count && cluster->gpus[l->tiles[i].gpu].node == box->node) {
            struct chunk *chunk = &l->chunks[l->chunk_count++];
            chunk->first = i;
            while (i < l->tile_count && chunk->count < CHUNK_GPUS_MAX &&
                   cluster->gpus[l->tiles[i].gpu].node == box->node &&
                   l->tiles[i].group == l->tiles[chunk->first].group)
                i++, chunk->count++;
            box->gpus += chunk->count;
        }
        box->chunk_count = l->chunk_count - box->first_chunk;
        place_chunks(l, box);
    }
}

/* "a40-0: 8x A40"; cut to the box. */
static void node_title(const struct layout *l, const struct svg_page *page, const struct box *box)
{
    const struct ts_cluster *cluster = l->doc->cluster;
    char text[512];
    size_t used = (size_t)snprintf(text, sizeof text, "%s:", cluster->nodes[box->node].name);
    for (uint32_t t = 0; t < cluster->type_count; t++) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < box->gpus; i++) {
            const struct tile *tile = &l->tiles[l->chunks[box->first_chunk].first + i];
            count += cluster->gpus[tile->gpu].type == t;
        }
        if (count > 0 && used < sizeof text - 80)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s %ux %s",
                                     text[used - 1] == ':' ? "" : ",", count, cluster->types[t].name);
    }
    svg_text(page, box->x + l->pad, box->y + l->title - 7, svg_text_fit(text, 12.5, box->width - 2 * l->pad),
             true, SVG_START, "#455a64", text);
}

static void draw_tile(const struct layout *l, const struct svg_page *page, const struct tile *tile)
{
    const struct ts_cluster *cluster = l->doc->cluster;
    enum ts_phase phase = tile->group == UINT32_MAX ? TS_PHASE_NONE : l->doc->plan->groups[tile->group].phase;
    const struct svg_colour *c = svg_colour_of(phase);
    const char *type = tsctl_plan_type(cluster, tile->gpu)->name;
    bool alive = cluster->gpus[tile->gpu].alive, used = tile->group != UINT32_MAX;
    char layers[32];
    svg_box(page, tile->x, tile->y, l->side_x, l->side_y, 4, c->fill, c->stroke, 1);
    if (l->small)
        return;
    double middle = tile->x + l->side_x / 2;
    svg_text(page, middle, tile->y + l->side_y / 2 - (used || !alive ? 2 : -4),
             svg_text_fit(type, 12, l->side_x - 6), true, SVG_MIDDLE, c->text, type);
    if (used)
        snprintf(layers, sizeof layers, "%u-%u", tile->layer_begin, tile->layer_end - 1);
    else
        snprintf(layers, sizeof layers, "dead");
    if (used || !alive)
        svg_text(page, middle, tile->y + l->side_y / 2 + 12, 10, false, SVG_MIDDLE, c->text, layers);
}

static void draw_chunk(struct layout *l, const struct svg_page *page, const struct box *box,
                       const struct chunk *chunk)
{
    const struct ts_plan *plan = l->doc->plan;
    uint32_t group = l->tiles[chunk->first].group;
    double x = box->x + chunk->x, y = box->y + chunk->y;
    if (group != UINT32_MAX) {
        const struct svg_colour *c = svg_colour_of(plan->groups[group].phase);
        char text[TSCTL_PLAN_WORDS + 20], shape[TSCTL_PLAN_WORDS], name[16];
        svg_group_name(plan, group, name);
        if (l->small)
            snprintf(text, sizeof text, "%s", name);
        else
            snprintf(text, sizeof text, "%s %s", name, tsctl_plan_shape_words(&plan->groups[group], shape));
        svg_text(page, x + 1, y + l->strip - 3, svg_text_fit(text, l->small ? 9 : 11.5, chunk->width - 2),
                 true, SVG_START, c->text, text);
        svg_box(page, x, y + l->strip, chunk->width, l->side_y + 2 * l->pad, 6, "none", c->stroke, 2);
    }
    for (uint32_t i = 0; i < chunk->count; i++) {
        struct tile *tile = &l->tiles[chunk->first + i];
        tile->x = x + l->pad + i * (l->side_x + l->gap);
        tile->y = y + l->strip + l->pad;
        draw_tile(l, page, tile);
    }
}

static const struct tile *tile_of(const struct layout *l, uint32_t gpu)
{
    for (uint32_t i = 0; i < l->tile_count; i++)
        if (l->tiles[i].gpu == gpu)
            return &l->tiles[i];
    return NULL;
}

/* A dashed line between stages of one group that stand in different nodes: activations go there. */
static void draw_hops(const struct layout *l, const struct svg_page *page)
{
    const struct ts_plan *plan = l->doc->plan;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        for (uint32_t s = 0; s + 1 < plan->groups[g].stage_count; s++) {
            const struct ts_stage *stages = &plan->groups[g].stages[s];
            const struct tile *a = tile_of(l, stages[0].gpus[0]), *b = tile_of(l, stages[1].gpus[0]);
            if (l->doc->cluster->gpus[a->gpu].node == l->doc->cluster->gpus[b->gpu].node)
                continue;
            bool level = fabs(a->y - b->y) < 1; /* side by side: the line runs below the squares */
            double ax = a->x + l->side_x / 2, bx = b->x + l->side_x / 2, dip = level ? 16 : 0;
            double ay = a->y + (b->y >= a->y ? l->side_y : 0), by = b->y + (b->y > a->y ? 0 : l->side_y);
            by = level ? b->y + l->side_y : by;
            double my = (ay + by) / 2 + dip;
            fprintf(page->to,
                    "<path d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f\" fill=\"none\" stroke=\"%s\" "
                    "stroke-width=\"2\" stroke-dasharray=\"5 4\"/>\n",
                    ax, ay, ax, my, bx, my, bx, by, svg_colour_of(plan->groups[g].phase)->stroke);
        }
    }
}

/* Nodes from left to right in rows, each row as high as its highest. */
static void draw_boxes(struct layout *l, struct svg_page *page)
{
    double x = SVG_MARGIN, row = 0;
    for (uint32_t b = 0; b < l->box_count; b++) {
        struct box *box = &l->boxes[b];
        if (x > SVG_MARGIN && x + box->width > SVG_WIDTH - SVG_MARGIN) {
            x = SVG_MARGIN;
            page->y += row + BOX_SPACE;
            row = 0;
        }
        box->x = x;
        box->y = page->y;
        x += box->width + BOX_SPACE;
        row = box->height > row ? box->height : row;
        svg_box(page, box->x, box->y, box->width, box->height, 8, "#fafafa", "#90a4ae", 1.2);
        node_title(l, page, box);
        for (uint32_t c = box->first_chunk; c < box->first_chunk + box->chunk_count; c++)
            draw_chunk(l, page, box, &l->chunks[c]);
    }
    page->y += row;
}

void svg_cluster(struct svg_page *page)
{
    struct layout l = {.doc = page->doc, .small = page->doc->cluster->gpu_count > LABELLED_MAX};
    char text[160];
    l.side_x = l.small ? 18 : 60;
    l.side_y = l.small ? 18 : 40;
    l.gap = l.small ? 2 : 4;
    l.pad = l.small ? 4 : 7;
    l.strip = l.small ? 12 : 17;
    l.title = l.small ? 20 : 24;
    fill_tiles(&l);
    fill_boxes(&l);
    snprintf(text, sizeof text, "Cluster: %u devices in %u nodes", l.tile_count, l.box_count);
    svg_heading(page, text);
    draw_boxes(&l, page);
    draw_hops(&l, page);
    ts_free(l.tiles);
    ts_free(l.chunks);
    ts_free(l.boxes);
}
