#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/tsctl/tsctl_plan_money.h"
#include "services/tsctl/tsctl_plan_svg.h"

#define HEIGHT 660.0
#define LEFT   (SVG_MARGIN + 60)
#define RIGHT  (SVG_WIDTH - SVG_MARGIN - 190) /* room for the last label */
#define TOP    116.0
#define BOTTOM (HEIGHT - 70)

struct chart {
    struct svg_page page;
    const struct plan_money_point *points;
    uint32_t count;
    double price_max, value_max, scale; /* `scale`: of objectives, 100 where they are shares */
    bool goodput;
};

/* 1, 2 or 5 times a power of ten, so that about six of them cover `range`. */
static double tick_of(double range)
{
    double raw = range / 6, base = pow(10, floor(log10(raw)));
    return raw <= base ? base : raw <= 2 * base ? 2 * base : raw <= 5 * base ? 5 * base : 10 * base;
}

static double x_of(const struct chart *c, double price)
{
    return LEFT + (RIGHT - LEFT) * price / c->price_max;
}

static double y_of(const struct chart *c, double objective)
{
    return BOTTOM - (BOTTOM - TOP) * fmin(1, c->scale * objective / c->value_max);
}

static void line(const struct chart *c, double x1, double y1, double x2, double y2, const char *colour)
{
    fprintf(c->page.to, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, colour);
}

static void axes(const struct chart *c)
{
    char text[64];
    double tick = tick_of(c->price_max);
    for (int i = 0; i * tick <= c->price_max * 1.0001; i++) {
        double v = i * tick;
        line(c, x_of(c, v), TOP, x_of(c, v), BOTTOM, "#eceff1");
        snprintf(text, sizeof text, "%g", v);
        svg_text(&c->page, x_of(c, v), BOTTOM + 20, 13, false, SVG_MIDDLE, "#37474f", text);
    }
    tick = tick_of(c->value_max);
    for (int i = 0; i * tick <= c->value_max * 1.0001; i++) {
        double v = i * tick;
        line(c, LEFT, y_of(c, v / c->scale), RIGHT, y_of(c, v / c->scale), "#eceff1");
        snprintf(text, sizeof text, c->goodput ? "%g" : "%g %%", v);
        svg_text(&c->page, LEFT - 10, y_of(c, v / c->scale) + 4, 13, false, SVG_END, "#37474f", text);
    }
    line(c, LEFT, BOTTOM, RIGHT, BOTTOM, "#455a64");
    line(c, LEFT, TOP, LEFT, BOTTOM, "#455a64");
    svg_text(&c->page, (LEFT + RIGHT) / 2, BOTTOM + 46, 14, true, SVG_MIDDLE, "#263238", "$/h");
    svg_text(&c->page, SVG_MARGIN, TOP - 14, 14, true, SVG_START, "#263238",
             c->goodput ? "requests/s within all deadlines" : "share of requests within all deadlines");
}

/* What is reached for at most this price: a staircase, since in between the cheaper purchase stands. */
static void stairs(const struct chart *c)
{
    fprintf(c->page.to, "<path d=\"M%.1f %.1f", x_of(c, c->points[0].dollars_per_hour), BOTTOM);
    for (uint32_t i = 0; i < c->count; i++)
        fprintf(c->page.to, "H%.1fV%.1f", x_of(c, c->points[i].dollars_per_hour),
                y_of(c, c->points[i].objective));
    fprintf(c->page.to, "\" fill=\"none\" stroke=\"#2f78c4\" stroke-width=\"2.5\"/>\n");
}

static void bounds(const struct chart *c)
{
    bool open = false;
    for (uint32_t i = 0; i < c->count; i++) {
        if (isnan(c->points[i].bound))
            continue;
        fprintf(c->page.to, "%s%.1f %.1f", open ? "L" : "<path d=\"M", x_of(c, c->points[i].dollars_per_hour),
                y_of(c, c->points[i].bound));
        open = true;
    }
    if (!open)
        return;
    fprintf(c->page.to,
            "\" fill=\"none\" stroke=\"#d9822b\" stroke-width=\"1.6\" stroke-dasharray=\"6 4\"/>\n");
    svg_text(&c->page, RIGHT - 10, TOP - 14, 13, false, SVG_END, "#7a4100", "dashed: no purchase exceeds it");
}

/* Labels stand right below their point, and are left out where the last one stands in the way. */
static void dots(const struct chart *c)
{
    double free_x = 0, free_y = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        char words[TSCTL_PLAN_WORDS];
        double x = x_of(c, c->points[i].dollars_per_hour), y = y_of(c, c->points[i].objective);
        fprintf(c->page.to, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\" fill=\"#2f78c4\"/>\n", x, y);
        tsctl_plan_bought_words(c->page.doc->cluster, c->points[i].plan, words);
        if (i > 0 && x < free_x && y + 16 > free_y - 15)
            continue;
        double width = svg_text_width(words, 12), most = SVG_WIDTH - SVG_MARGIN - width;
        svg_text_over(&c->page, fmin(x + 7, most), y + 16, 12, "#0d3c6e", words);
        free_x = x + 7 + width;
        free_y = y + 16;
    }
}

void tsctl_plan_svg_frontier(const struct tsctl_plan_doc *doc, const struct plan_money_point *points,
                             uint32_t count, FILE *to)
{
    struct chart c = {.page = {.doc = doc, .to = to},
                      .points = points,
                      .count = count,
                      .goodput = strcmp(doc->inputs.objective, "goodput") == 0};
    char text[512];
    c.scale = c.goodput ? 1 : 100;
    c.value_max = c.goodput ? 0 : 100;
    for (uint32_t i = 0; i < count; i++) {
        c.price_max = fmax(c.price_max, points[i].dollars_per_hour);
        if (c.goodput)
            c.value_max = fmax(c.value_max, isnan(points[i].bound) ? points[i].objective : points[i].bound);
    }
    c.price_max = c.price_max > 0 ? c.price_max * 1.02 : 1;
    c.value_max = c.value_max > 0 ? c.value_max * 1.02 : 1;
    svg_open(&c.page, HEIGHT);
    snprintf(text, sizeof text, "%s on offers of %s: what money buys", doc->model->name, doc->cluster->name);
    svg_text(&c.page, SVG_MARGIN, 40, 24, true, SVG_START, "#102027", text);
    snprintf(text, sizeof text, "%s, algorithm %s", doc->demand->name, doc->plan->algorithm);
    svg_text(&c.page, SVG_MARGIN, 64, 14, false, SVG_START, "#37474f", text);
    axes(&c);
    bounds(&c);
    stairs(&c);
    dots(&c);
    fprintf(to, "</svg>\n");
}
