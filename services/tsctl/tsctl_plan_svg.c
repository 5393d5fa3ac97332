#include "services/tsctl/tsctl_plan_svg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct svg_colour *svg_colour_of(enum ts_phase phase)
{
    static const struct svg_colour colours[] = {{"#eceff1", "#b0bec5", "#607d8b"},
                                                {"#ffd59e", "#d9822b", "#7a4100"},
                                                {"#b7d6f7", "#2f78c4", "#0d3c6e"},
                                                {"#c4e5bd", "#4a9a3f", "#1f5217"}};
    return &colours[phase];
}

const char *svg_codec_colour(enum ts_cost_codec codec)
{
    return codec == TS_COST_CODEC_NONE ? "#78909c" : "#8e44ad";
}

const char *svg_group_name(const struct ts_plan *plan, uint32_t group, char out[16])
{
    snprintf(out, 16, "%c%u", tsctl_plan_phase_letter(plan->groups[group].phase), group);
    return out;
}

static void escaped(FILE *to, const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '<')
            fputs("&lt;", to);
        else if (*c == '>')
            fputs("&gt;", to);
        else if (*c == '&')
            fputs("&amp;", to);
        else if (*c >= ' ' && *c != 127)
            fputc(*c, to);
    }
}

double svg_text_width(const char *text, double size)
{
    double ems = 0;
    for (const char *c = text; *c; c++)
        ems += strchr("il.,:; |'()", *c) ? 0.32
               : strchr("mwMW%", *c)     ? 0.95
               : *c >= 'A' && *c <= 'Z'  ? 0.75
                                         : 0.64;
    return ems * size; /* of a wide face, in bold: texts fit in narrower ones too */
}

double svg_text_fit(const char *text, double size, double width)
{
    double wide = svg_text_width(text, size);
    return wide > width ? size * width / wide : size;
}

void svg_text(const struct svg_page *page, double x, double y, double size, bool bold, enum svg_anchor anchor,
              const char *colour, const char *text)
{
    static const char *const anchors[] = {"", " text-anchor=\"middle\"", " text-anchor=\"end\""};
    fprintf(page->to, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\"%s%s fill=\"%s\">", x, y, size,
            bold ? " font-weight=\"bold\"" : "", anchors[anchor], colour);
    escaped(page->to, text);
    fprintf(page->to, "</text>\n");
}

void svg_text_over(const struct svg_page *page, double x, double y, double size, const char *colour,
                   const char *text)
{
    fprintf(page->to,
            "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.1f\" fill=\"white\" stroke=\"white\" "
            "stroke-width=\"3\" stroke-linejoin=\"round\">",
            x, y, size);
    escaped(page->to, text);
    fprintf(page->to, "</text>\n");
    svg_text(page, x, y, size, false, SVG_START, colour, text);
}

void svg_box(const struct svg_page *page, double x, double y, double width, double height, double radius,
             const char *fill, const char *stroke, double stroke_width)
{
    fprintf(
        page->to,
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"%.1f\" fill=\"%s\" stroke=\"%s\" "
        "stroke-width=\"%.1f\"/>\n",
        x, y, width, height, radius, fill, stroke, stroke_width);
}

void svg_heading(struct svg_page *page, const char *text)
{
    page->y += 26;
    svg_text(page, SVG_MARGIN, page->y, 15, true, SVG_START, "#263238", text);
    page->y += 12;
}

static void title(struct svg_page *page)
{
    const struct tsctl_plan_doc *doc = page->doc;
    char text[512];
    snprintf(text, sizeof text, "%s on %s", doc->model->name, doc->cluster->name);
    page->y = 40;
    svg_text(page, SVG_MARGIN, page->y, 24, true, SVG_START, "#102027", text);
    snprintf(text, sizeof text, "%s, %.4g requests/s, %.3f $/h, algorithm %s%s", doc->demand->name,
             doc->plan->rate, doc->plan->price_per_hour, doc->plan->algorithm,
             doc->finished ? "" : " (stopped before its end)");
    page->y += 25;
    svg_text(page, SVG_MARGIN, page->y, 14, false, SVG_START, "#37474f", text);
}

static void objective(struct svg_page *page)
{
    const struct tsctl_plan_doc *doc = page->doc;
    const struct ts_plan *plan = doc->plan;
    bool goodput = strcmp(doc->inputs.objective, "goodput") == 0;
    char text[512], bound[96] = "";
    if (!isnan(plan->bound) && goodput)
        snprintf(bound, sizeof bound, " (at most %.4g, gap %.2f %%)", plan->bound,
                 100 * tsctl_plan_gap(plan));
    else if (!isnan(plan->bound))
        snprintf(bound, sizeof bound, " (at most %.2f %%, gap %.2f %%)", 100 * plan->bound,
                 100 * tsctl_plan_gap(plan));
    if (goodput)
        snprintf(text, sizeof text, "%.4g requests/s within all deadlines%s", plan->objective, bound);
    else
        snprintf(text, sizeof text, "%.2f %% of all requests within all deadlines%s", 100 * plan->objective,
                 bound);
    page->y += 28;
    svg_text(page, SVG_MARGIN, page->y, 17, true, SVG_START, "#102027", text);
    snprintf(text, sizeof text, "first token in time %.2f %%, time per token %.2f %%, end to end %.2f %%",
             100 * plan->attained_ttft, 100 * plan->attained_tpot, 100 * plan->attained_e2e);
    page->y += 21;
    svg_text(page, SVG_MARGIN, page->y, 13, false, SVG_START, "#37474f", text);
    if (plan->limit[0]) {
        snprintf(text, sizeof text, "Limit: %s", plan->limit);
        page->y += 19;
        svg_text(page, SVG_MARGIN, page->y, svg_text_fit(text, 13, SVG_WIDTH - 2 * SVG_MARGIN), false,
                 SVG_START, "#b71c1c", text);
    }
}

/* Right of the title. */
static void legend(const struct svg_page *page)
{
    static const struct {
        enum ts_phase phase;
        const char *text;
    } phases[] = {{TS_PHASE_PREFILL, "P  prefill"},
                  {TS_PHASE_DECODE, "D  decode"},
                  {TS_PHASE_BOTH, "C  colocated"},
                  {TS_PHASE_NONE, "not used"}};
    double x = SVG_WIDTH - SVG_MARGIN - 250, y = 26;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++, y += 22) {
        const struct svg_colour *c = svg_colour_of(phases[i].phase);
        svg_box(page, x, y, 26, 16, 3, c->fill, c->stroke, 1.4);
        svg_text(page, x + 34, y + 12.5, 12.5, false, SVG_START, "#37474f", phases[i].text);
    }
    x += 130;
    y = 26;
    for (int codec = TS_COST_CODEC_NONE; codec <= TS_COST_CODEC_I4; codec++, y += 22) {
        fprintf(page->to,
                "<path d=\"M%.1f %.1fh26\" stroke=\"%s\" stroke-width=\"6\" stroke-opacity=\"0.6\"/>\n", x,
                y + 8, svg_codec_colour((enum ts_cost_codec)codec));
        svg_text(page, x + 34, y + 12.5, 12.5, false, SVG_START, "#37474f",
                 codec == TS_COST_CODEC_NONE ? "KV in 16 bits" : "KV in 4 bits (i4)");
    }
    svg_text(page, x, y + 12.5, 12.5, false, SVG_START, "#37474f", "width: requests/s");
    svg_text(page, x, y + 34.5, 12.5, false, SVG_START, "#37474f", "in squares: layers");
}

void svg_open(const struct svg_page *page, double height)
{
    FILE *to = page->to;
    fprintf(
        to,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
        "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n",
        SVG_WIDTH, height, SVG_WIDTH, height);
    fprintf(to, "<title>");
    escaped(to, page->doc->model->name);
    fprintf(to, " on ");
    escaped(to, page->doc->cluster->name);
    fprintf(to, "</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n");
}

void tsctl_plan_svg(const struct tsctl_plan_doc *doc, FILE *to)
{
    char *body = NULL;
    size_t bytes = 0;
    struct svg_page page = {.doc = doc, .to = open_memstream(&body, &bytes)};
    title(&page);
    objective(&page);
    legend(&page);
    svg_cluster(&page);
    svg_routing(&page);
    fclose(page.to);
    page.to = to;
    svg_open(&page, page.y + SVG_MARGIN);
    fwrite(body, 1, bytes, to);
    fprintf(to, "</svg>\n");
    free(body); /* of open_memstream */
}
