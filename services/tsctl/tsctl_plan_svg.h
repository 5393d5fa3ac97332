/*
 * What the two halves of the picture share: the page, its colours, text. Each half draws from `y` down and
 * moves it. Text is escaped; coordinates are pixels. One thread; the caller owns everything.
 */
#ifndef TSCTL_PLAN_SVG_H
#define TSCTL_PLAN_SVG_H

#include "services/tsctl/tsctl_plan.h"

#define SVG_WIDTH  1280.0
#define SVG_MARGIN 28.0

struct svg_colour {
    const char *fill, *stroke, *text;
};

struct svg_page {
    const struct tsctl_plan_doc *doc;
    FILE *to;
    double y;
};

enum svg_anchor { SVG_START, SVG_MIDDLE, SVG_END };

/* The head of the file, up to its white ground; "</svg>" ends it. */
void svg_open(const struct svg_page *page, double height);
const struct svg_colour *svg_colour_of(enum ts_phase phase); /* TS_PHASE_NONE: an idle device */
const char *svg_codec_colour(enum ts_cost_codec codec);
/* Text at its base line; `size` may be a fraction. */
void svg_text(const struct svg_page *page, double x, double y, double size, bool bold, enum svg_anchor anchor,
              const char *colour, const char *text);
/* The same with a white edge, so that it can be read over lines. */
void svg_text_over(const struct svg_page *page, double x, double y, double size, const char *colour,
                   const char *text);
double svg_text_width(const char *text, double size); /* about */
/* The largest size, at most `size`, at which the text is not wider than `width`. */
double svg_text_fit(const char *text, double size, double width);
void svg_box(const struct svg_page *page, double x, double y, double width, double height, double radius,
             const char *fill, const char *stroke, double stroke_width);
void svg_heading(struct svg_page *page, const char *text);
/* "P3", "D0", "C1" */
const char *svg_group_name(const struct ts_plan *plan, uint32_t group, char out[16]);

void svg_cluster(struct svg_page *page); /* tsctl_plan_svg_cluster.c: nodes, devices, groups */
void svg_routing(struct svg_page *page); /* tsctl_plan_svg_flow.c: replicas and the flows between them */

#endif
