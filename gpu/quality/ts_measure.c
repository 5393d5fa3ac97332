/* The batches that are timed, memory, and the way to the host. */
#include "gpu/quality/ts_measure.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_kv.h"
#include "gpu/cuda/device/ts_cuda.h"

#define PROMPT_LEAST 16u
#define CONTEXT_MOST 1024u
#define ROWS_MOST    256u
#define REPEATS_MOST 5u
#define LINK_BYTES   ((size_t)32 << 20)
#define LINK_REPEATS 4u

struct measuring {
    struct ts_engine *engine;
    const struct ts_engine_info *info;
    struct ts_measure_room room;
    ts_time end;      /* of the budget */
    uint32_t longest; /* prompt */
    uint32_t *ids, *blocks;
    struct ts_engine_row *rows;
    struct ts_measure_point points[TS_MEASURE_POINTS_MAX];
    uint32_t count;
};

static uint32_t least_of(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* --- batches -------------------------------------------------------------------------------------------- */

/* Each row has blocks of its own, one after the other. */
static void make_rows(struct measuring *m, const struct ts_measure_point *p, const struct ts_sampling *greedy)
{
    uint32_t per_row = ts_kv_blocks_for(p->tokens + p->decode);
    for (uint32_t i = 0; i < p->rows; i++)
        m->rows[i] = (struct ts_engine_row){.position = p->decode ? p->tokens : 0,
                                            .token_count = p->decode ? 1 : p->tokens,
                                            .tokens = m->ids,
                                            .blocks = m->blocks + (size_t)i * per_row,
                                            .block_count = per_row,
                                            .sample = true,
                                            .sampling = greedy};
}

static enum ts_status run_once(struct measuring *m, const struct ts_measure_point *p, ts_time *spent,
                               struct ts_error *err)
{
    struct ts_engine_event done = {.status = TS_OK};
    struct ts_engine_batch batch = {.rows = m->rows, .row_count = p->rows};
    ts_time begin = ts_clock_now();
    enum ts_status status = ts_engine_submit(m->engine, &batch, err);
    if (status == TS_OK)
        status = ts_engine_wait(m->engine, &done);
    if (status == TS_OK && done.status != TS_OK)
        status =
            ts_error_set(err, done.status, "the engine failed on %u rows of %u tokens", p->rows, p->tokens);
    *spent = done.compute_ns > 0 ? done.compute_ns : ts_clock_now() - begin;
    return status;
}

static int by_time(const void *a, const void *b)
{
    const ts_time *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The median of a few; the first one, which makes ready what the others find, counts when there is no time
 * for more. */
static enum ts_status measure_point(struct measuring *m, struct ts_measure_point p, struct ts_error *err)
{
    struct ts_sampling greedy = ts_sampling_defaults();
    ts_time times[REPEATS_MOST], share = m->room.budget / 40;
    uint32_t repeats = 0;
    greedy.temperature = 0;
    make_rows(m, &p, &greedy);
    enum ts_status status = run_once(m, &p, &times[0], err);
    ts_time most = times[0] > 0 ? share / times[0] : REPEATS_MOST;
    for (; status == TS_OK && repeats < REPEATS_MOST && (ts_time)repeats < most; repeats++)
        status = run_once(m, &p, &times[repeats], err);
    if (status != TS_OK)
        return status;
    repeats = repeats ? repeats : 1;
    qsort(times, repeats, sizeof *times, by_time);
    p.seconds = (double)(times[repeats / 2] > 0 ? times[repeats / 2] : 1) / 1e9;
    TS_ASSERT(m->count < TS_MEASURE_POINTS_MAX);
    m->points[m->count++] = p;
    return TS_OK;
}

/* Whether the last point leaves time for one that is four times as large. */
static bool goes_on(const struct measuring *m)
{
    return ts_clock_now() + (ts_time)(m->points[m->count - 1].seconds * 8e9) < m->end;
}

static enum ts_status measure_prompts(struct measuring *m, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    for (uint32_t tokens = PROMPT_LEAST; status == TS_OK; tokens = least_of(4 * tokens, m->longest)) {
        status = measure_point(m, (struct ts_measure_point){.rows = 1, .tokens = tokens}, err);
        if (tokens >= m->longest || (status == TS_OK && !goes_on(m)))
            break;
    }
    return status;
}

static enum ts_status measure_steps(struct measuring *m, uint32_t context, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    uint32_t most = least_of(least_of(m->room.batch.batch_rows, m->room.batch.batch_tokens), ROWS_MOST);
    most = least_of(most, m->info->kv_blocks / ts_kv_blocks_for(context + 1));
    for (uint32_t rows = 1; status == TS_OK && rows <= most; rows *= 4) {
        struct ts_measure_point p = {.decode = true, .rows = rows, .tokens = context};
        status = measure_point(m, p, err);
        if (status == TS_OK && !goes_on(m))
            break;
    }
    return status;
}

static enum ts_status measure_batches(struct measuring *m, struct ts_error *err)
{
    uint32_t most = least_of(
        CONTEXT_MOST, least_of(m->info->kv_blocks * TS_KV_BLOCK_TOKENS, m->info->model.context_tokens) - 1);
    ts_time budget = m->room.budget;
    m->end = ts_clock_now() + budget / 2;
    enum ts_status status = measure_prompts(m, err);
    m->end += budget / 4;
    if (status == TS_OK)
        status = measure_steps(m, PROMPT_LEAST - 1, err);
    m->end += budget / 4;
    if (status == TS_OK && most > 4 * PROMPT_LEAST)
        status = measure_steps(m, most, err);
    return status;
}

/* --- the device ----------------------------------------------------------------------------------------- */

/* Bytes per second of copies between pinned memory of the host and the device. */
static enum ts_status time_copies(struct ts_cuda *cuda, void *host, ts_cuda_address there, bool up,
                                  struct ts_cuda_event *const *events, double *out, struct ts_error *err)
{
    uint64_t ns = 0;
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; status == TS_OK && i <= LINK_REPEATS; i++) {
        if (i == 1) /* the first one is for warmth */
            status = ts_cuda_record(cuda, events[0], err);
        if (status == TS_OK)
            status = up ? ts_cuda_upload(cuda, there, host, LINK_BYTES, err)
                        : ts_cuda_download(cuda, host, there, LINK_BYTES, err);
    }
    if (status == TS_OK)
        status = ts_cuda_record(cuda, events[1], err);
    if (status == TS_OK)
        status = ts_cuda_elapsed(events[0], events[1], &ns, err);
    *out = ns ? (double)LINK_REPEATS * (double)LINK_BYTES * 1e9 / (double)ns : 0;
    return status;
}

static enum ts_status time_both(struct ts_cuda *cuda, void *host, ts_cuda_address there,
                                struct ts_measured *out, struct ts_error *err)
{
    struct ts_cuda_event *events[2] = {NULL, NULL};
    enum ts_status status = ts_cuda_event_new(cuda, &events[0], err);
    if (status == TS_OK)
        status = ts_cuda_event_new(cuda, &events[1], err);
    if (status == TS_OK)
        status = time_copies(cuda, host, there, true, events, &out->upload_bytes_per_s, err);
    if (status == TS_OK)
        status = time_copies(cuda, host, there, false, events, &out->download_bytes_per_s, err);
    ts_cuda_event_free(&events[0]);
    ts_cuda_event_free(&events[1]);
    return status;
}

/* Where there is no memory to spare the links stay unknown. */
static enum ts_status measure_links(struct ts_cuda *device, struct ts_measured *out, struct ts_error *err)
{
    struct ts_cuda *cuda = NULL;
    void *host = NULL;
    ts_cuda_address there = 0;
    enum ts_status status = ts_cuda_fork(device, false, &cuda, err);
    if (status != TS_OK)
        return status;
    status = ts_cuda_pin(cuda, LINK_BYTES, &host, err);
    if (status == TS_OK)
        status = ts_cuda_alloc(cuda, LINK_BYTES, &there, err);
    if (status == TS_OK)
        status = time_both(cuda, host, there, out, err);
    ts_cuda_free(cuda, &there);
    ts_cuda_unpin(cuda, &host);
    ts_cuda_close(&cuda);
    return status == TS_ENOMEM ? TS_OK : status;
}

static enum ts_status measure_device(const struct ts_engine_info *info, struct ts_measured *out,
                                     struct ts_error *err)
{
    if (info->device) {
        out->memory_bytes = (double)ts_cuda_properties(info->device)->memory_bytes;
        return measure_links(info->device, out, err);
    }
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    out->memory_bytes = (double)pages * (double)page;
    return TS_OK;
}

/* --- all ------------------------------------------------------------------------------------------------ */

static bool has_room(struct measuring *m)
{
    const struct ts_engine_info *info = m->info;
    uint32_t room = least_of(m->room.batch.batch_tokens, info->model.context_tokens - 1);
    m->longest =
        least_of(room, least_of(info->kv_blocks, UINT32_MAX / TS_KV_BLOCK_TOKENS) * TS_KV_BLOCK_TOKENS);
    return !info->modelled && info->shard.layer_begin == 0 && info->shard.head_begin == 0 &&
           info->shard.head_end == info->model.kv_heads && m->longest >= PROMPT_LEAST &&
           m->room.batch.batch_rows > 0;
}

enum ts_status ts_measure(struct ts_engine *engine, struct ts_measure_room room, struct ts_measured *out,
                          struct ts_error *err)
{
    struct measuring m = {.engine = engine, .info = ts_engine_info(engine), .room = room};
    *out = (struct ts_measured){.memory_bytes = 0};
    if (!has_room(&m))
        return ts_error_set(err, TS_EUNSUPPORTED, "nothing to measure: no room for a prompt and a step");
    m.ids = ts_xcalloc(m.longest, sizeof *m.ids);
    m.blocks = ts_xcalloc(m.info->kv_blocks, sizeof *m.blocks);
    m.rows = ts_xcalloc(ROWS_MOST, sizeof *m.rows);
    for (uint32_t i = 0; i < m.longest; i++)
        m.ids[i] = i * 7919u % m.info->model.vocab;
    for (uint32_t i = 0; i < m.info->kv_blocks; i++)
        m.blocks[i] = i;
    enum ts_status status = measure_device(m.info, out, err);
    if (status == TS_OK)
        status = measure_batches(&m, err);
    if (status == TS_OK)
        ts_measure_fit(m.info, m.points, m.count, out);
    ts_free(m.ids);
    ts_free(m.blocks);
    ts_free(m.rows);
    return status;
}
