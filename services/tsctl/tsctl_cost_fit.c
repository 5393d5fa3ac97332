#include "services/tsctl/tsctl_cost_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_math.h"
#include "common/base/ts_mem.h"

#define RESIDUAL      0.1  /* of a logarithm: below it squares count, above it absolute values */
#define PRIOR_WEIGHT  9.0  /* of a parameter's squared distance from its start, in its own deviations */
#define OWN_SHARE     0.5  /* of a deviation's sigma: what a device has beyond its kind */
#define NO_COPIES     0.8  /* assumed, not fitted: devices that wait for their copies into shared memory */
#define FLOPS_MOST    0.95 /* no device holds more of its peak */
#define STEPS_MAX     60
#define DIFFERENCE    1e-5
#define LARGE_MESSAGE 1e6

/* Parameters of all devices. Layer constants are clock cycles: small kernels wait for latencies on the chip.
 */
enum law {
    LAW_FLOPS,
    LAW_FLOPS_BASE, /* power of base / boost clock, by 0.8 */
    LAW_FLOPS_WATT, /* power of watts / TFLOPS */
    LAW_MEMORY,
    LAW_CONTEXT,
    LAW_ATTENTION, /* share of the flops efficiency */
    LAW_HALF,
    LAW_LAYER_STACKED,
    LAW_LAYER_OTHER,
    LAW_COUNT
};

enum deviation { DEV_FLOPS, DEV_MEMORY, DEV_CONTEXT, DEV_ATTENTION, DEV_HALF, DEV_LAYER, DEV_COUNT };

enum scope { SCOPE_ALL, SCOPE_KIND, SCOPE_DEVICE, SCOPE_STACK, SCOPE_LINK };

struct start {
    double value, sigma;
};

static const struct start law_starts[LAW_COUNT] = {
    [LAW_FLOPS] = {0.88, 1}, [LAW_FLOPS_BASE] = {0.7, 0.2},   [LAW_FLOPS_WATT] = {0.22, 0.2},
    [LAW_MEMORY] = {0.8, 1}, [LAW_CONTEXT] = {0.8, 1},        [LAW_ATTENTION] = {0.8, 1},
    [LAW_HALF] = {60, 1},    [LAW_LAYER_STACKED] = {60e3, 1}, [LAW_LAYER_OTHER] = {50e3, 1},
};

static const double deviation_sigmas[DEV_COUNT] = {
    [DEV_FLOPS] = 0.15,    [DEV_MEMORY] = 0.05, [DEV_CONTEXT] = 0.15,
    [DEV_ATTENTION] = 0.2, [DEV_HALF] = 0.3,    [DEV_LAYER] = 0.3,
};

static const struct {
    enum cost_source source;
    size_t offset;
    struct start start;
} stack_starts[] = {
#define STACK(source, field, value, sigma)                                                                   \
    {                                                                                                        \
        source, offsetof(struct cost_stack, field),                                                          \
        {                                                                                                    \
            value, sigma                                                                                     \
        }                                                                                                    \
    }
    STACK(COST_VIDUR, flops, 1, 0.3),
    STACK(COST_VIDUR, memory, 1, 0.1),
    STACK(COST_VIDUR, layer, 1, 1),
    STACK(COST_VIDUR, call_s, 30e-6, 1),
    STACK(COST_VIDUR, send_s, 6e-6, 1),
    STACK(COST_HELIX, flops, 1, 0.3),
    STACK(COST_HELIX, memory, 1, 0.1),
    STACK(COST_HELIX, layer, 1, 1),
    STACK(COST_HELIX, attention, 0.5, 0.5),
    STACK(COST_HELIX, context, 0.85, 0.15),
    STACK(COST_HELIX, group, 0.3, 1),
    STACK(COST_SPLITWISE, flops, 1, 0.3),
    STACK(COST_SPLITWISE, memory, 1, 0.1),
    STACK(COST_SPLITWISE, layer, 1, 1),
    STACK(COST_SPLITWISE, attention, 0.5, 0.5),
    STACK(COST_SPLITWISE, context, 1, 0.3),
    STACK(COST_SPLITWISE, link, 0.8, 0.3),
    STACK(COST_SPLITWISE, host_prefill, 18, 1),
    STACK(COST_SPLITWISE, host_decode, 12, 1),
    STACK(COST_NCCL, call_s, 8e-6, 1),
};

/* NVLink: three quarters of the data sheet's bandwidth in one direction. */
static const struct {
    const char *name;
    struct start bytes_per_s, latency_s;
} link_starts[COST_FITTED_LINKS] = {
    [COST_NVLINK3] = {"NVLink3", {225e9, 0.3}, {3e-6, 0.5}},
    [COST_NVLINK4] = {"NVLink4", {340e9, 0.3}, {2.5e-6, 0.5}},
    [COST_PCIE4] = {"PCIe4", {16e9, 1}, {8e-6, 1}},
    [COST_PCIE_HOST] = {"PCIe-host", {6e9, 1}, {20e-6, 1}},
    [COST_FABRIC] = {"between-machines", {6e9, 1}, {15e-6, 1}},
};

struct parameter {
    double value; /* logarithm, but for exponents */
    double start, sigma;
    enum scope scope;
    uint32_t index; /* kind, device, stack or link */
    bool exponent;
};

struct cost_fit {
    const struct cost_sheet *sheets;
    const struct cost_table *table;
    size_t sheet_count, count, capacity;
    struct parameter *parameters;
    size_t *device_first, *kind_first; /* index of the deviations; 0 = none */
    size_t stack_first, link_first;
    struct ts_device_type *devices; /* made from the parameters */
    struct ts_link links[COST_FITTED_LINKS];
    struct cost_stack stacks[COST_SOURCE_COUNT];
    double *jacobian; /* [parameter][row] */
    double *residuals, *shifted, *matrix, *factor, *gradient, *step;
};

/* --- Parameters and what they say --- */

static void add(struct cost_fit *fit, double value, double sigma, enum scope scope, uint32_t index,
                bool exponent)
{
    double start = exponent ? value : ts_math_log(value);
    ts_array_reserve((void **)&fit->parameters, &fit->capacity, fit->count + 1, sizeof *fit->parameters);
    fit->parameters[fit->count++] = (struct parameter){start, start, sigma, scope, index, exponent};
}

static double said(const struct cost_fit *fit, size_t index)
{
    const struct parameter *p = &fit->parameters[index];
    return p->exponent ? p->value : ts_math_exp(p->value);
}

static double deviation(const struct cost_fit *fit, size_t device, enum deviation which)
{
    size_t own = fit->device_first[device], kind = fit->kind_first[fit->sheets[device].kind];
    return (own ? said(fit, own + which) : 1) * (kind ? said(fit, kind + which) : 1);
}

static double flops_law(const struct cost_fit *fit, const struct cost_sheet *sheet)
{
    double clocks = ts_math_pow(sheet->base_hz / sheet->boost_hz / 0.8, said(fit, LAW_FLOPS_BASE));
    double power = ts_math_pow(sheet->watts / (sheet->device.flops * 1e-12), said(fit, LAW_FLOPS_WATT));
    double share = said(fit, LAW_FLOPS) * clocks * power * (sheet->copies ? 1 : NO_COPIES);
    return share * ts_math_pow(1 + ts_math_pow(share / FLOPS_MOST, 8), -0.125);
}

static void make_device(struct cost_fit *fit, size_t index)
{
    const struct cost_sheet *sheet = &fit->sheets[index];
    struct ts_device_fit *out = &fit->devices[index].fit;
    double cycles = said(fit, sheet->stacked ? LAW_LAYER_STACKED : LAW_LAYER_OTHER);
    out->flops_efficiency = flops_law(fit, sheet) * deviation(fit, index, DEV_FLOPS);
    out->memory_efficiency = said(fit, LAW_MEMORY) * deviation(fit, index, DEV_MEMORY);
    out->context_efficiency = said(fit, LAW_CONTEXT) * deviation(fit, index, DEV_CONTEXT);
    out->attention_efficiency =
        out->flops_efficiency * said(fit, LAW_ATTENTION) * deviation(fit, index, DEV_ATTENTION);
    out->tokens_half = said(fit, LAW_HALF) * deviation(fit, index, DEV_HALF);
    out->layer_s = cycles / sheet->boost_hz * deviation(fit, index, DEV_LAYER);
    if (sheet->link >= 0)
        fit->devices[index].peer = fit->links[sheet->link];
}

static void make_all(struct cost_fit *fit)
{
    for (size_t i = 0; i < COST_FITTED_LINKS; i++) {
        fit->links[i].bytes_per_s = said(fit, fit->link_first + 2 * i);
        fit->links[i].latency_s = said(fit, fit->link_first + 2 * i + 1);
    }
    for (size_t i = 0; i < TS_ARRAY_SIZE(stack_starts); i++) {
        char *stack = (char *)&fit->stacks[stack_starts[i].source];
        *(double *)(void *)(stack + stack_starts[i].offset) = said(fit, fit->stack_first + i);
    }
    for (size_t i = 0; i < fit->sheet_count; i++)
        make_device(fit, i);
}

static bool has_rows(const struct cost_table *table, size_t device)
{
    for (size_t i = 0; i < table->row_count; i++)
        if (table->rows[i].device == device && table->rows[i].phase <= COST_DECODE)
            return true;
    return false;
}

static void add_deviations(struct cost_fit *fit)
{
    fit->device_first = ts_xcalloc(fit->sheet_count, sizeof *fit->device_first);
    fit->kind_first = ts_xcalloc(fit->sheet_count, sizeof *fit->kind_first);
    fit->devices = ts_xcalloc(fit->sheet_count, sizeof *fit->devices);
    for (size_t d = 0; d < fit->sheet_count; d++) {
        uint32_t kind = fit->sheets[d].kind;
        fit->devices[d] = fit->sheets[d].device;
        if (!has_rows(fit->table, d))
            continue;
        if (fit->kind_first[kind] == 0) {
            fit->kind_first[kind] = fit->count;
            for (size_t i = 0; i < DEV_COUNT; i++)
                add(fit, 1, deviation_sigmas[i], SCOPE_KIND, kind, false);
        }
        fit->device_first[d] = fit->count;
        for (size_t i = 0; i < DEV_COUNT; i++)
            add(fit, 1, OWN_SHARE * deviation_sigmas[i], SCOPE_DEVICE, (uint32_t)d, false);
    }
}

struct cost_fit *cost_fit_new(const struct cost_sheet *sheets, size_t sheet_count,
                              const struct cost_table *table)
{
    struct cost_fit *fit = ts_xcalloc(1, sizeof *fit);
    *fit = (struct cost_fit){.sheets = sheets, .table = table, .sheet_count = sheet_count};
    for (size_t i = 0; i < LAW_COUNT; i++)
        add(fit, law_starts[i].value, law_starts[i].sigma, SCOPE_ALL, 0,
            i == LAW_FLOPS_BASE || i == LAW_FLOPS_WATT);
    fit->stack_first = fit->count;
    for (size_t i = 0; i < TS_ARRAY_SIZE(stack_starts); i++)
        add(fit, stack_starts[i].start.value, stack_starts[i].start.sigma, SCOPE_STACK,
            stack_starts[i].source, false);
    fit->link_first = fit->count;
    for (uint32_t i = 0; i < COST_FITTED_LINKS; i++) {
        add(fit, link_starts[i].bytes_per_s.value, link_starts[i].bytes_per_s.sigma, SCOPE_LINK, i, false);
        add(fit, link_starts[i].latency_s.value, link_starts[i].latency_s.sigma, SCOPE_LINK, i, false);
        (void)strncpy(fit->links[i].name, link_starts[i].name, sizeof fit->links[i].name - 1);
    }
    add_deviations(fit);
    for (size_t i = 0; i < COST_SOURCE_COUNT; i++)
        fit->stacks[i] = cost_stack_none();
    fit->stacks[COST_KERNELS].kernels_only = true;
    fit->jacobian = ts_xcalloc(fit->count * (table->row_count + 1), sizeof(double));
    fit->residuals = ts_xcalloc(table->row_count + 1, sizeof(double));
    fit->shifted = ts_xcalloc(table->row_count + 1, sizeof(double));
    fit->matrix = ts_xcalloc(fit->count * fit->count, sizeof(double));
    fit->factor = ts_xcalloc(fit->count * fit->count, sizeof(double));
    fit->gradient = ts_xcalloc(fit->count, sizeof(double));
    fit->step = ts_xcalloc(fit->count, sizeof(double));
    make_all(fit);
    return fit;
}

void cost_fit_destroy(struct cost_fit **fit)
{
    struct cost_fit *gone = *fit;
    *fit = NULL;
    if (!gone)
        return;
    ts_free(gone->parameters);
    ts_free(gone->device_first);
    ts_free(gone->kind_first);
    ts_free(gone->devices);
    ts_free(gone->jacobian);
    ts_free(gone->residuals);
    ts_free(gone->shifted);
    ts_free(gone->matrix);
    ts_free(gone->factor);
    ts_free(gone->gradient);
    ts_free(gone->step);
    ts_free(gone);
}

/* --- Answers --- */

const char *cost_fitted_link_name(enum cost_fitted_link link)
{
    return link_starts[link].name;
}

struct ts_device_type cost_fit_device(const struct cost_fit *fit, size_t sheet)
{
    return fit->devices[sheet];
}

const struct ts_link *cost_fit_link(const struct cost_fit *fit, enum cost_fitted_link link)
{
    return &fit->links[link];
}

const struct cost_stack *cost_fit_stack(const struct cost_fit *fit, enum cost_source source)
{
    return &fit->stacks[source];
}

static double predict(const struct cost_fit *fit, const struct cost_row *row, enum cost_source source)
{
    struct cost_links links = {fit->links[COST_PCIE4], fit->links[COST_FABRIC]};
    return cost_predict(row, &fit->table->models[row->model], &fit->devices[row->device], &links,
                        &fit->stacks[source]);
}

double cost_fit_predict(const struct cost_fit *fit, const struct cost_row *row)
{
    return predict(fit, row, row->source);
}

double cost_fit_predict_plain(const struct cost_fit *fit, const struct cost_row *row)
{
    return predict(fit, row, COST_OTHER);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cost_fit_step_s(const struct cost_fit *fit)
{
    const struct cost_table *table = fit->table;
    double *beyond = ts_xcalloc(table->serving_count + 1, sizeof *beyond);
    for (size_t i = 0; i < table->serving_count; i++) {
        const struct cost_serving *row = &table->serving[i];
        const struct ts_device_type *device = &fit->devices[row->device];
        const struct ts_model *model = &table->models[row->model];
        double layer = ts_cost_layer_decode_s(device, model, &device->peer, 1, row->batch, row->context);
        beyond[i] = row->token_s - model->layers * layer - ts_cost_head_s(device, model, 1, row->batch);
    }
    qsort(beyond, table->serving_count, sizeof *beyond, compare_doubles);
    double median = table->serving_count > 0 ? beyond[table->serving_count / 2] : 0;
    ts_free(beyond);
    return fmax(median, 0);
}

/* --- Least squares --- */

static int link_of(const struct cost_fit *fit, const struct cost_row *row)
{
    if (row->link == COST_LINK_FABRIC)
        return COST_FABRIC;
    if (row->link == COST_LINK_PCIE)
        return COST_PCIE4;
    return row->tp > 1 && row->phase != COST_LINEAR ? fit->sheets[row->device].link : -1;
}

static bool touches(const struct cost_fit *fit, const struct parameter *p, const struct cost_row *row)
{
    switch (p->scope) {
    case SCOPE_ALL:
        return row->phase <= COST_DECODE;
    case SCOPE_KIND:
        return row->phase <= COST_DECODE && fit->sheets[row->device].kind == p->index;
    case SCOPE_DEVICE:
        return row->phase <= COST_DECODE && row->device == p->index;
    case SCOPE_STACK:
        return row->source == p->index;
    case SCOPE_LINK:
        return link_of(fit, row) == (int)p->index;
    }
    return false;
}

/* Two machines with PCIe 4 were measured that differ sixfold: what is sought is their mean, not the one with
 * more rows, so these rows count by their squares. */
static bool squared(const struct cost_fit *fit, const struct cost_row *row)
{
    return row->phase >= COST_ALL_REDUCE && row->bytes > LARGE_MESSAGE && link_of(fit, row) == COST_PCIE4;
}

static double residual(const struct cost_fit *fit, const struct cost_row *row)
{
    return ts_math_log(cost_fit_predict(fit, row) / row->seconds) / RESIDUAL;
}

static double loss(const struct cost_fit *fit, const bool *used)
{
    double sum = 0;
    for (size_t i = 0; i < fit->table->row_count; i++) {
        const struct cost_row *row = &fit->table->rows[i];
        if (used && !used[i])
            continue;
        double r = residual(fit, row);
        sum += squared(fit, row) ? r * r : 2 * (sqrt(1 + r * r) - 1);
    }
    for (size_t i = 0; i < fit->count; i++) {
        const struct parameter *p = &fit->parameters[i];
        double away = (p->value - p->start) / p->sigma;
        sum += PRIOR_WEIGHT * away * away;
    }
    return sum;
}

static void differentiate(struct cost_fit *fit, const bool *used)
{
    size_t rows = fit->table->row_count;
    for (size_t i = 0; i < rows; i++)
        fit->residuals[i] = used && !used[i] ? 0 : residual(fit, &fit->table->rows[i]);
    for (size_t k = 0; k < fit->count; k++) {
        struct parameter *p = &fit->parameters[k];
        double value = p->value, *column = &fit->jacobian[k * rows];
        p->value = value + DIFFERENCE;
        make_all(fit);
        for (size_t i = 0; i < rows; i++) {
            const struct cost_row *row = &fit->table->rows[i];
            bool counts = !(used && !used[i]) && touches(fit, p, row);
            column[i] = counts ? (residual(fit, row) - fit->residuals[i]) / DIFFERENCE : 0;
        }
        p->value = value;
    }
    make_all(fit);
}

/* Normal equations, each row weighted by how much its loss bends. */
static void accumulate(struct cost_fit *fit, const bool *used)
{
    size_t rows = fit->table->row_count, n = fit->count;
    size_t *touched = ts_xcalloc(n, sizeof *touched);
    memset(fit->matrix, 0, n * n * sizeof(double));
    memset(fit->gradient, 0, n * sizeof(double));
    for (size_t i = 0; i < rows; i++) {
        const struct cost_row *row = &fit->table->rows[i];
        size_t count = 0;
        if (used && !used[i])
            continue;
        double r = fit->residuals[i], weight = squared(fit, row) ? 1 : 1 / sqrt(1 + r * r);
        for (size_t k = 0; k < n; k++)
            if (touches(fit, &fit->parameters[k], row))
                touched[count++] = k;
        for (size_t a = 0; a < count; a++) {
            double left = weight * fit->jacobian[touched[a] * rows + i];
            fit->gradient[touched[a]] += left * r;
            for (size_t b = 0; b <= a; b++)
                fit->matrix[touched[a] * n + touched[b]] += left * fit->jacobian[touched[b] * rows + i];
        }
    }
    for (size_t k = 0; k < n; k++) {
        const struct parameter *p = &fit->parameters[k];
        fit->gradient[k] += PRIOR_WEIGHT * (p->value - p->start) / (p->sigma * p->sigma);
        fit->matrix[k * n + k] += PRIOR_WEIGHT / (p->sigma * p->sigma);
    }
    ts_free(touched);
}

/* Solves (matrix + damping * its diagonal) step = -gradient by Cholesky. */
static bool solve(struct cost_fit *fit, double damping)
{
    size_t n = fit->count;
    double *l = fit->factor, *x = fit->step;
    memcpy(l, fit->matrix, n * n * sizeof(double));
    for (size_t i = 0; i < n; i++) {
        l[i * n + i] *= 1 + damping;
        for (size_t j = 0; j <= i; j++) {
            double sum = l[i * n + j];
            for (size_t k = 0; k < j; k++)
                sum -= l[i * n + k] * l[j * n + k];
            if (i == j && !(sum > 0))
                return false;
            l[i * n + j] = i == j ? sqrt(sum) : sum / l[j * n + j];
        }
        double sum = -fit->gradient[i];
        for (size_t k = 0; k < i; k++)
            sum -= l[i * n + k] * x[k];
        x[i] = sum / l[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++)
            x[i] -= l[k * n + i] * x[k];
        x[i] /= l[i * n + i];
    }
    return true;
}

static double move(struct cost_fit *fit, double by)
{
    double most = 0;
    for (size_t k = 0; k < fit->count; k++) {
        fit->parameters[k].value += by * fit->step[k];
        most = fmax(most, fabs(fit->step[k]));
    }
    make_all(fit);
    return most;
}

void cost_fit_solve(struct cost_fit *fit, const bool *used, double still)
{
    double now = loss(fit, used), damping = 1e-3, moved = 1;
    for (int step = 0; step < STEPS_MAX && moved > still; step++) {
        differentiate(fit, used);
        accumulate(fit, used);
        for (bool better = false; !better && damping < 1e9;) {
            if (!solve(fit, damping)) {
                damping *= 10;
                continue;
            }
            moved = move(fit, 1);
            double then = loss(fit, used);
            better = then <= now;
            if (better) {
                now = then;
                damping = fmax(damping / 10, 1e-9);
            } else {
                (void)move(fit, -1);
                damping *= 10;
            }
        }
        if (damping >= 1e9)
            break;
    }
}
