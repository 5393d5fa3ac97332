/*
 * From logits to tokens, in two kernels: the first looks at all logits, many blocks to a row, applies
 * penalties and leaves of each block's cell of tokens the best one and a sum of exponentials; the second,
 * a block to a row, puts them together and draws. gpu/engine/sampling_math.h has the arithmetic.
 *
 * The *order* of a token is a number: of two tokens that with the smaller one is more probable, or as
 * probable and has the lower id. All truncations of a distribution keep what is up to some order, so that
 * nothing is sorted: top-k, top-p and the draw each ask for one place in the order, where the tokens so far,
 * or their weights, reach a target. It is found by a histogram of 2048 bins, taken once for all three, and a
 * look at the tokens of one bin. Bins are 1/64 wide in units of logit / temperature, so that they fill
 * evenly. A bin with too many tokens for the list is divided by the bits of its logits, 11 at a time; what is
 * still too many then has one logit, and its tokens are counted in the order of their ids.
 *
 * Read of 4 bytes a token: once by the first kernel; by the second not at all for a greedy row, else once
 * for the histogram and once for each of top-k, top-p, the draw and log-probabilities that the row asks for.
 */
#define SAMPLING_MATH TS_DEVICE
#include "gpu/cuda/kernel.cuh"
#include "gpu/cuda/sample/sample_args.h"
#include "gpu/engine/sampling_math.h"

#define BINS      2048u
#define BIN_SCALE 64.0f
#define LIST      1024u /* tokens of a bin that are looked at one by one */
#define WARPS_MAX (SAMPLE_PICK_THREADS / 32)
#define AHEAD     16u /* logits that a thread has under way */
#define LEVELS    4u  /* after so many bins all that is left has one logit */

#define ORDER_NONE    UINT64_MAX
#define KEY_OF_LOWEST 0xff800000u /* minus infinity */

/* Smaller for greater logits, equal for equal ones; what is no number is like minus infinity. */
TS_DEVICE uint32_t key_of(float logit)
{
    uint32_t bits = kernel_bits_of(logit + 0.0f); /* -0 and +0 are one */
    uint32_t key = bits >> 31 ? bits : ~bits & 0x7fffffffu;
    return logit == logit ? key : KEY_OF_LOWEST;
}

TS_DEVICE float logit_of(uint32_t key)
{
    return kernel_float_of(key >> 31 ? key : ~key & 0x7fffffffu);
}

TS_DEVICE uint64_t order_of(float logit, uint32_t token)
{
    return (uint64_t)key_of(logit) << 32 | token;
}

TS_DEVICE uint64_t first_of_lanes(uint64_t order)
{
#pragma unroll
    for (uint32_t distance = 1; distance < 32; distance *= 2) {
        uint64_t other = __shfl_xor_sync(KERNEL_FULL_WARP, order, (int)distance);
        order = other < order ? other : order;
    }
    return order;
}

TS_DEVICE float sum_of_lanes(float value)
{
#pragma unroll
    for (uint32_t distance = 1; distance < 32; distance *= 2)
        value += __shfl_xor_sync(KERNEL_FULL_WARP, value, (int)distance);
    return value;
}

/* --- first kernel: all logits --------------------------------------------------------------------------- */

#define EACH SAMPLE_SCAN_EACH

struct scan_shared {
    uint64_t best[SAMPLE_SCAN_THREADS / 32];
    float sum[SAMPLE_SCAN_THREADS / 32];
};

/* Penalties and masks of the tokens from `begin` on that this block looks at. */
TS_DEVICE void edit_cell(const sample_args &args, const sample_row &row, float *logits, uint32_t begin)
{
    for (uint32_t i = threadIdx.x; i < row.edits_count; i += blockDim.x) {
        sample_edit e = args.edits[row.edits_begin + i];
        if (e.token - begin >= blockDim.x * EACH)
            continue;
        logits[e.token] = e.count == SAMPLE_MASKED ? logit_of(KEY_OF_LOWEST)
                                                   : sampling_penalised(logits[e.token], row.repetition,
                                                                        row.presence, row.frequency, e.count);
    }
    if (row.edits_count)
        __syncthreads();
}

TS_DEVICE uint64_t first_of_block(uint64_t order, scan_shared &shared)
{
    order = first_of_lanes(order);
    if (threadIdx.x % 32 == 0)
        shared.best[threadIdx.x / 32] = order;
    __syncthreads();
    return first_of_lanes(threadIdx.x % 32 < blockDim.x / 32 ? shared.best[threadIdx.x % 32] : ORDER_NONE);
}

TS_DEVICE float sum_of_block(float value, scan_shared &shared)
{
    value = sum_of_lanes(value);
    if (threadIdx.x % 32 == 0)
        shared.sum[threadIdx.x / 32] = value;
    __syncthreads();
    return sum_of_lanes(threadIdx.x % 32 < blockDim.x / 32 ? shared.sum[threadIdx.x % 32] : 0);
}

TS_KERNEL(cuda_sample_scan, SAMPLE_SCAN_THREADS, sample_args)
{
    TS_SHARED(scan_shared, shared);
    const sample_row &row = args.rows[blockIdx.x / args.cells_each];
    uint32_t begin = blockIdx.x % args.cells_each * blockDim.x * EACH;
    float *logits = args.logits + (uint64_t)(blockIdx.x / args.cells_each) * args.vocab;
    float own[EACH], sum = 0;
    uint64_t best = ORDER_NONE;
    edit_cell(args, row, logits, begin);
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t token = begin + i * blockDim.x + threadIdx.x;
        own[i] = token < args.ids ? logits[token] : 0;
    }
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t token = begin + i * blockDim.x + threadIdx.x;
        uint64_t order = token < args.ids ? order_of(own[i], token) : ORDER_NONE;
        best = order < best ? order : best;
    }
    best = first_of_block(best, shared);
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
        uint32_t token = begin + i * blockDim.x + threadIdx.x;
        sum += token < args.ids ? sampling_exp(own[i] - logit_of((uint32_t)(best >> 32))) : 0;
    }
    sum = sum_of_block(sum, shared);
    if (threadIdx.x == 0)
        args.cells[blockIdx.x] = sample_cell{best, sum, 0};
}

/* --- second kernel: places in the order ----------------------------------------------------------------- */

/* A token's place: what comes before it, and itself. */
struct place {
    uint64_t order;
    uint64_t weight_before, weight;
};

struct pick_shared {
    /* Of each bin; after the histogram: of all bins before it. Weights in halves, for atomics of 32 bits. */
    uint32_t counts[BINS + 1], low[BINS + 1], high[BINS + 1];
    uint64_t order[LIST], weight[LIST];
    uint64_t warp_weight[WARPS_MAX];
    uint32_t warp_count[WARPS_MAX];
    uint64_t best;
    float sum;
    uint32_t listed, bin;
    struct place place;
};

/* A row, and which of its tokens the threads look at: those in the bins that were chosen so far. */
struct view {
    const float *logits;
    uint32_t ids;
    float best, coldness, least;
    uint32_t level; /* bins chosen */
    uint32_t bin;   /* the first of them; the others are the upper bits of the key: */
    uint32_t key, shift;
    bool fresh; /* the histogram is that of level 0 */
};

TS_DEVICE uint32_t bin_of(const view &v, float logit)
{
    float distance = (v.best - logit) * v.coldness * BIN_SCALE;
    return distance < (float)(BINS - 1) ? (uint32_t)distance : BINS - 1;
}

TS_DEVICE bool chosen(const view &v, float logit)
{
    return logit >= v.least &&
           (v.level == 0 || (bin_of(v, logit) == v.bin && (uint64_t)key_of(logit) >> v.shift == v.key));
}

/* The bin at the level that follows. */
TS_DEVICE uint32_t digit_of(const view &v, float logit)
{
    if (v.level == 0)
        return bin_of(v, logit);
    return v.level == 3 ? key_of(logit) & 1023 : key_of(logit) >> (v.level == 1 ? 21 : 10) & 2047;
}

TS_DEVICE void choose(view &v, uint32_t digit)
{
    if (v.level == 0) {
        v.bin = digit;
        v.key = 0;
        v.shift = 32;
    } else {
        v.key = v.key << (v.level == 3 ? 10 : 11) | digit;
        v.shift = v.level == 1 ? 21 : v.level == 2 ? 10 : 0;
    }
    v.level++;
}

/* Calls use(logit, token) for all tokens of the row that are chosen. */
template <class function> TS_DEVICE void for_chosen(const view &v, function use)
{
    for (uint32_t begin = threadIdx.x; begin - threadIdx.x < v.ids; begin += AHEAD * blockDim.x) {
        float logits[AHEAD];
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            uint32_t token = begin + i * blockDim.x;
            logits[i] = token < v.ids ? v.logits[token] : 0;
        }
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            uint32_t token = begin + i * blockDim.x;
            if (token < v.ids && chosen(v, logits[i]))
                use(logits[i], token);
        }
    }
}

/* --- the histogram -------------------------------------------------------------------------------------- */

TS_DEVICE uint64_t weight_before(const pick_shared &s, uint32_t bin)
{
    return (uint64_t)s.high[bin] << 32 | s.low[bin];
}

TS_DEVICE void put_before(pick_shared &s, uint32_t bin, uint32_t count, uint64_t weight)
{
    s.counts[bin] = count;
    s.low[bin] = (uint32_t)weight;
    s.high[bin] = (uint32_t)(weight >> 32);
}

/* From what is in the bins to what is before them. Threads are a power of two. */
TS_DEVICE void add_up(pick_shared &s)
{
    uint32_t each = BINS / blockDim.x, first = threadIdx.x * each, lane = threadIdx.x % 32, count = 0;
    uint64_t weight = 0;
    for (uint32_t bin = first; bin < first + each; bin++) {
        count += s.counts[bin];
        weight += weight_before(s, bin);
    }
    uint32_t counts = count;
    uint64_t weights = weight;
#pragma unroll
    for (uint32_t distance = 1; distance < 32; distance *= 2) {
        uint32_t more = __shfl_up_sync(KERNEL_FULL_WARP, counts, distance);
        uint64_t heavier = __shfl_up_sync(KERNEL_FULL_WARP, weights, distance);
        counts += lane >= distance ? more : 0;
        weights += lane >= distance ? heavier : 0;
    }
    if (lane == 31) {
        s.warp_count[threadIdx.x / 32] = counts;
        s.warp_weight[threadIdx.x / 32] = weights;
    }
    __syncthreads();
    counts -= count;
    weights -= weight;
    for (uint32_t warp = 0; warp < threadIdx.x / 32; warp++) {
        counts += s.warp_count[warp];
        weights += s.warp_weight[warp];
    }
    for (uint32_t bin = first; bin < first + each; bin++) {
        count = s.counts[bin];
        weight = weight_before(s, bin);
        put_before(s, bin, counts, weights);
        counts += count;
        weights += weight;
    }
    if (first + each == BINS)
        put_before(s, BINS, counts, weights);
    __syncthreads();
}

TS_DEVICE void add_to_bin(pick_shared &s, uint32_t bin, uint64_t weight)
{
    uint32_t low = (uint32_t)weight, high = (uint32_t)(weight >> 32);
    atomicAdd(&s.counts[bin], 1u);
    if (low)
        high += atomicAdd(&s.low[bin], low) > UINT32_MAX - low; /* it came round */
    if (high)
        atomicAdd(&s.high[bin], high);
}

/* Of the tokens that are chosen, by the bin at the next level. */
TS_DEVICE void fill(view &v, pick_shared &s)
{
    __syncthreads();
    for (uint32_t bin = threadIdx.x; bin <= BINS; bin += blockDim.x)
        s.counts[bin] = s.low[bin] = s.high[bin] = 0;
    __syncthreads();
    for_chosen(v, [&](float logit, uint32_t) {
        add_to_bin(s, digit_of(v, logit), sampling_weight(logit, v.best, v.coldness));
    });
    __syncthreads();
    add_up(s);
    v.fresh = v.level == 0;
}

/* --- one place in the order ----------------------------------------------------------------------------- */

/* What a place is asked for by: the number of tokens up to it, or the sum of their weights. */
enum measure { BY_COUNT, BY_WEIGHT };

/* The bin in which the target is reached, which is one. */
TS_DEVICE uint32_t find_bin(pick_shared &s, measure by, uint64_t target)
{
    for (uint32_t bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
        uint64_t before = by == BY_COUNT ? s.counts[bin] : weight_before(s, bin);
        uint64_t through = by == BY_COUNT ? s.counts[bin + 1] : weight_before(s, bin + 1);
        if (before < target && target <= through)
            s.bin = bin;
    }
    __syncthreads();
    return s.bin;
}

/* The chosen tokens up to an order, at most LIST of them. */
TS_DEVICE void list(const view &v, pick_shared &s, uint64_t last)
{
    if (threadIdx.x == 0)
        s.listed = 0;
    __syncthreads();
    for_chosen(v, [&](float logit, uint32_t token) {
        uint64_t order = order_of(logit, token);
        if (order <= last) {
            uint32_t i = atomicAdd(&s.listed, 1u);
            s.order[i] = order;
            s.weight[i] = sampling_weight(logit, v.best, v.coldness);
        }
    });
    __syncthreads();
}

/* Among the tokens of the list. */
TS_DEVICE void find_in_list(pick_shared &s, measure by, uint64_t target)
{
    uint32_t listed = s.listed;
    for (uint32_t i = threadIdx.x; i < listed; i += blockDim.x) {
        uint64_t order = s.order[i], own = s.weight[i], before = 0;
        uint32_t rank = 0;
        for (uint32_t j = 0; j < listed; j++) {
            bool earlier = s.order[j] < order;
            rank += earlier;
            before += earlier ? s.weight[j] : 0;
        }
        if (by == BY_COUNT ? rank + 1 == target : before < target && target <= before + own)
            s.place = place{order, before, own};
    }
    __syncthreads();
}

TS_DEVICE uint32_t chosen_lanes(const view &v, uint32_t token)
{
    return __ballot_sync(KERNEL_FULL_WARP, token < v.ids && chosen(v, v.logits[token < v.ids ? token : 0]));
}

/* Among chosen tokens that all have one logit: they follow each other by their ids. Each warp has a part of
 * the vocabulary. */
TS_DEVICE void find_in_equals(const view &v, pick_shared &s, measure by, uint64_t target)
{
    uint32_t warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint32_t each = (v.ids + blockDim.x - 1) / blockDim.x * 32, begin = warp * each, count = 0, before = 0;
    uint64_t weight = sampling_weight(logit_of(v.key), v.best, v.coldness);
    uint64_t index = by == BY_COUNT ? target - 1 : (target - 1) / weight;
    for (uint32_t at = begin; at < begin + each; at += 32)
        count += (uint32_t)__popc(chosen_lanes(v, at + lane));
    if (lane == 0)
        s.warp_count[warp] = count;
    __syncthreads();
    for (uint32_t i = 0; i < warps; i++)
        before += i < warp ? s.warp_count[i] : 0;
    for (uint32_t at = begin; at < begin + each; at += 32) {
        uint32_t bits = chosen_lanes(v, at + lane);
        uint32_t rank = before + (uint32_t)__popc(bits & ((1u << lane) - 1));
        if (bits >> lane & 1 && rank == index)
            s.place = place{(uint64_t)v.key << 32 | (at + lane), index * weight, weight};
        before += (uint32_t)__popc(bits);
    }
    __syncthreads();
}

/* The token with which the tokens in order, or their weights, reach a target that all of them together
 * reach. */
TS_DEVICE place find(view &v, pick_shared &s, measure by, uint64_t target)
{
    uint64_t before = 0;
    v.level = 0;
    if (!v.fresh)
        fill(v, s);
    for (;;) {
        uint32_t bin = find_bin(s, by, target), count = s.counts[bin + 1] - s.counts[bin];
        before += weight_before(s, bin);
        target -= by == BY_COUNT ? s.counts[bin] : weight_before(s, bin);
        choose(v, bin);
        if (count <= LIST) {
            list(v, s, ORDER_NONE);
            find_in_list(s, by, target);
            break;
        }
        if (v.level == LEVELS) {
            find_in_equals(v, s, by, target);
            break;
        }
        fill(v, s);
    }
    place p = s.place;
    p.weight_before += before;
    return p;
}

/* --- second kernel: a row ------------------------------------------------------------------------------- */

/* What the first kernel left of the row's cells, put together by one warp. */
TS_DEVICE void put_together(const sample_args &args, pick_shared &s)
{
    const sample_cell *cells = args.cells + (uint64_t)blockIdx.x * args.cells_each;
    if (threadIdx.x < 32) {
        uint64_t best = ORDER_NONE;
        float sum = 0;
        for (uint32_t i = threadIdx.x; i < args.cells_each; i += 32)
            best = cells[i].best < best ? cells[i].best : best;
        best = first_of_lanes(best);
        for (uint32_t i = threadIdx.x; i < args.cells_each; i += 32)
            sum += cells[i].sum *
                   sampling_exp(logit_of((uint32_t)(cells[i].best >> 32)) - logit_of((uint32_t)(best >> 32)));
        sum = sum_of_lanes(sum);
        if (threadIdx.x == 0) {
            s.best = best;
            s.sum = sum;
        }
    }
    __syncthreads();
}

/* Nothing can be drawn where the best has no finite logit: then it is taken itself. */
TS_DEVICE uint64_t draw(view &v, const sample_row &row, pick_shared &s)
{
    fill(v, s);
    uint64_t total = weight_before(s, BINS);
    if (total == 0)
        return s.best;
    if (row.top_k && row.top_k < s.counts[BINS]) {
        place last = find(v, s, BY_COUNT, row.top_k);
        total = last.weight_before + last.weight;
    }
    if (row.top_p < 1) {
        place last = find(v, s, BY_WEIGHT, sampling_nucleus(row.top_p, total));
        total = last.weight_before + last.weight;
    }
    return find(v, s, BY_WEIGHT, sampling_target(row.unit, total)).order;
}

/* The best tokens of the whole vocabulary, in order. */
TS_DEVICE void best_tokens(view &v, uint32_t wanted, pick_shared &s, sample_result *result)
{
    float lowest = logit_of(KEY_OF_LOWEST);
    v.fresh &= v.least == lowest;
    v.least = lowest;
    v.level = 0;
    if (!v.fresh)
        fill(v, s);
    wanted = min(wanted, s.counts[BINS]);
    if (threadIdx.x == 0)
        result->top_count = wanted;
    if (wanted == 0)
        return;
    place last = find(v, s, BY_COUNT, wanted);
    v.level = 0;
    list(v, s, last.order);
    for (uint32_t i = threadIdx.x; i < wanted; i += blockDim.x) {
        uint32_t rank = 0;
        for (uint32_t j = 0; j < wanted; j++)
            rank += s.order[j] < s.order[i];
        result->top[rank] = sample_top{(uint32_t)s.order[i], logit_of((uint32_t)(s.order[i] >> 32))};
    }
}

TS_KERNEL(cuda_sample_pick, SAMPLE_PICK_THREADS, sample_args)
{
    TS_SHARED(pick_shared, s);
    const sample_row &row = args.rows[blockIdx.x];
    sample_result *result = args.results + blockIdx.x;
    put_together(args, s);
    uint64_t order = s.best;
    float best = logit_of((uint32_t)(order >> 32));
    view v = {};
    v.logits = args.logits + (uint64_t)blockIdx.x * args.vocab;
    v.ids = args.ids;
    v.best = best;
    v.least = logit_of(KEY_OF_LOWEST);
    v.coldness = 1;
    if (row.coldness > 0) {
        v.coldness = row.coldness;
        v.least = sampling_least(best, row.log_min_p);
        order = draw(v, row, s);
    }
    if (threadIdx.x == 0) {
        result->token = (uint32_t)order;
        result->logit = v.logits[(uint32_t)order];
        result->best = best;
        result->sum = s.sum;
        result->top_count = 0;
    }
    if (row.logprobs)
        best_tokens(v, row.logprobs, s, result);
}
