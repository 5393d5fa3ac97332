/*
 * The placement problem of Helix (baseline_helix.c), apart from devices and costs: units (machines) hold runs
 * of consecutive blocks of layers, a request visits units whose runs join up from the first block to the
 * last, and the value of a placement is the maximum flow of requests/s over units and links (Mei et al.,
 * ASPLOS 2025, section 4).
 */
#ifndef BASELINE_HELIX_H
#define BASELINE_HELIX_H

#include "services/planner/baseline/baseline_common.h"

struct helix_problem {
    uint32_t units, blocks;
    const double *rate; /* [unit * (blocks + 1) + held]: requests/s with so many blocks; 0 = does not fit */
    const double *link; /* [from * units + to]: requests/s whose activations pass */
};

struct helix_placement { /* arrays of `units` items, the caller's; begin == end: the unit is not used */
    uint32_t *begin, *end;
};

double helix_rate(const struct helix_problem *problem, const struct helix_placement *placement,
                  uint32_t unit);
/* The edges of the flow graph, owned by the caller. Nodes: 2 u and 2 u + 1 are entry and exit of unit u, then
 * source, then sink. */
struct baseline_edge *helix_graph(const struct helix_problem *problem,
                                  const struct helix_placement *placement, uint32_t *edge_count);
double helix_flow(const struct helix_problem *problem, const struct helix_placement *placement);

/* The best placement by mixed-integer programming. Anything but TS_OK leaves the placement undefined. */
enum ts_status helix_exact(const struct helix_problem *problem, double seconds,
                           struct helix_placement *placement, double *flow, struct ts_error *err);
/* `stages` runs of like length; the units of `member` (NULL = all) are dealt out, the strongest first, each
 * to the weakest stage that it can hold. Other units keep what they have. False when a stage stays empty. */
bool helix_stages(const struct helix_problem *problem, uint32_t stages, const bool *member,
                  struct helix_placement *placement);
/* The widest path of the flow in the edges, as units in order; 0 when there is none. */
uint32_t helix_path(const struct helix_problem *problem, const struct baseline_edge *edges,
                    uint32_t edge_count, uint32_t *units);

#endif
