#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_math.h"
#include "services/planner/plan_shape_internal.h"

#define POINT_RATIO 1.015 /* step times closer than this are one point */
#define NO_BATCH    1e-2  /* where fluctuation leaves no room for a mean batch */
#define LEAST_BATCH 0.3   /* of the first point, in the mean */

static const double utilisations[] = {0.2, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94, 0.98};

struct maker {
    const struct plan_pipe *pipe;
    const struct plan_mix *mix;
    const struct ts_demand *demand;
    struct plan_draft *draft;
    double busy[TS_CLASSES_MAX];             /* seconds of the bottleneck that a prompt takes under load */
    double mean_busy, service_s, service_sq; /* over the mix; the two moments of a prompt alone */
    double mean_pass, alone_pass;            /* through all stages; likewise */
    double batches_alone, batches_full;      /* of a prompt: when it is alone, and together with others */
    double batch_most, seen_most; /* mean batch that memory allows, and what a request meets then */
};

/* --- Prefill --- */

/* A pipeline of both phases shares the tokens of a batch among those under way (services/cloud/README.md), so
 * a prompt is cut into more of them. */
static double batches_of(const struct plan_pipe *pipe, double prompt)
{
    return prompt / PLAN_BATCH_TOKENS * (pipe->phase == TS_PHASE_BOTH ? pipe->count : 1);
}

static void make_prefill_times(struct maker *maker)
{
    const struct plan_pipe *pipe = maker->pipe;
    const struct plan_mix *mix = maker->mix;
    for (uint32_t k = 0; k < mix->classes; ++k) {
        double sum = 0, busy = 0, alone = 0, pass = 0, batches = batches_of(pipe, fmax(mix->prompt[k], 1));
        double cuts = fmax(batches - fmax(mix->prompt[k] / PLAN_BATCH_TOKENS, 1), 0);
        for (uint32_t i = 0; i < pipe->count; ++i) {
            const struct plan_rank *rank = &pipe->ranks[i];
            const struct plan_unit *unit = rank->unit;
            bool last = i + 1 == pipe->count;
            double stage = rank->layers * unit->prefill[k] + unit->step_s + (last ? unit->head_alone : 0);
            double share = rank->layers * (unit->busy[k] + cuts * unit->cut_s) +
                           unit->step_share[k] * fmax(batches, 1) + (last ? unit->head_busy[k] : 0);
            double send = mix->prompt[k] * rank->hop_token_s;
            sum += stage + rank->hop_latency_s + send;
            pass += share;
            busy = fmax(busy, fmax(share, send));
            alone = fmax(alone, fmax(stage, send));
        }
        maker->draft->shape.prefill_s[k] = sum;
        maker->alone_pass += mix->weight[k] * sum;
        maker->busy[k] = busy;
        maker->mean_busy += mix->weight[k] * busy;
        maker->mean_pass += mix->weight[k] * fmax(pass, pipe->count * busy);
        maker->batches_alone += mix->weight[k] * fmax(1, batches);
        maker->batches_full += mix->weight[k] * batches;
        maker->service_s += mix->weight[k] * alone;
        maker->service_sq += mix->weight[k] * alone * alone * mix->spread[k];
    }
}

/* Long prompts are computed in pieces of a batch, so none holds up others for more than one takes. Work is
 * shared by tokens, so that it is the same for all replicas. */
static void make_line(struct maker *maker)
{
    const struct plan_pipe *pipe = maker->pipe;
    const struct plan_mix *mix = maker->mix;
    struct plan_line *line = &maker->draft->line;
    line->count = mix->classes;
    line->share = (double)(pipe->count - 1) / pipe->count;
    for (uint32_t i = 0; i < pipe->count; ++i)
        line->most += pipe->ranks[i].layers * pipe->ranks[i].unit->batch_prefill;
    line->most /= batches_of(pipe, PLAN_BATCH_TOKENS);
    for (uint32_t k = 0; k < line->count; ++k) {
        line->due_s[k] = plan_due_s(mix->prompt[k]);
        line->work[k] = mix->weight[k] * mix->prompt[k] / fmax(mix->mean_prompt, 1);
        line->weight[k] = mix->weight[k];
        line->prefill_s[k] = fmin(maker->draft->shape.prefill_s[k], line->most);
    }
}

/* Share of requests that wait at all: rho when arrivals are Poisson; with bursts, as in Whitt's Queueing
 * Network Analyzer (Bell System Technical Journal 62, 1983). */
static double waiting_share(double rho, double ca2, double cs2)
{
    double h = ca2 < 1 ? (1 + ca2 + rho * cs2) / (1 + rho * (cs2 - 1) + rho * rho * (4 * ca2 + cs2))
                       : 4 * rho / (ca2 + rho * rho * (4 * ca2 + cs2));
    return fmin(fmax(rho + (ca2 - 1) * rho * (1 - rho) * h, 0.01 * rho), 1);
}

/* Mean wait of a queue with bursts, by Allen and Cunneen: that of M/G/1 (Pollaczek and Khinchine) times (ca2
 * + cs2) / (1 + cs2). Prompts take `longer` times what they take alone. */
static void set_wait(const struct maker *maker, struct plan_point *point, double *prefill, double rho,
                     double longer)
{
    double mean = maker->service_s, cs2 = fmax(maker->service_sq / (mean * mean) - 1, 0);
    double rate = rho / (maker->mean_busy * longer), ca2 = plan_mix_burst(maker->mix, rate);
    double wait = mean * longer * rho * (ca2 + cs2) / (2 * (1 - rho));
    point->wait_share = waiting_share(rho, ca2, cs2);
    point->wait_s = wait / point->wait_share;
    point->line = &maker->draft->line;
    point->follow_rate = rate / (1 - rho);
    point->full_s = maker->draft->line.most * longer;
    for (uint32_t k = 0; k < maker->mix->classes; ++k)
        prefill[k] = maker->busy[k] * longer / rho;
}

static void make_prefill(struct maker *maker)
{
    struct plan_draft *draft = maker->draft;
    uint32_t count = sizeof utilisations / sizeof utilisations[0];
    for (uint32_t i = 0; i < count; ++i)
        set_wait(maker, &draft->points[i], draft->shares[i][0], utilisations[i], 1);
    draft->shape.point_count = count;
}

/* --- Decode --- */

/* A request meets the mean batch and itself: in a product-form queue whose N sequences are served at rates N
 * / (a + c N), N = rate * output * (a + c (N + 1)). Where N fluctuates more than Poisson arrivals make it, by
 * bursts ((1 + ca2) / 2, as in a queue of infinitely many servers) or `held` up departures, the one grows
 * with it. The mean batch among whom a request meets `seen` when tokens come each `wall` seconds. */
static double mean_batch(const struct maker *maker, double seen, double wall, double held)
{
    const struct plan_mix *mix = maker->mix;
    double stay = fmax(mix->mean_output * wall, 1e-9), bursts = (mix->burst - 1) / 2 * held;
    double batch = (seen - held) / fmax(1 + bursts / fmax(stay * mix->rate, 1e-9), 0.3);
    if (batch / stay > mix->rate) /* all requests of the demand come here */
        batch = seen - held - bursts;
    return fmax(batch, NO_BATCH);
}

/* Variance of the mean over one's own stay, in units of the variance, when correlation decays by e^-x in it.
 */
static double own_average(double x)
{
    return x < 1e-3 ? 1 : 2 * (x - 1 + ts_math_exp(-x)) / (x * x);
}

/* The point at which a request meets a batch of `seen`, when decode has `share` of the time. */
static void set_decode(const struct maker *maker, struct plan_point *point, double shares[3][TS_CLASSES_MAX],
                       double seen, double share, double held)
{
    const struct plan_mix *mix = maker->mix;
    struct plan_step step = plan_pipe_step(maker->pipe, seen, mix->mean_context);
    double each = step.per_sequence + step.per_token * mix->mean_context; /* of one more sequence */
    double wall = step.time / share, batch = mean_batch(maker, seen, wall, held);
    point->batch = batch;
    point->step_s = wall;
    /* step = fixed + seen * each, exact at the mean mix. What does not depend on the mean batch is taken off
     * the time; the rest is for sequences. */
    double room = batch * each / wall;
    for (uint32_t k = 0; k < mix->classes; ++k) {
        double own = step.per_sequence + step.per_token * mix->context[k];
        shares[1][k] = mix->output[k] * own / room;
        shares[2][k] =
            mix->output[k] * wall * mix->context[k] / (maker->batch_most * fmax(mix->mean_context, 1));
    }
    /* Variance of the batch, by the same queue: batch / (1 - busy), where busy is the part of the step that
     * rises with the batch; it decays as fast as that part lets it. Contexts differ beside. */
    double calm = 1 - batch * each / step.time, noise = seen - batch;
    double square = step.per_sequence * step.per_sequence +
                    2 * step.per_sequence * step.per_token * mix->mean_context +
                    step.per_token * step.per_token * mix->mean_context_sq;
    double variance = batch * (square + (noise - 1) * each * each) / calm * own_average(calm);
    point->step_sd_s = sqrt(variance) / share;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Step times worth having, ascending: near the limits of the classes, as far as the batch's fluctuation asks
 * for, and between the least and the most. */
static uint32_t decode_targets(const struct maker *maker, double least, double most, double *targets)
{
    const struct plan_mix *mix = maker->mix;
    double limits[TS_CLASSES_MAX] = {0};
    uint32_t count = 0, limit_count = 0, near = 0;
    for (uint32_t k = 0; k < mix->classes; ++k)
        if (mix->step_limit[k] > least)
            limits[limit_count++] = mix->step_limit[k];
    qsort(limits, limit_count, sizeof limits[0], by_value);
    for (uint32_t i = limit_count; i-- > 0 && near < 3;) {
        if (i + 1 < limit_count && limits[i] > limits[i + 1] * 0.95)
            continue;
        struct plan_point point;
        double shares[3][TS_CLASSES_MAX];
        double seen = plan_pipe_batch(maker->pipe, mix->mean_context, limits[i], maker->seen_most);
        set_decode(maker, &point, shares, seen, 1, 1);
        targets[count++] = limits[i] - point.step_sd_s;
        targets[count++] = limits[i] - 2.5 * point.step_sd_s;
        ++near;
    }
    const uint32_t steps = 5;
    for (uint32_t i = 0; i <= steps; ++i)
        targets[count++] = least * ts_math_pow(most / least, (double)i / steps);
    qsort(targets, count, sizeof targets[0], by_value);
    return count;
}

/* Step times between which points may lie: with the least mean batch and with what memory allows. */
static double least_step(const struct maker *maker)
{
    double seen = fmin(1 + LEAST_BATCH, maker->seen_most);
    return plan_pipe_step(maker->pipe, fmax(seen, maker->pipe->count), maker->mix->mean_context).time;
}

static double most_step(const struct maker *maker)
{
    return plan_pipe_step(maker->pipe, maker->seen_most, maker->mix->mean_context).time;
}

static void make_decode(struct maker *maker)
{
    const struct plan_mix *mix = maker->mix;
    struct plan_draft *draft = maker->draft;
    double least = least_step(maker), most = fmax(most_step(maker), least);
    if (mix->step_limit_max > 0)
        most = fmax(fmin(most, mix->step_limit_max), least);
    double targets[TS_CLASSES_MAX + 8], rate = 0, last = 0;
    uint32_t target_count = decode_targets(maker, least, most, targets), count = 0;
    for (uint32_t i = 0; i < target_count && count < PLAN_POINTS_MAX; ++i) {
        double target = fmin(fmax(targets[i], least), most);
        if (count > 0 && target < last * POINT_RATIO && !(target == most && last < most))
            continue;
        double seen = plan_pipe_batch(maker->pipe, mix->mean_context, target * (1 + 1e-12), maker->seen_most);
        double batch = mean_batch(maker, seen, target, 1);
        if (batch / target <= rate * 1.0001) /* past the most throughput */
            continue;
        set_decode(maker, &draft->points[count], draft->shares[count], seen, 1, 1);
        rate = batch / target;
        last = target;
        ++count;
    }
    draft->shape.point_count = count;
}

/* --- Colocated --- */

/* How a replica goes that has prompts in its steps for `rho` of the time. Decode rows go along with them: a
 * step takes its prompts and what the rows take beyond the weights, which are read once. */
struct pace {
    double alone_s, beside_s, prompts_s; /* a step of decode only; rows beside prompts; prompts of a step */
    double busy;                         /* share of the time in which steps have prompts */
    double wall_s;                       /* mean time between two tokens */
    double lag; /* by which a token is later for each second of prompts, in seconds */
};

static double rows_s(const struct plan_pipe *pipe, const struct plan_step *step, double seen, double context)
{
    return pipe->ideal ? 0 : seen * (step->per_sequence + step->per_token * context);
}

/* A prompt that finds the replica idle has steps of its own; one that does not shares them with others. */
static void set_prompts(const struct maker *maker, struct pace *pace, double rho)
{
    double alone = maker->pipe->ideal ? maker->mean_pass : fmax(maker->alone_pass, maker->mean_pass);
    double pass = (1 - rho) * alone + rho * maker->mean_pass;
    pace->prompts_s = pass / ((1 - rho) * maker->batches_alone + rho * maker->batches_full);
    pace->busy = fmin(rho * pass / maker->mean_pass, 0.999);
}

static struct pace pace_of(const struct maker *maker, double seen, double rho)
{
    double context = maker->mix->mean_context;
    struct plan_step step = plan_pipe_step(maker->pipe, fmax(seen, maker->pipe->count), context);
    struct pace pace = {.alone_s = step.time, .beside_s = rows_s(maker->pipe, &step, seen, context)};
    set_prompts(maker, &pace, rho);
    double busy_s = pace.prompts_s + pace.beside_s;
    pace.wall_s = 1 / (pace.busy / busy_s + (1 - pace.busy) / pace.alone_s);
    pace.lag = fmax(1 / pace.alone_s - 1 / busy_s, 0) * pace.wall_s;
    return pace;
}

/* Batch that a request meets when steps have prompts for `rho` of the time and tokens come each `wall`
 * seconds; 0 = cannot. */
static double colocated_seen(const struct maker *maker, double wall, double rho)
{
    const double context = maker->mix->mean_context;
    struct pace pace;
    double beside = 0, seen = 0;
    set_prompts(maker, &pace, rho);
    for (int i = 0; i < 3; ++i) {
        double rest = 1 / wall - pace.busy / (pace.prompts_s + beside); /* steps/s without prompts */
        double limit = rest * wall > 1e-6 ? (1 - pace.busy) / rest : INFINITY;
        seen = plan_pipe_batch(maker->pipe, context, limit, maker->seen_most);
        struct plan_step step = plan_pipe_step(maker->pipe, fmax(seen, maker->pipe->count), context);
        beside = rows_s(maker->pipe, &step, seen, context);
    }
    return seen;
}

/* How much more the batch fluctuates when prompts slow decode down: to arrivals and departures of sequences,
 * rate each, come the departures that prompts hold up, (rate * lag)^2 times the variance of the time that
 * prompts take in a second, rate E[S^2]. */
static double colocated_held(const struct maker *maker, double rho, double lag)
{
    double ratio = rho * lag;
    double square = maker->service_sq / (maker->service_s * maker->service_s);
    return 1 + ratio * ratio * square / 2;
}

/* The utilisation by prefill at which both phases serve as many requests of the mix. */
static double balanced_rho(const struct maker *maker, double wall)
{
    double low = 0, high = 0.98;
    for (int i = 0; i < 14; ++i) {
        double rho = (low + high) / 2;
        double seen = colocated_seen(maker, wall, rho), lag = pace_of(maker, seen, rho).lag;
        double batch = mean_batch(maker, seen, wall, colocated_held(maker, rho, lag));
        double decode = batch / fmax(maker->mix->mean_output * wall, 1e-9);
        if (rho / maker->mean_busy < decode)
            low = rho;
        else
            high = rho;
    }
    return fmax(low, 0.01);
}

static void set_colocated(struct maker *maker, double wall, double rho)
{
    struct plan_draft *draft = maker->draft;
    const struct plan_mix *mix = maker->mix;
    double seen = colocated_seen(maker, wall, rho);
    for (int i = 0; i < 8 && seen <= 0; ++i) { /* prompts leave decode no time */
        rho /= 2;
        seen = colocated_seen(maker, wall, rho);
    }
    struct pace pace = pace_of(maker, seen, rho);
    double held = colocated_held(maker, rho, pace.lag);
    if (seen <= 0 || (draft->shape.point_count > 0 && mean_batch(maker, seen, pace.wall_s, held) <= NO_BATCH))
        return;
    uint32_t at = draft->shape.point_count++;
    struct plan_point *point = &draft->points[at];
    double longer = 1 + pace.beside_s / pace.prompts_s;
    set_wait(maker, point, draft->shares[at][0], rho, longer);
    set_decode(maker, point, draft->shares[at], seen, pace.alone_s / pace.wall_s, held);
    for (uint32_t k = 0; k < mix->classes; ++k) /* memory is taken when the prompt begins */
        draft->shares[at][2][k] += draft->shape.prefill_s[k] * longer * mix->held_prompt[k] /
                                   (maker->batch_most * fmax(mix->mean_context, 1));
    point->hold_s = pace.alone_s / 2; /* what is left of the step under way */
    /* Over a time t prompts take rho t with the variance lambda E[S^2] t: decode is later by lag of that. */
    double burst = plan_mix_burst(mix, rho / maker->mean_busy);
    double work = rho * longer * maker->service_sq / maker->service_s * burst; /* lambda E[S^2] */
    point->stall_s2 = work * point->step_s * pace.lag * pace.lag;
    point->start_s = work * pace.lag * pace.lag / 2; /* as the residual life of a renewal process */
    double full = maker->mean_pass / maker->batches_full;
    point->step_most_s = fmax(full + pace.beside_s, pace.alone_s) + 3 * point->step_sd_s;
}

/* The most of the time that steps may have prompts in them for tokens to come each `wall` seconds, when
 * decode alone has steps of `step`. */
static double most_rho(const struct maker *maker, double step, double wall)
{
    double full = maker->mean_pass / maker->batches_full;
    double most = full > wall ? 0.999 * (1 / step - 1 / wall) / (1 / step - 1 / full) : 1;
    return fmin(most, 0.98);
}

static void make_colocated(struct maker *maker)
{
    static const double around[] = {0.5, 0.8, 1, 1.3}; /* of the balanced utilisation */
    const struct plan_mix *mix = maker->mix;
    double step = least_step(maker), least = step * 1.2, longest = most_step(maker);
    /* When memory is full and both phases keep pace, rho / busy = batch / (output * most / (1 - rho)); but
     * tokens come with each step. */
    double most =
        longest * (1 + maker->mean_busy * maker->batch_most / fmax(mix->mean_output * longest, 1e-9));
    most = fmin(most, maker->mean_pass / maker->batches_full + longest);
    if (mix->step_limit_max > 0)
        most = fmin(most, mix->step_limit_max * 0.95);
    most = fmax(most, least);
    maker->draft->shape.point_count = 0;
    const uint32_t walls = most < least * 1.1 ? 1 : 4;
    for (uint32_t i = 0; i < walls; ++i) {
        double wall = walls == 1 ? most : least * ts_math_pow(most / least, (double)i / (walls - 1));
        double rho = balanced_rho(maker, wall), limit = most_rho(maker, step, wall);
        for (uint32_t j = 0; j < sizeof around / sizeof around[0]; ++j) {
            set_colocated(maker, wall, fmin(around[j] * rho, limit));
            if (around[j] * rho >= limit)
                break;
        }
    }
}

/* The mean batch whose fluctuation the KV memory holds. The more of a step rises with the batch, the wider it
 * fluctuates, so the two are found together. */
static void set_batch_most(struct maker *maker, double kv_tokens)
{
    const struct plan_mix *mix = maker->mix;
    double capacity = fmin(kv_tokens / fmax(mix->mean_context, 1), PLAN_GRID_MOST * maker->pipe->count);
    double noise = 1;
    for (int i = 0; i < 3; ++i) {
        maker->batch_most = plan_mix_batch(capacity, noise);
        maker->seen_most = maker->batch_most + 1;
        struct plan_step step = plan_pipe_step(maker->pipe, maker->seen_most, mix->mean_context);
        double each = step.per_sequence + step.per_token * mix->mean_context;
        double rate = maker->batch_most / fmax(mix->mean_output * step.time, 1e-9);
        double own = (1 + plan_mix_burst(mix, rate)) / 2;
        noise = own / (1 - maker->batch_most * each / step.time);
        maker->seen_most = maker->batch_most + own;
    }
}

/* --- Score --- */

static double score_at(const struct maker *maker, uint32_t at)
{
    const struct plan_mix *mix = maker->mix;
    const struct plan_draft *draft = maker->draft;
    static const struct plan_point ideal;
    const struct plan_point *point = &draft->points[at];
    const struct plan_point *prefill = draft->shape.phase & TS_PHASE_PREFILL ? point : &ideal;
    const struct plan_point *decode = draft->shape.phase & TS_PHASE_DECODE ? point : &ideal;
    double used[3] = {0}, good = 0;
    for (uint32_t k = 0; k < mix->classes; ++k) {
        double prefill_s = draft->shape.phase & TS_PHASE_PREFILL ? draft->shape.prefill_s[k] : 0;
        if (!draft->shape.fits[k])
            continue;
        double attained = 1 - plan_miss_of(&maker->demand->classes[k], prefill_s, prefill, decode, 0).any;
        if (attained <= 0)
            continue;
        good += mix->weight[k] * attained;
        for (uint32_t i = 0; i < 3; ++i)
            used[i] += mix->weight[k] * draft->shares[at][i][k];
    }
    double most = fmax(used[0], fmax(used[1], used[2]));
    return most > 0 ? good / most : 0;
}

void plan_points_make(const struct plan_pipe *pipe, const struct plan_mix *mix,
                      const struct ts_demand *demand, struct plan_draft *draft)
{
    memset(draft, 0, sizeof *draft);
    struct maker maker = {.pipe = pipe, .mix = mix, .demand = demand, .draft = draft};
    struct plan_shape *shape = &draft->shape;
    shape->phase = pipe->phase;
    shape->stage_count = pipe->count;
    for (uint32_t i = 0; i < pipe->count; ++i) {
        const struct plan_rank *rank = &pipe->ranks[i];
        shape->stages[i] = (struct plan_shape_stage){rank->part, rank->unit->tp, rank->layers};
        shape->gpus += rank->unit->tp;
    }
    double kv_tokens = plan_pipe_kv_tokens(pipe);
    for (uint32_t k = 0; k < mix->classes; ++k)
        shape->fits[k] = plan_mix_holds(mix, pipe->phase, k) <= kv_tokens;
    set_batch_most(&maker, kv_tokens);
    for (uint32_t k = 0; k < mix->classes && pipe->phase == TS_PHASE_DECODE; ++k)
        shape->held[k] = mix->held_prompt[k] / (maker.batch_most * fmax(mix->mean_context, 1));
    if (pipe->phase & TS_PHASE_PREFILL) {
        make_prefill_times(&maker);
        make_line(&maker);
    }
    if (pipe->phase == TS_PHASE_PREFILL)
        make_prefill(&maker);
    else if (pipe->phase == TS_PHASE_DECODE)
        make_decode(&maker);
    else
        make_colocated(&maker);
    for (uint32_t i = 0; i < shape->point_count; ++i)
        shape->score = fmax(shape->score, score_at(&maker, i));
}
