#include "services/planner/baseline/baseline_cluster.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"

#define POWER_STEPS 200
#define HEADROOM    1.1 /* over the weights, for KV */

double baseline_bandwidth(const struct ts_cluster *cluster, uint32_t a, uint32_t b)
{
    const struct ts_cell *from = &cluster->cells[a], *to = &cluster->cells[b];
    if (from->node == to->node)
        return fmin(ts_cluster_inner(cluster, from->node, from->type)->bytes_per_s,
                    ts_cluster_inner(cluster, from->node, to->type)->bytes_per_s);
    return fmin(ts_cluster_link(cluster, from->node, to->node)->bytes_per_s,
                ts_cluster_link(cluster, to->node, from->node)->bytes_per_s);
}

static double memory_of(const struct plan_problem *problem, uint32_t cell)
{
    return ts_cost_usable_bytes(&problem->cluster->types[problem->cluster->cells[cell].type]);
}

bool baseline_holds(const struct plan_problem *problem, const uint32_t *counts)
{
    double have = 0, need = problem->model->layers * ts_cost_layer_weight_bytes(problem->model) +
                            ts_cost_head_weight_bytes(problem->model);
    for (uint32_t i = 0; i < problem->cluster->cell_count; i++)
        have += counts[i] * memory_of(problem, i);
    return have >= HEADROOM * need;
}

void baseline_dendrogram(const struct ts_cluster *cluster, uint32_t *a, uint32_t *b)
{
    const uint32_t n = cluster->cell_count;
    double *near = ts_xcalloc((size_t)n * n + 1, sizeof *near);
    double *size = ts_xcalloc(n + 1, sizeof *size);
    uint32_t *name = ts_xcalloc(n + 1, sizeof *name); /* cluster in this row; UINT32_MAX = merged away */
    for (uint32_t i = 0; i < n; i++) {
        name[i] = i;
        size[i] = cluster->cells[i].count;
        for (uint32_t j = 0; j < n; j++)
            near[(size_t)i * n + j] = baseline_bandwidth(cluster, i, j);
    }
    for (uint32_t merge = 0; merge + 1 < n; merge++) {
        uint32_t x = UINT32_MAX, y = UINT32_MAX;
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t j = i + 1; j < n && name[i] != UINT32_MAX; j++) {
                if (name[j] != UINT32_MAX &&
                    (x == UINT32_MAX || near[(size_t)i * n + j] > near[(size_t)x * n + y])) {
                    x = i;
                    y = j;
                }
            }
        }
        a[merge] = name[x];
        b[merge] = name[y];
        for (uint32_t i = 0; i < n; i++) {
            double mean =
                (size[x] * near[(size_t)x * n + i] + size[y] * near[(size_t)y * n + i]) / (size[x] + size[y]);
            near[(size_t)x * n + i] = near[(size_t)i * n + x] = mean;
        }
        size[x] += size[y];
        name[x] = n + merge;
        name[y] = UINT32_MAX;
    }
    ts_free(near);
    ts_free(size);
    ts_free(name);
}

struct place { /* one cell of the set that is cut */
    uint32_t cell, count;
    double fiedler;
};

static int compare(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    if (a->fiedler != b->fiedler)
        return a->fiedler < b->fiedler ? -1 : 1;
    return a->cell < b->cell ? -1 : 1;
}

/* The eigenvector of the second smallest eigenvalue of the Laplacian, by power iteration on c - L with the
 * constant vector taken out. Cells weigh as many nodes as they have devices. Starts from the index, so that
 * equals come out in order. */
static void fiedler(const struct ts_cluster *cluster, struct place *places, uint32_t n)
{
    double *w = ts_xcalloc((size_t)n * n + 1, sizeof *w), *next = ts_xcalloc(n + 1, sizeof *next);
    double *degree = ts_xcalloc(n + 1, sizeof *degree), most = 0, top = 0, weight = 0;
    for (uint32_t i = 0; i < n; i++) {
        weight += places[i].count;
        for (uint32_t j = 0; j < n; j++)
            top = i == j ? top : fmax(top, baseline_bandwidth(cluster, places[i].cell, places[j].cell));
    }
    for (uint32_t i = 0; i < n; i++) {
        places[i].fiedler = i;
        for (uint32_t j = 0; j < n && top > 0; j++) {
            w[(size_t)i * n + j] =
                i == j ? 0
                       : places[j].count * baseline_bandwidth(cluster, places[i].cell, places[j].cell) / top;
            degree[i] += w[(size_t)i * n + j];
        }
        most = fmax(most, degree[i]);
    }
    for (uint32_t step = 0; step < POWER_STEPS; step++) {
        double mean = 0, norm = 0;
        for (uint32_t i = 0; i < n; i++)
            mean += places[i].count * places[i].fiedler / weight;
        for (uint32_t i = 0; i < n; i++)
            norm = fmax(norm, fabs(places[i].fiedler -= mean));
        for (uint32_t i = 0; i < n; i++) {
            next[i] = (2 * most - degree[i]) * places[i].fiedler;
            for (uint32_t j = 0; j < n; j++)
                next[i] += w[(size_t)i * n + j] * places[j].fiedler;
        }
        for (uint32_t i = 0; i < n && norm > 0 && most > 0; i++)
            places[i].fiedler = next[i] / (norm * 2 * most);
    }
    ts_free(w);
    ts_free(next);
    ts_free(degree);
}

/* What moving one device of each place to the other side would lower the bandwidth across the cut by. */
static void gains(const struct ts_cluster *cluster, const struct place *places, uint32_t n,
                  const uint32_t *from, const uint32_t *to, double *out)
{
    for (uint32_t i = 0; i < n; i++) {
        out[i] = baseline_bandwidth(cluster, places[i].cell, places[i].cell); /* to itself: does not count */
        for (uint32_t j = 0; j < n; j++)
            out[i] += ((double)to[j] - from[j]) * baseline_bandwidth(cluster, places[i].cell, places[j].cell);
    }
}

/* Exchanges of two devices of one type, the greatest gain first, until none gains. */
static void exchange(const struct ts_cluster *cluster, const struct place *places, uint32_t n,
                     uint32_t *first, uint32_t *second)
{
    double *leave = ts_xcalloc((size_t)n * 2 + 1, sizeof *leave), *enter = leave + n;
    for (uint32_t round = 0; round < 2 * n + 16; round++) {
        double best = 0;
        uint32_t x = UINT32_MAX, y = UINT32_MAX;
        gains(cluster, places, n, first, second, leave);
        gains(cluster, places, n, second, first, enter);
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t j = 0; j < n && first[i] > 0; j++) {
                if (i == j || second[j] == 0 ||
                    cluster->cells[places[i].cell].type != cluster->cells[places[j].cell].type)
                    continue;
                double between = baseline_bandwidth(cluster, places[i].cell, places[j].cell);
                double gain = leave[i] + enter[j] - 2 * between;
                if (gain > best * (1 + 1e-9) && gain > 1e-9 * between) {
                    best = gain;
                    x = i;
                    y = j;
                }
            }
        }
        if (x == UINT32_MAX)
            break;
        first[x]--;
        second[x]++;
        second[y]--;
        first[y]++;
    }
    ts_free(leave);
}

void baseline_bisect(const struct plan_problem *problem, const uint32_t *counts, double share, uint32_t *side)
{
    const struct ts_cluster *cluster = problem->cluster;
    struct place *places = ts_xcalloc(cluster->cell_count + 1, sizeof *places);
    uint32_t n = 0;
    double memory = 0, taken = 0;
    for (uint32_t i = 0; i < cluster->cell_count; i++) {
        side[i] = 0;
        memory += counts[i] * memory_of(problem, i);
        if (counts[i] > 0)
            places[n++] = (struct place){.cell = i, .count = counts[i]};
    }
    fiedler(cluster, places, n);
    qsort(places, n, sizeof *places, compare);
    uint32_t *first = ts_xcalloc((size_t)n * 2 + 1, sizeof *first), *second = first + n;
    for (uint32_t i = 0; i < n; i++) {
        double each = memory_of(problem, places[i].cell);
        /* As many as leave the sum nearest to the share. */
        while (first[i] < places[i].count && taken + each / 2 <= share * memory) {
            first[i]++;
            taken += each;
        }
        second[i] = places[i].count - first[i];
    }
    exchange(cluster, places, n, first, second);
    for (uint32_t i = 0; i < n; i++)
        side[places[i].cell] = first[i];
    ts_free(first);
    ts_free(places);
}
