#include "gpu/engine/engine_cuda_load.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_mem.h"
#include "gpu/cpu/cpu_level.h"
#include "gpu/cuda/weights/cuda_weights.h"

#define SLOT_BYTES   ((size_t)8 << 20)
#define SLOTS        8u
#define IN_FLIGHT    (SLOTS / 2) /* copies that the device may still be busy with */
#define THREADS_MAX  16u
#define ROW_MULTIPLE (2 * CUDA_LOAD_RUN)

/* Rows of one matrix that go together. */
struct strip {
    const struct cuda_load *load;
    uint32_t row, rows;
};

struct slot {
    uint8_t *memory; /* pinned */
    struct ts_cuda_event *copied;
    bool full;
};

struct loader {
    struct ts_cuda *cuda;
    const struct cuda_load_options *options;
    struct strip *strips;
    uint32_t strip_count;
    struct slot slots[SLOTS];
    ts_cuda_address staging; /* of rows that are quantised on the device */
    size_t slot_bytes;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t next;    /* strip that no thread has taken yet */
    uint32_t retired; /* strips whose slots are free again */
    bool stop;
    pthread_t threads[THREADS_MAX];
    uint32_t thread_count;
};

const struct engine_part *cuda_load_row(const struct cuda_load *load, uint64_t row, uint64_t *place)
{
    const struct engine_part *part = load->parts;
    if (load->take_turns) {
        uint64_t run = row / CUDA_LOAD_RUN;
        *place = run / load->part_count * CUDA_LOAD_RUN + row % CUDA_LOAD_RUN;
        return &part[run % load->part_count];
    }
    while (row >= part->rows)
        row -= part++->rows;
    *place = row;
    return part;
}

/* One row of a tensor as T. */
static void copy_row(const struct engine_part *part, uint64_t place, enum ts_dtype dtype, uint8_t *to)
{
    const struct ts_hf_tensor *t = part->tensor;
    uint64_t from = (part->row_begin + place) * t->shape[1] + part->column_begin;
    if (t->dtype == dtype) {
        memcpy(to, t->data + from * 2, part->columns * 2);
        return;
    }
    for (uint64_t i = 0; i < part->columns; i++) {
        uint16_t bits = cpu_to_16(ts_hf_element(t, from + i), dtype);
        memcpy(to + i * 2, &bits, 2);
    }
}

static void fill(const struct loader *l, const struct strip *s, uint8_t *to)
{
    for (uint32_t i = 0; i < s->rows; i++) {
        uint64_t place;
        const struct engine_part *part = cuda_load_row(s->load, s->row + i, &place);
        copy_row(part, place, l->options->dtype, to);
        to += part->columns * 2;
    }
}

/* Takes strips in their order; each has the slot that the strip SLOTS before it had. */
static void *reader(void *arg)
{
    struct loader *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop && l->next < l->strip_count) {
        uint32_t index = l->next++;
        while (!l->stop && index >= l->retired + SLOTS)
            pthread_cond_wait(&l->changed, &l->lock);
        if (l->stop)
            break;
        pthread_mutex_unlock(&l->lock);
        fill(l, &l->strips[index], l->slots[index % SLOTS].memory);
        pthread_mutex_lock(&l->lock);
        l->slots[index % SLOTS].full = true;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static bool is_int8(const struct strip *s)
{
    return s->load->to->type == CUDA_MATRIX_I8;
}

/* Where rows of T go: to their matrix, or to be quantised. */
static ts_cuda_address target(const struct loader *l, const struct strip *s)
{
    return is_int8(s) ? l->staging : s->load->to->data + (uint64_t)s->row * s->load->to->inputs * 2;
}

static enum ts_status settle(const struct loader *l, const struct strip *s, struct ts_error *err)
{
    const struct cuda_matrix *m = s->load->to;
    if (!is_int8(s))
        return TS_OK;
    return cuda_weights_quantise(l->cuda, l->staging, s->rows, m->inputs, l->options->dtype,
                                 m->data + (uint64_t)s->row * m->inputs, m->scales + (uint64_t)s->row * 4,
                                 err);
}

static enum ts_status send(struct loader *l, uint32_t index, struct ts_error *err)
{
    const struct strip *s = &l->strips[index];
    struct slot *slot = &l->slots[index % SLOTS];
    pthread_mutex_lock(&l->lock);
    while (!slot->full)
        pthread_cond_wait(&l->changed, &l->lock);
    slot->full = false;
    pthread_mutex_unlock(&l->lock);
    enum ts_status status =
        ts_cuda_upload(l->cuda, target(l, s), slot->memory, (size_t)s->rows * s->load->to->inputs * 2, err);
    if (status == TS_OK)
        status = ts_cuda_record(l->cuda, slot->copied, err);
    return status == TS_OK ? settle(l, s, err) : status;
}

static enum ts_status retire(struct loader *l, uint32_t index, struct ts_error *err)
{
    enum ts_status status = ts_cuda_event_wait(l->slots[index % SLOTS].copied, err);
    pthread_mutex_lock(&l->lock);
    l->retired = index + 1;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return status;
}

static enum ts_status copy_all(struct loader *l, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; i < l->strip_count && status == TS_OK; i++) {
        status = send(l, i, err);
        if (status == TS_OK && i >= IN_FLIGHT)
            status = retire(l, i - IN_FLIGHT, err);
    }
    return status;
}

static enum ts_status make_all(struct loader *l, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    for (uint32_t i = 0; i < l->strip_count && status == TS_OK; i++) {
        const struct strip *s = &l->strips[i];
        const struct cuda_matrix *m = s->load->to;
        status = cuda_weights_fill(l->cuda, target(l, s), (uint64_t)s->rows * m->inputs, i + 1,
                                   1 / sqrt(m->inputs), l->options->dtype, err);
        if (status == TS_OK)
            status = settle(l, s, err);
    }
    return status;
}

/* Strips of as many rows as a slot holds. */
static void cut(struct loader *l, const struct cuda_load *loads, size_t count)
{
    size_t capacity = 0;
    for (size_t i = 0; i < count; i++) {
        size_t row_bytes = (size_t)loads[i].to->inputs * 2;
        size_t most = SLOT_BYTES / row_bytes / ROW_MULTIPLE * ROW_MULTIPLE;
        if (most == 0)
            most = ROW_MULTIPLE;
        for (uint32_t row = 0, rows; row < loads[i].to->outputs; row += rows) {
            uint32_t left = loads[i].to->outputs - row;
            rows = left < most ? left : (uint32_t)most;
            ts_array_reserve((void **)&l->strips, &capacity, l->strip_count + 1, sizeof *l->strips);
            l->strips[l->strip_count++] = (struct strip){&loads[i], row, rows};
            if (rows * row_bytes > l->slot_bytes)
                l->slot_bytes = rows * row_bytes;
        }
    }
}

static enum ts_status begin(struct loader *l, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    bool staging = false;
    for (uint32_t i = 0; i < l->strip_count; i++)
        staging = staging || is_int8(&l->strips[i]);
    if (staging)
        status = ts_cuda_alloc(l->cuda, l->slot_bytes, &l->staging, err);
    for (uint32_t i = 0; i < SLOTS && status == TS_OK && !l->options->random; i++) {
        void *memory = NULL;
        status = ts_cuda_pin(l->cuda, l->slot_bytes, &memory, err);
        l->slots[i].memory = memory;
        if (status == TS_OK)
            status = ts_cuda_event_new(l->cuda, &l->slots[i].copied, err);
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t wanted = l->options->threads ? l->options->threads : (uint32_t)cores;
    for (uint32_t i = 0; i < wanted && i < THREADS_MAX && status == TS_OK && !l->options->random; i++) {
        if (pthread_create(&l->threads[i], NULL, reader, l) != 0)
            return i > 0 ? TS_OK : ts_error_set(err, TS_EIO, "cannot start a thread that reads weights");
        l->thread_count++;
    }
    return status;
}

static void end(struct loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    for (uint32_t i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
    for (uint32_t i = 0; i < SLOTS; i++) {
        void *memory = l->slots[i].memory;
        ts_cuda_event_free(&l->slots[i].copied);
        ts_cuda_unpin(l->cuda, &memory);
    }
    ts_cuda_free(l->cuda, &l->staging);
    ts_free(l->strips);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
}

enum ts_status cuda_load_all(struct ts_cuda *cuda, const struct cuda_load_options *options,
                             const struct cuda_load *loads, size_t count, struct ts_error *err)
{
    struct loader l = {.cuda = cuda, .options = options};
    pthread_mutex_init(&l.lock, NULL);
    pthread_cond_init(&l.changed, NULL);
    cut(&l, loads, count);
    enum ts_status status = begin(&l, err);
    if (status == TS_OK)
        status = options->random ? make_all(&l, err) : copy_all(&l, err);
    enum ts_status waited = ts_cuda_wait(cuda, status == TS_OK ? err : NULL);
    end(&l);
    return status != TS_OK ? status : waited;
}
