#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "services/tsctl/tsctl_plan_svg.h"

#define BOX_WIDTH    280.0
#define BOX_HEIGHT   44.0
#define BOX_SPACE    10.0
#define SPACE_MOST   60.0  /* a short column is spread up to this */
#define LINES_MOST   40    /* more replicas in a column get one line each */
#define RIBBONS      240.0 /* width of all flows together */
#define LABELLED_MAX 64    /* more flows bear a label only where they are wide */
#define LABEL_HEIGHT 13.0
#define COLUMNS_BOTH 4 /* colocated replicas side by side */

struct ribbon { /* all classes together */
    uint32_t prefill, decode;
    enum ts_cost_codec codec;
    double rate, thick, slot; /* drawn width; what it takes of a box's edge */
    double from_y, to_y;
};

struct node { /* a replica in the picture */
    uint32_t group;
    double y, height, slots; /* `slots`: of its ribbons together */
    double weight;           /* mean place of its partners: what the right column is sorted by */
    double cursor;
};

struct flows {
    const struct tsctl_plan_doc *doc;
    struct ribbon *ribbons;
    uint32_t ribbon_count;
    struct node *left, *right; /* prefill and decode replicas, from the top */
    uint32_t left_count, right_count;
    double box_height;
};

static struct ribbon *ribbon_of(struct flows *f, const struct ts_flow *flow)
{
    for (uint32_t i = 0; i < f->ribbon_count; i++) {
        struct ribbon *r = &f->ribbons[i];
        if (r->prefill == flow->prefill && r->decode == flow->decode && r->codec == flow->codec)
            return r;
    }
    f->ribbons[f->ribbon_count] =
        (struct ribbon){.prefill = flow->prefill, .decode = flow->decode, .codec = flow->codec};
    return &f->ribbons[f->ribbon_count++];
}

static void fill_ribbons(struct flows *f)
{
    const struct ts_plan *plan = f->doc->plan;
    double sum = 0;
    f->ribbons = ts_xcalloc(plan->flow_count + 1, sizeof *f->ribbons);
    for (uint32_t i = 0; i < plan->flow_count; i++) {
        if (plan->flows[i].prefill == plan->flows[i].decode || plan->flows[i].rate <= 0)
            continue;
        ribbon_of(f, &plan->flows[i])->rate += plan->flows[i].rate;
        sum += plan->flows[i].rate;
    }
    for (uint32_t i = 0; i < f->ribbon_count; i++) {
        struct ribbon *r = &f->ribbons[i];
        r->thick = r->rate / sum * RIBBONS;
        r->thick = r->thick < 1.2 ? 1.2 : r->thick;
        r->slot = r->thick + 2;
        if (f->ribbon_count <= LABELLED_MAX && r->slot < LABEL_HEIGHT + 2)
            r->slot = LABEL_HEIGHT + 2;
    }
}

static struct node *find(struct node *nodes, uint32_t count, uint32_t group)
{
    for (uint32_t i = 0; i < count; i++)
        if (nodes[i].group == group)
            return &nodes[i];
    return NULL;
}

static void fill_nodes(struct flows *f)
{
    const struct ts_plan *plan = f->doc->plan;
    f->left = ts_xcalloc(plan->group_count + 1, sizeof *f->left);
    f->right = ts_xcalloc(plan->group_count + 1, sizeof *f->right);
    for (uint32_t g = 0; g < plan->group_count; g++) {
        if (plan->groups[g].phase == TS_PHASE_PREFILL)
            f->left[f->left_count++].group = g;
        else if (plan->groups[g].phase == TS_PHASE_DECODE)
            f->right[f->right_count++].group = g;
    }
    for (uint32_t i = 0; i < f->ribbon_count; i++) {
        struct node *left = find(f->left, f->left_count, f->ribbons[i].prefill);
        struct node *right = find(f->right, f->right_count, f->ribbons[i].decode);
        if (left)
            left->slots += f->ribbons[i].slot;
        if (right)
            right->slots += f->ribbons[i].slot;
    }
}

/* Stacks a column from `y` down; returns its end. */
static double stack(const struct flows *f, struct node *nodes, uint32_t count, double y, double space)
{
    for (uint32_t i = 0; i < count; i++) {
        struct node *n = &nodes[i];
        n->height = n->slots + 6 > f->box_height ? n->slots + 6 : f->box_height;
        n->y = y;
        n->cursor = y + (n->height - n->slots) / 2;
        y += n->height + space;
    }
    return count ? y - space : y;
}

/* The same, spread over the height down to `end`, and in its middle if that is too much. */
static void spread(const struct flows *f, struct node *nodes, uint32_t count, double top, double end,
                   double space)
{
    double left = end - stack(f, nodes, count, top, space);
    double more = count > 1 ? left / (count - 1) : 0;
    more = space + more > SPACE_MOST ? SPACE_MOST - space : more;
    stack(f, nodes, count, top + (left - (count > 1 ? more * (count - 1) : 0)) / 2, space + more);
}

static int by_weight(const void *a, const void *b)
{
    const struct node *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? -1 : 1;
    return x->group < y->group ? -1 : x->group > y->group;
}

/* Decode replicas stand where most of their requests come from, so that few ribbons cross. */
static void sort_right(struct flows *f)
{
    for (uint32_t i = 0; i < f->right_count; i++) {
        double sum = 0, rate = 0;
        for (uint32_t r = 0; r < f->ribbon_count; r++) {
            const struct node *left = find(f->left, f->left_count, f->ribbons[r].prefill);
            if (f->ribbons[r].decode != f->right[i].group || !left)
                continue;
            sum += f->ribbons[r].rate * (left->y + left->height / 2);
            rate += f->ribbons[r].rate;
        }
        f->right[i].weight = rate > 0 ? sum / rate : 1e9;
    }
    qsort(f->right, f->right_count, sizeof *f->right, by_weight);
}

/* Each ribbon gets its place at both edges, in the order of the other side. */
static void place_ribbons(struct flows *f)
{
    for (uint32_t i = 0; i < f->left_count; i++) {
        for (uint32_t j = 0; j < f->right_count; j++) {
            for (uint32_t r = 0; r < f->ribbon_count; r++) {
                struct ribbon *ribbon = &f->ribbons[r];
                if (ribbon->prefill != f->left[i].group || ribbon->decode != f->right[j].group)
                    continue;
                ribbon->from_y = f->left[i].cursor + ribbon->slot / 2;
                ribbon->to_y = f->right[j].cursor + ribbon->slot / 2;
                f->left[i].cursor += ribbon->slot;
                f->right[j].cursor += ribbon->slot;
            }
        }
    }
}

static void draw_ribbon(const struct svg_page *page, const struct ribbon *r)
{
    double x1 = SVG_MARGIN + BOX_WIDTH + 1, x2 = SVG_WIDTH - SVG_MARGIN - BOX_WIDTH - 2;
    double bend = (x2 - x1) * 0.45, length = 9 + r->thick * 0.2, half = r->thick / 2 + 4;
    const char *colour = svg_codec_colour(r->codec);
    fprintf(page->to,
            "<path d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f\" fill=\"none\" stroke=\"%s\" "
            "stroke-width=\"%.1f\" stroke-opacity=\"0.5\"/>\n",
            x1, r->from_y, x1 + bend, r->from_y, x2 - bend, r->to_y, x2 - length, r->to_y, colour, r->thick);
    fprintf(page->to, "<path d=\"M%.1f %.1fl%.1f %.1fl%.1f %.1fz\" fill=\"%s\"/>\n", x2, r->to_y, -length,
            -half, 0.0, 2 * half, colour);
}

static void label_ribbon(const struct flows *f, const struct svg_page *page, const struct ribbon *r)
{
    char text[64];
    double sent = tsctl_plan_group_rate(f->doc->plan, r->prefill);
    if (r->slot < LABEL_HEIGHT)
        return;
    snprintf(text, sizeof text, "%.3g %% · %.3g/s%s", 100 * r->rate / sent, r->rate,
             r->codec == TS_COST_CODEC_NONE ? "" : " · i4");
    svg_text_over(page, SVG_MARGIN + BOX_WIDTH + 8, r->from_y + 4, 11.5, "#263238", text);
}

/* A replica: what it is made of, how much it serves, what it costs. */
static void draw_replica(const struct flows *f, const struct svg_page *page, uint32_t group, double x,
                         double y, double width, double height)
{
    const struct ts_group *g = &f->doc->plan->groups[group];
    const struct svg_colour *c = svg_colour_of(g->phase);
    char text[TSCTL_PLAN_WORDS + 64], words[TSCTL_PLAN_WORDS], name[16];
    double middle = y + height / 2;
    bool one_line = f->box_height < BOX_HEIGHT;
    svg_box(page, x, y, width, height, 6, c->fill, c->stroke, 1.6);
    snprintf(text, sizeof text, "%s · %s", svg_group_name(f->doc->plan, group, name),
             tsctl_plan_gpus_brief(f->doc, g, words));
    svg_text(page, x + 10, middle + (one_line ? 4 : -4), svg_text_fit(text, 13, width - (one_line ? 80 : 20)),
             true, SVG_START, c->text, text);
    if (one_line) {
        snprintf(text, sizeof text, "%.3g/s", tsctl_plan_group_rate(f->doc->plan, group));
        svg_text(page, x + width - 10, middle + 4, 12, false, SVG_END, c->text, text);
        return;
    }
    snprintf(text, sizeof text, "%s, %.3g requests/s, %.3g $/h", tsctl_plan_shape_words(g, words),
             tsctl_plan_group_rate(f->doc->plan, group), tsctl_plan_group_price(f->doc, group));
    svg_text(page, x + 10, middle + 13, svg_text_fit(text, 12, width - 20), false, SVG_START, c->text, text);
}

static void draw_columns(struct flows *f, struct svg_page *page)
{
    bool many = f->left_count > LINES_MOST || f->right_count > LINES_MOST;
    double top = page->y + 4, space = many ? 4 : BOX_SPACE;
    f->box_height = many ? BOX_HEIGHT / 2 : BOX_HEIGHT;
    double left_end = stack(f, f->left, f->left_count, top, space);
    sort_right(f);
    double right_end = stack(f, f->right, f->right_count, top, space);
    double end = left_end > right_end ? left_end : right_end;
    spread(f, f->left, f->left_count, top, end, space);
    spread(f, f->right, f->right_count, top, end, space);
    place_ribbons(f);
    for (uint32_t i = 0; i < f->ribbon_count; i++)
        draw_ribbon(page, &f->ribbons[i]);
    for (uint32_t i = 0; i < f->ribbon_count; i++)
        label_ribbon(f, page, &f->ribbons[i]);
    for (uint32_t i = 0; i < f->left_count; i++)
        draw_replica(f, page, f->left[i].group, SVG_MARGIN, f->left[i].y, BOX_WIDTH, f->left[i].height);
    for (uint32_t i = 0; i < f->right_count; i++)
        draw_replica(f, page, f->right[i].group, SVG_WIDTH - SVG_MARGIN - BOX_WIDTH, f->right[i].y, BOX_WIDTH,
                     f->right[i].height);
    page->y = end;
}

static void draw_both(const struct flows *f, struct svg_page *page)
{
    const struct ts_plan *plan = f->doc->plan;
    double gap = BOX_SPACE, width = (SVG_WIDTH - 2 * SVG_MARGIN - (COLUMNS_BOTH - 1) * gap) / COLUMNS_BOTH;
    uint32_t count = 0;
    for (uint32_t g = 0; g < plan->group_count; g++) {
        if (plan->groups[g].phase != TS_PHASE_BOTH)
            continue;
        if (count == 0)
            svg_heading(page, "Colocated: requests are not split, no KV is sent");
        else if (count % COLUMNS_BOTH == 0)
            page->y += f->box_height + gap;
        draw_replica(f, page, g, SVG_MARGIN + count % COLUMNS_BOTH * (width + gap), page->y, width,
                     BOX_HEIGHT);
        count++;
    }
    page->y += count ? f->box_height : 0;
}

void svg_routing(struct svg_page *page)
{
    struct flows f = {.doc = page->doc, .box_height = BOX_HEIGHT};
    fill_ribbons(&f);
    fill_nodes(&f);
    if (f.left_count + f.right_count > 0) {
        svg_heading(page, "Routing: from prefill to decode, in % of what the prefill replica takes");
        draw_columns(&f, page);
    }
    draw_both(&f, page);
    ts_free(f.ribbons);
    ts_free(f.left);
    ts_free(f.right);
}
