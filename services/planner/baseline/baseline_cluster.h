/*
 * Partitions of a cluster by its bandwidths, for the baselines that begin with one. Cells are the leaves: two
 * devices of one cell are as near as devices get.
 */
#ifndef BASELINE_CLUSTER_H
#define BASELINE_CLUSTER_H

#include "services/planner/baseline/baseline_common.h"

/* Bytes/s between two cells, the slower direction; between devices of one cell for a == b. */
double baseline_bandwidth(const struct ts_cluster *cluster, uint32_t a, uint32_t b);
/* Do so many devices hold the model with some room for KV? By memory alone. */
bool baseline_holds(const struct plan_problem *problem, const uint32_t *counts);

/* Agglomerative clustering with average linkage: merge i joins clusters a[i] and b[i] into cluster n + i;
 * clusters below n are cells. The fastest links are joined first, so that a cut from the top goes through the
 * slowest. `a` and `b` have n - 1 items. */
void baseline_dendrogram(const struct ts_cluster *cluster, uint32_t *a, uint32_t *b);

/* Cuts `counts` in two of about `share` of the memory on the first side: by the Fiedler vector of the
 * Laplacian of the bandwidths (spectral bisection), then by exchanges that lower the bandwidth across the cut
 * (Kernighan and Lin 1970). `side` receives what goes to the first. */
void baseline_bisect(const struct plan_problem *problem, const uint32_t *counts, double share,
                     uint32_t *side);

#endif
