#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_math.h"
#include "services/planner/shape/plan_shape_internal.h"

#define INTERFERENCE 1.05  /* decode beside prefill: caches and launches disturbed, beyond the time taken */
#define POINT_RATIO  1.015 /* step times closer than this are one point */
#define NO_BATCH     1e-2  /* where fluctuation leaves no room for a mean batch */
#define LEAST_BATCH  0.3   /* of the first point, in the mean */

static const double utilisations[] = {0.2, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94, 0.98};

struct maker {
    const struct plan_pipe *pipe;
    const struct plan_mix *mix;
    const struct ts_demand *demand;
    struct plan_draft *draft;
    double busy[TS_CLASSES_MAX];             /* seconds of the bottleneck that a prompt takes under load */
    double mean_busy, service_s, service_sq; /* over the mix; the two moments of a prompt alone */
    double batch_most, seen_most; /* mean batch that memory allows, and what a request meets then */
};

/* --- Prefill --- */

static void make_prefill_times(struct maker *maker)
{
    const struct plan_pipe *pipe = maker->pipe;
    const struct plan_mix *mix = maker->mix;
    for (uint32_t k = 0; k < mix->classes; ++k) {
        double sum = 0, busy = 0, alone = 0;
        for (uint32_t i = 0; i < pipe->count; ++i) {
            const struct plan_rank *rank = &pipe->ranks[i];
            const struct plan_unit *unit = rank->unit;
            bool last = i + 1 == pipe->count;
            double stage = rank->layers * unit->prefill[k] + unit->step_s + (last ? unit->head_alone : 0);
            double share =
                rank->layers * unit->busy[k] + unit->step_share[k] + (last ? unit->head_busy[k] : 0);
            double send = mix->prompt[k] * rank->hop_token_s;
            sum += stage + rank->hop_latency_s + send;
            busy = fmax(busy, fmax(share, send));
            alone = fmax(alone, fmax(stage, send));
        }
        maker->draft->shape.prefill_s[k] = sum;
        maker->busy[k] = busy;
        maker->mean_busy += mix->weight[k] * busy;
        maker->service_s += mix->weight[k] * alone;
        maker->service_sq += mix->weight[k] * alone * alone * mix->spread[k];
    }
}

/* Long prompts are computed in pieces of a batch, so none holds up others for more than one takes. */
static void make_follow(struct maker *maker)
{
    const struct plan_pipe *pipe = maker->pipe;
    struct plan_follow *follow = &maker->draft->follow;
    follow->count = maker->mix->classes;
    follow->share = (double)(pipe->count - 1) / pipe->count;
    for (uint32_t i = 0; i < pipe->count; ++i)
        follow->most += pipe->ranks[i].layers * pipe->ranks[i].unit->batch_prefill;
    for (uint32_t k = 0; k < follow->count; ++k) {
        follow->weight[k] = maker->mix->weight[k];
        follow->prefill_s[k] = fmin(maker->draft->shape.prefill_s[k], follow->most);
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
 * + cs2) / (1 + cs2). */
static void set_wait(const struct maker *maker, struct plan_point *point, double *prefill, double rho)
{
    double mean = maker->service_s, cs2 = fmax(maker->service_sq / (mean * mean) - 1, 0);
    double ca2 = plan_mix_burst(maker->mix, rho / maker->mean_busy);
    double wait = mean * rho * (ca2 + cs2) / (2 * (1 - rho));
    point->wait_share = waiting_share(rho, ca2, cs2);
    point->wait_s = wait / point->wait_share;
    point->follow = maker->pipe->count > 1 ? &maker->draft->follow : NULL;
    point->follow_rate = rho / maker->mean_busy / (1 - rho);
    for (uint32_t k = 0; k < maker->mix->classes; ++k)
        prefill[k] = maker->busy[k] / rho;
}

static void make_prefill(struct maker *maker)
{
    struct plan_draft *draft = maker->draft;
    uint32_t count = sizeof utilisations / sizeof utilisations[0];
    for (uint32_t i = 0; i < count; ++i)
        set_wait(maker, &draft->points[i], draft->shares[i][0], utilisations[i]);
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

/* Batch that a request meets when prefill is busy for `rho` of the time and tokens come each `wall` seconds;
 * 0 = cannot. */
static double colocated_seen(const struct maker *maker, double wall, double rho)
{
    return plan_pipe_batch(maker->pipe, maker->mix->mean_context, wall * (1 - rho) / INTERFERENCE,
                           maker->seen_most);
}

/* How much more the batch fluctuates when decode stands still during prefill: to arrivals and departures of
 * sequences, rate each, come the departures that prompts hold up, (rate / (1 - rho))^2 times the variance of
 * the time that prompts take in a second, rate E[S^2]. */
static double colocated_held(const struct maker *maker, double rho)
{
    double ratio = rho / (1 - rho);
    double square = maker->service_sq / (maker->service_s * maker->service_s);
    return 1 + ratio * ratio * square / 2;
}

/* The utilisation by prefill at which both phases serve as many requests of the mix. */
static double balanced_rho(const struct maker *maker, double wall)
{
    double low = 0, high = 0.98;
    for (int i = 0; i < 14; ++i) {
        double rho = (low + high) / 2;
        double batch = mean_batch(maker, colocated_seen(maker, wall, rho), wall, colocated_held(maker, rho));
        double decode = batch / fmax(maker->mix->mean_output * wall, 1e-9);
        if (rho / maker->mean_busy < decode)
            low = rho;
        else
            high = rho;
    }
    return fmax(low, 0.01);
}

/* Prompts come first. Decode work D that they interrupt as a Poisson stream takes D / (1 - rho), with a
 * variance of lambda E[S^2] D / (1 - rho)^3. Before a request's first step those go that came during its own
 * wait and prefill, and those that come during these: V of work, V / (1 - rho) of time. */
static void set_stalls(const struct maker *maker, struct plan_point *point, double rho)
{
    double mean = maker->service_s, square = maker->service_sq, free = 1 - rho;
    double work =
        rho * square / mean * plan_mix_burst(maker->mix, rho / maker->mean_busy); /* lambda E[S^2] */
    double share = point->wait_share, wait = point->wait_s, stay = share * wait + mean;
    double stay_var = share * (2 - share) * wait * wait + square - mean * mean;
    double var = work * stay + rho * rho * stay_var;
    point->stall_s2 = work * point->step_s / (free * free);
    point->start_s = rho * stay / free;
    point->start_s2 = var / (free * free) + work * rho * stay / (free * free * free);
}

static void set_colocated(struct maker *maker, double wall, double rho)
{
    struct plan_draft *draft = maker->draft;
    double seen = colocated_seen(maker, wall, rho);
    double held = colocated_held(maker, rho);
    if (seen <= 0 || (draft->shape.point_count > 0 && mean_batch(maker, seen, wall, held) <= NO_BATCH))
        return;
    uint32_t at = draft->shape.point_count++;
    struct plan_point *point = &draft->points[at];
    double share = (1 - rho) / INTERFERENCE;
    set_wait(maker, point, draft->shares[at][0], rho);
    set_decode(maker, point, draft->shares[at], seen, share, held);
    point->hold_s = point->step_s * share / 2; /* what is left of the step under way */
    set_stalls(maker, point, rho);
}

static void make_colocated(struct maker *maker)
{
    static const double around[] = {0.5, 0.8, 1, 1.3}; /* of the balanced utilisation */
    const struct plan_mix *mix = maker->mix;
    double step = least_step(maker), least = step * INTERFERENCE * 1.2;
    double most = most_step(maker) * INTERFERENCE;
    /* When memory is full and both phases keep pace, rho / busy = batch / (output * most / (1 - rho)). */
    most *= 1 + maker->mean_busy * maker->batch_most / fmax(mix->mean_output * most, 1e-9);
    if (mix->step_limit_max > 0)
        most = fmin(most, mix->step_limit_max * 0.95);
    most = fmax(most, least);
    maker->draft->shape.point_count = 0;
    const uint32_t walls = most < least * 1.1 ? 1 : 4;
    for (uint32_t i = 0; i < walls; ++i) {
        double wall = walls == 1 ? most : least * ts_math_pow(most / least, (double)i / (walls - 1));
        double rho = balanced_rho(maker, wall);
        double most_rho = fmin(0.999 * (1 - INTERFERENCE * step / wall), 0.98); /* decode's least step */
        for (uint32_t j = 0; j < sizeof around / sizeof around[0]; ++j) {
            set_colocated(maker, wall, fmin(around[j] * rho, most_rho));
            if (around[j] * rho >= most_rho)
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
    if (pipe->phase & TS_PHASE_PREFILL) {
        make_prefill_times(&maker);
        make_follow(&maker);
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
