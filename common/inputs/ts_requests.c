#include "common/inputs/ts_requests.h"

#include <math.h>

#include "common/base/ts_math.h"
#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "common/inputs/ts_inputs_files.h"
#include "common/inputs/ts_inputs_workload.h"

#define SYNTHETIC_COUNT 10000
#define TOKENS_MOST     1e8
#define TURN            6.283185307179586 /* 2 pi */

struct ts_requests {
    struct ts_requests_options options;
    bool recorded; /* a trace; otherwise classes */
    double rate;   /* requests/s, after rescaling */
    struct ts_rng times, lengths;
    double at_s; /* of the last one */
    uint64_t sent;
    /* A trace: rows from `first` on. */
    struct ts_trace trace;
    size_t first, row;
    double stretch, lap_s; /* our seconds for one of the trace; what passed laps add */
    /* Classes. */
    struct inputs_workload workload;
    double upto[TS_CLASSES_MAX]; /* sum of the rates up to this class */
    uint32_t step;               /* in force */
};

/* --- Arrivals of classes --- */

/* Mean 1, squared coefficient of variation `spread`: gamma of shape 1 / spread. Marsaglia and Tsang, "A
 * simple method for generating gamma variables", ACM TOMS 26 (2000), with their step for shapes below 1. */
static double draw_gamma(struct ts_rng *rng, double spread)
{
    double shape = 1 / spread, boost = 1;
    if (shape < 1) {
        boost = ts_math_pow(1 - ts_rng_unit(rng), spread);
        shape += 1;
    }
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = ts_rng_normal(rng), v = 1 + c * x;
        double u = 1 - ts_rng_unit(rng);
        if (v <= 0)
            continue;
        v = v * v * v;
        if (ts_math_log(u) < 0.5 * x * x + d - d * v + d * ts_math_log(v))
            return boost * d * v * spread;
    }
}

/* The next gap of the stream at rate 1. */
static double draw_gap(struct ts_requests *r)
{
    double spread = r->workload.demand.burst;
    if (r->options.poisson || r->recorded || spread == 1)
        return ts_rng_exponential(&r->times, 1);
    return spread == 0 ? 1 : draw_gamma(&r->times, spread);
}

/* Integral of 1 + amplitude * sin over `s` seconds from `from` on. */
static double waves(const struct inputs_workload *w, double from, double s)
{
    if (w->amplitude == 0)
        return s;
    double before = ts_math_cos_turns(from / w->period_s),
           after = ts_math_cos_turns((from + s) / w->period_s);
    return s + w->amplitude * w->period_s / TURN * (before - after);
}

/* The seconds from `from` on in which waves() reaches `want`, by halving: it rises. */
static double waves_inverse(const struct inputs_workload *w, double from, double want)
{
    double most = w->amplitude * w->period_s / (TURN / 2);
    double low = fmax(0, want - most), high = want + most;
    if (w->amplitude == 0)
        return want;
    for (int i = 0; i < 64 && high - low > 1e-9; i++) {
        double middle = 0.5 * (low + high);
        if (waves(w, from, middle) < want)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

/* The instant at which the expected number of arrivals has grown by `gap` (time rescaling). Infinite: never.
 */
static double after_gap(struct ts_requests *r, double gap)
{
    const struct inputs_workload *w = &r->workload;
    double at = r->at_s;
    for (;; r->step++) {
        bool last = r->step + 1 >= w->step_count;
        double rate = r->rate * w->steps[r->step].factor, end = last ? INFINITY : w->steps[r->step + 1].at_s;
        double here = last || at >= end ? 0 : rate * waves(w, at, end - at);
        if (last && rate == 0)
            return INFINITY;
        if (last || here >= gap)
            return at + waves_inverse(w, at, gap / rate);
        gap -= here;
        at = end;
    }
}

/* --- Lengths --- */

static uint32_t whole_tokens(const struct ts_requests *r, double tokens, uint32_t most)
{
    double whole = floor(tokens * r->options.scale_lengths + 0.5);
    whole = fmax(1, fmin(whole, most > 0 ? most : TOKENS_MOST));
    return (uint32_t)whole;
}

static double draw_lognormal(struct ts_rng *rng, double mean, double mean_sq)
{
    double z = ts_rng_normal(rng);
    double variance = ts_math_log(fmax(1, mean_sq / (mean * mean)));
    return mean * ts_math_exp(sqrt(variance) * z - 0.5 * variance);
}

static void draw_lengths(struct ts_requests *r, double *prompt, double *output)
{
    const struct inputs_workload *w = &r->workload;
    uint32_t k = 0, last = w->demand.class_count - 1;
    double at = ts_rng_unit(&r->lengths) * r->upto[last];
    while (k < last && at >= r->upto[k])
        k++;
    const struct ts_class *c = &w->demand.classes[k];
    if (w->laws[k] == INPUTS_EMPIRICAL) {
        const struct ts_trace_row *row =
            &w->empirical[k].rows[ts_rng_below(&r->lengths, w->empirical[k].count)];
        *prompt = row->prompt_tokens;
        *output = row->output_tokens;
    } else {
        *prompt = draw_lognormal(&r->lengths, c->prompt_tokens, c->prompt_tokens_sq);
        *output = draw_lognormal(&r->lengths, c->output_tokens, c->output_tokens_sq);
    }
}

/* --- The stream --- */

static bool next_row(struct ts_requests *r, double *at, double *prompt, double *output)
{
    const struct ts_trace *t = &r->trace;
    if (r->row == t->count) {
        if (!r->options.repeat)
            return false;
        double span_s = t->rows[t->count - 1].at_s - t->rows[r->first].at_s;
        r->lap_s += (span_s + span_s / (double)(t->count - r->first)) * r->stretch; /* and one mean gap */
        r->row = r->first;
    }
    const struct ts_trace_row *row = &t->rows[r->row++];
    *at = r->options.poisson ? r->at_s + draw_gap(r) / r->rate
                             : r->lap_s + (row->at_s - t->rows[r->first].at_s) * r->stretch;
    if (r->options.shuffle)
        row = &t->rows[r->first + ts_rng_below(&r->lengths, t->count - r->first)];
    *prompt = row->prompt_tokens;
    *output = row->output_tokens;
    return true;
}

bool ts_requests_next(struct ts_requests *r, struct ts_request_item *out)
{
    double at, prompt, output;
    if (r->options.count > 0 && r->sent == r->options.count)
        return false;
    if (!r->recorded) {
        double gap = draw_gap(r);
        at = r->options.poisson ? r->at_s + gap / r->rate : after_gap(r, gap);
        draw_lengths(r, &prompt, &output);
    } else if (!next_row(r, &at, &prompt, &output)) {
        return false;
    }
    if (!isfinite(at) || (r->options.duration_s > 0 && at > r->options.duration_s))
        return false;
    r->at_s = at;
    r->sent++;
    *out = (struct ts_request_item){.at_s = at,
                                    .prompt_tokens = whole_tokens(r, prompt, r->options.prompt_tokens_max),
                                    .output_tokens = whole_tokens(r, output, r->options.output_tokens_max)};
    return true;
}

/* --- Opening --- */

static enum ts_status open_trace(struct ts_requests *r, const char *path, struct ts_error *err)
{
    const struct ts_requests_options *o = &r->options;
    struct ts_trace *t = &r->trace;
    r->recorded = true;
    enum ts_status status = ts_trace_load(path, t, err);
    if (status != TS_OK)
        return status;
    while (r->first < t->count && t->rows[r->first].at_s < o->skip_s)
        r->first++;
    if (r->first == t->count)
        return ts_error_set(err, TS_EINVAL, "%s: nothing is left of it after %g s: it ends at %g s", path,
                            o->skip_s, t->rows[t->count - 1].at_s);
    r->row = r->first;
    double span_s = t->rows[t->count - 1].at_s - t->rows[r->first].at_s;
    double own = span_s > 0 ? (double)(t->count - r->first) / span_s : 0;
    r->rate = o->rate > 0 ? o->rate : own;
    if (own == 0 && (o->rate > 0 || o->poisson || o->repeat) && !(o->poisson && o->rate > 0))
        return ts_error_set(err, TS_EINVAL,
                            "%s: its requests are at one time, which makes no rate; give one together with "
                            "Poisson arrivals",
                            path);
    r->stretch = own > 0 ? own / r->rate : 1;
    if (o->repeat && o->count == 0 && o->duration_s == 0)
        return ts_error_set(err, TS_EINVAL,
                            "%s: a trace that repeats needs a number of requests, or a duration", path);
    return TS_OK;
}

static enum ts_status open_classes(struct ts_requests *r, const char *conf_dir, const char *name,
                                   struct ts_error *err)
{
    struct inputs_workload *w = &r->workload;
    char *path = NULL;
    enum ts_status status = inputs_find(conf_dir, "workloads", name, &path, err);
    if (status == TS_OK)
        status = inputs_workload_read(path, w, err);
    ts_free(path);
    if (status != TS_OK)
        return status;
    for (uint32_t k = 0; k < w->demand.class_count; k++)
        r->upto[k] = (k > 0 ? r->upto[k - 1] : 0) + w->demand.classes[k].rate;
    r->rate = r->options.rate > 0 ? r->options.rate : ts_demand_rate(&w->demand);
    if (!(ts_demand_rate(&w->demand) > 0))
        return ts_error_set(err, TS_EINVAL, "workload \"%s\": all rates are 0: nothing is asked",
                            w->demand.name);
    if (r->options.skip_s > 0 || r->options.repeat)
        return ts_error_set(err, TS_EINVAL,
                            "workload \"%s\" is no trace: it has no part to skip and no end to repeat from",
                            w->demand.name);
    if (r->options.count == 0 && r->options.duration_s == 0)
        r->options.count = SYNTHETIC_COUNT;
    return TS_OK;
}

enum ts_status ts_requests_open(const char *conf_dir, const char *name,
                                const struct ts_requests_options *options, struct ts_requests **out,
                                struct ts_error *err)
{
    struct ts_requests *r = ts_xcalloc(1, sizeof *r);
    r->options = *options;
    if (r->options.scale_lengths == 0)
        r->options.scale_lengths = 1;
    ts_rng_init(&r->times, ts_splitmix64(options->seed));
    ts_rng_init(&r->lengths, ts_splitmix64(options->seed ^ 0x6c656e6774687321));
    enum ts_status status =
        inputs_is_trace(name) ? open_trace(r, name, err) : open_classes(r, conf_dir, name, err);
    if (status != TS_OK)
        ts_requests_close(&r);
    *out = r;
    return status;
}

void ts_requests_close(struct ts_requests **requests)
{
    if (!*requests)
        return;
    ts_trace_fini(&(*requests)->trace);
    inputs_workload_fini(&(*requests)->workload);
    ts_free(*requests);
    *requests = NULL;
}
