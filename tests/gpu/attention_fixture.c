#include "tests/gpu/attention_fixture.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "gpu/codec/codec_impl.h"

#define BLOCK  16u
#define NOBODY 0xffffff00u /* a block that is far outside of any pool */
#define GUARD  256u        /* elements behind the result */

static struct ts_cuda *cuda;
static void (*before_case)(void);
static float f16[65536]; /* by their bits: most of a test's time would go into this */

void attention_use(struct ts_cuda *device, void (*before)(void))
{
    cuda = device;
    before_case = before;
    for (uint32_t i = 0; i < 65536; i++)
        f16[i] = codec_f16_to_f32((uint16_t)i);
}

static void ok(enum ts_status status, const struct ts_error *err)
{
    if (status != TS_OK)
        fail_msg("%s", err->text);
}

/* --- a case in memory ----------------------------------------------------------------------------------- */

struct fixture {
    const struct attention_case *c;
    struct cuda_attention_limits limits;
    uint32_t first[ATTENTION_ROWS_MAX], count[ATTENTION_ROWS_MAX], start[ATTENTION_ROWS_MAX];
    uint32_t tokens, table_step, blocks;
    uint32_t *table;
    uint16_t *pool, *q, *out;
    size_t pool_count, q_count;
};

static float widen(uint16_t bits, bool bf16)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return bf16 ? value : f16[bits];
}

static uint16_t narrow(float value, bool bf16)
{
    return bf16 ? codec_f32_to_bf16(value) : codec_f32_to_f16(value);
}

static uint16_t *pool_row(const struct fixture *f, uint32_t row, uint32_t position, uint32_t kv,
                          uint32_t kv_head)
{
    const struct cuda_attention_shape *s = &f->c->shape;
    size_t block = f->table[row * f->table_step + position / BLOCK];
    return f->pool + (((block * 2 + kv) * s->kv_heads + kv_head) * BLOCK + position % BLOCK) * s->head_dim;
}

/* Keys before it no query of the batch sees. */
static uint32_t row_begin(const struct attention_case *c, uint32_t row)
{
    uint32_t end = c->rows[row].start + 1;
    return c->shape.window && end > c->shape.window ? end - c->shape.window : 0;
}

/* A vector that depends on what it is, not on where it lies. */
static void fill(uint16_t *to, const struct attention_case *c, uint64_t row, uint64_t position, uint64_t what)
{
    struct ts_rng rng;
    ts_rng_init(&rng, c->seed + (row << 48) + (position << 16) + what);
    for (uint32_t i = 0; i < c->shape.head_dim; i++)
        to[i] = narrow((float)(3.4 * ts_rng_unit(&rng) - 1.7), c->shape.bf16);
}

static void place_blocks(struct fixture *f)
{
    struct ts_rng rng;
    uint32_t used = 0, *order = ts_xcalloc(f->blocks, sizeof *order);
    ts_rng_init(&rng, f->c->seed ^ 0x5eed);
    for (uint32_t i = 0; i < f->blocks; i++) {
        uint32_t j = (uint32_t)ts_rng_below(&rng, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (uint32_t r = 0; r < f->c->row_count; r++) {
        uint32_t end = f->start[r] + f->count[r];
        for (uint32_t i = 0; i < f->table_step; i++) {
            bool used_by = i * BLOCK < end && (i + 1) * BLOCK > row_begin(f->c, r);
            f->table[r * f->table_step + i] = used_by ? order[used++] : NOBODY;
        }
    }
    ts_free(order);
}

static void fixture_init(struct fixture *f, const struct attention_case *c)
{
    const struct cuda_attention_shape *s = &c->shape;
    uint32_t context = 1;
    *f = (struct fixture){.c = c};
    for (uint32_t r = 0; r < c->row_count; r++) {
        uint32_t end = c->rows[r].start + c->rows[r].count;
        f->first[r] = f->tokens;
        f->start[r] = c->rows[r].start;
        f->count[r] = c->rows[r].count;
        f->tokens += c->rows[r].count;
        f->blocks += (end + BLOCK - 1) / BLOCK + 1;
        context = end > context ? end : context;
    }
    f->limits = (struct cuda_attention_limits){.rows = c->row_count + 1,
                                               .tokens = f->tokens + 3,
                                               .context = context + 5,
                                               .multiprocessors = c->multiprocessors ? c->multiprocessors : 8,
                                               .span_tokens = c->span_tokens,
                                               .batch_invariant = c->batch_invariant};
    f->table_step = context / BLOCK + 3;
    f->table = ts_xcalloc((size_t)c->row_count * f->table_step, sizeof *f->table);
    f->pool_count = (size_t)f->blocks * 2 * s->kv_heads * BLOCK * s->head_dim;
    f->q_count = (size_t)f->tokens * s->q_heads * s->head_dim;
    f->pool = ts_xcalloc(f->pool_count, sizeof *f->pool);
    f->q = ts_xcalloc(f->q_count + GUARD, sizeof *f->q);
    f->out = ts_xcalloc(f->q_count + GUARD, sizeof *f->out);
    memset(f->pool, 0xff, f->pool_count * sizeof *f->pool); /* NaN in both types */
    memset(f->out, 0xff, (f->q_count + GUARD) * sizeof *f->out);
    place_blocks(f);
    for (uint32_t r = 0; r < c->row_count; r++) {
        for (uint32_t p = row_begin(c, r); p < f->start[r] + f->count[r]; p++) {
            for (uint32_t i = 0; i < 2 * s->kv_heads; i++)
                fill(pool_row(f, r, p, i % 2, i / 2), c, r, p, 1000 + i);
        }
        for (uint32_t t = 0; t < f->count[r]; t++) {
            for (uint32_t h = 0; h < s->q_heads; h++)
                fill(f->q + ((size_t)(f->first[r] + t) * s->q_heads + h) * s->head_dim, c, r, f->start[r] + t,
                     h);
        }
    }
}

static void fixture_fini(struct fixture *f)
{
    ts_free(f->table);
    ts_free(f->pool);
    ts_free(f->q);
}

/* --- the device ----------------------------------------------------------------------------------------- */

static ts_cuda_address take(const void *from, size_t bytes)
{
    struct ts_error err = {0};
    ts_cuda_address address;
    ok(ts_cuda_alloc(cuda, bytes, &address, &err), &err);
    if (from)
        ok(ts_cuda_upload(cuda, address, from, bytes, &err), &err);
    else
        ok(ts_cuda_clear(cuda, address, bytes, &err), &err);
    return address;
}

static void check_cleared(ts_cuda_address workspace, size_t bytes)
{
    struct ts_error err = {0};
    uint8_t *back = ts_xcalloc(bytes, 1);
    ok(ts_cuda_download(cuda, back, workspace, bytes, &err), &err);
    ok(ts_cuda_wait(cuda, &err), &err);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(back[i], 0);
    ts_free(back);
}

/* Rows of one token each may be those of a graph, which has room for one more. */
static uint32_t graph_rows(const struct fixture *f)
{
    return f->tokens == f->c->row_count && f->c->batch_invariant ? f->limits.rows : 0;
}

/* Both launches, twice, so that the second finds what the first left in the workspace. */
static void run_there(struct fixture *f)
{
    const struct attention_case *c = f->c;
    struct cuda_attention_shape planned = c->shape;
    struct cuda_attention_plan plan;
    struct ts_error err = {0};
    planned.window = c->wide_plan ? 0 : planned.window;
    size_t plan_bytes = cuda_attention_plan_bytes(&planned, &f->limits);
    size_t work_bytes = cuda_attention_workspace_bytes(&planned, &f->limits);
    size_t out_bytes = (f->q_count + GUARD) * sizeof *f->out;
    void *array = ts_xcalloc(plan_bytes, 1);
    const struct cuda_attention_rows rows = {.rows = c->row_count,
                                             .first = f->first,
                                             .count = f->count,
                                             .start = f->start,
                                             .padded = graph_rows(f)};
    cuda_attention_plan_make(&planned, &f->limits, &rows, array, &plan);
    assert_true(plan.bytes <= plan_bytes && plan.bytes % 16 == 0);
    struct cuda_attention_io io = {
        .q = take(f->q, (f->q_count + GUARD) * sizeof *f->q),
        .out = take(f->out, out_bytes),
        .pool = take(f->pool, f->pool_count * sizeof *f->pool),
        .table = take(f->table, (size_t)c->row_count * f->table_step * sizeof *f->table),
        .table_step = f->table_step,
        .plan = take(array, plan_bytes),
        .workspace = work_bytes ? take(NULL, work_bytes) : 0};
    for (uint32_t turn = 0; turn < 2; turn++) {
        ok(cuda_prefill_attention(cuda, &c->shape, &io, &plan, &err), &err);
        ok(cuda_decode_attention(cuda, &c->shape, &f->limits, &io, c->row_count, &err), &err);
        if (plan.spans == 0)
            break;
    }
    ok(ts_cuda_download(cuda, f->out, io.out, out_bytes, &err), &err);
    ok(ts_cuda_wait(cuda, &err), &err);
    if (work_bytes) /* the tickets, which come first */
        check_cleared(io.workspace, f->limits.rows * c->shape.kv_heads * sizeof(uint32_t));
    ts_free(array);
    ts_cuda_free(cuda, &io.q);
    ts_cuda_free(cuda, &io.out);
    ts_cuda_free(cuda, &io.pool);
    ts_cuda_free(cuda, &io.table);
    ts_cuda_free(cuda, &io.plan);
    ts_cuda_free(cuda, &io.workspace);
}

/* --- double precision ----------------------------------------------------------------------------------- */

static void attend(const struct fixture *f, uint32_t row, uint32_t token, uint32_t head, double *weights,
                   double *out)
{
    const struct cuda_attention_shape *s = &f->c->shape;
    uint32_t last = f->start[row] + token, kv_head = head / (s->q_heads / s->kv_heads);
    uint32_t begin = s->window && last + 1 > s->window ? last + 1 - s->window : 0;
    const uint16_t *q = f->q + ((size_t)(f->first[row] + token) * s->q_heads + head) * s->head_dim;
    double best = -DBL_MAX, sum = 0;
    for (uint32_t p = begin; p <= last; p++) {
        const uint16_t *key = pool_row(f, row, p, 0, kv_head);
        double score = 0;
        for (uint32_t i = 0; i < s->head_dim; i++)
            score += (double)widen(q[i], s->bf16) * (double)widen(key[i], s->bf16);
        weights[p] = score / sqrt(s->head_dim);
        best = weights[p] > best ? weights[p] : best;
    }
    memset(out, 0, s->head_dim * sizeof *out);
    for (uint32_t p = begin; p <= last; p++) {
        const uint16_t *value = pool_row(f, row, p, 1, kv_head);
        double weight = exp(weights[p] - best);
        sum += weight;
        for (uint32_t i = 0; i < s->head_dim; i++)
            out[i] += weight * (double)widen(value[i], s->bf16);
    }
    for (uint32_t i = 0; i < s->head_dim; i++)
        out[i] /= sum;
}

static void describe(const struct attention_case *c, char *text, size_t size)
{
    int at = snprintf(text, size, "%s, heads %u/%u of %u, window %u, spans of %u, %u processors:",
                      c->shape.bf16 ? "bf16" : "f16", c->shape.q_heads, c->shape.kv_heads, c->shape.head_dim,
                      c->shape.window, c->span_tokens, c->multiprocessors);
    for (uint32_t r = 0; r < c->row_count && r < 8; r++)
        at += snprintf(text + at, size - (size_t)at, " %u+%u", c->rows[r].start, c->rows[r].count);
}

/* Whether a token of a long row is looked at: the first, the last, some between. */
static bool is_sampled(const struct fixture *f, uint32_t row, uint32_t token)
{
    uint32_t most = f->c->sampled, last = f->count[row] - 1;
    return most == 0 || last < most || token * (uint64_t)most % last < most || token == last;
}

/* Of every query, and of all together: kernels.md, 6. */
static void compare(const struct fixture *f)
{
    const struct attention_case *c = f->c;
    uint32_t d = c->shape.head_dim;
    double *weights = ts_xcalloc((size_t)f->table_step * BLOCK, sizeof *weights);
    double *want = ts_xcalloc(d, sizeof *want), all = 0, all_off = 0;
    double tolerance = c->shape.bf16 ? 1e-2 : 2e-3;
    char text[512];
    describe(c, text, sizeof text);
    for (uint32_t r = 0; r < c->row_count; r++) {
        for (uint32_t i = 0; i < f->count[r] * c->shape.q_heads; i++) {
            uint32_t token = i / c->shape.q_heads, head = i % c->shape.q_heads;
            const uint16_t *got = f->out + ((size_t)f->first[r] * c->shape.q_heads + i) * d;
            double size = 0, off = 0;
            if (!is_sampled(f, r, token))
                continue;
            attend(f, r, token, head, weights, want);
            for (uint32_t j = 0; j < d; j++) {
                double diff = (double)widen(got[j], c->shape.bf16) - want[j];
                size += want[j] * want[j];
                off += diff * diff;
            }
            if (!(off <= 4 * tolerance * tolerance * size))
                fail_msg("%s: row %u, token %u, head %u is off by %g", text, r, token, head,
                         sqrt(off / size));
            all += size;
            all_off += off;
        }
    }
    if (!(all_off <= tolerance * tolerance * all))
        fail_msg("%s: off by %g", text, sqrt(all_off / all));
    for (size_t i = 0; i < GUARD; i++) {
        if (f->out[f->q_count + i] != 0xffff)
            fail_msg("%s: element %zu behind the result is written", text, i);
    }
    ts_free(weights);
    ts_free(want);
}

uint16_t *attention_run(const struct attention_case *c)
{
    struct fixture f;
    if (before_case)
        before_case();
    fixture_init(&f, c);
    run_there(&f);
    compare(&f);
    fixture_fini(&f);
    return f.out;
}

double attention_distance(const uint16_t *a, const uint16_t *b, size_t count, bool bf16)
{
    double size = 0, off = 0;
    for (size_t i = 0; i < count; i++) {
        double x = (double)widen(a[i], bf16), y = (double)widen(b[i], bf16);
        size += y * y;
        off += (x - y) * (x - y);
    }
    return sqrt(off / size);
}
