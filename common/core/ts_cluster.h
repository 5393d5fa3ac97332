/*
 * A cluster as the planner, the simulation and the cost model see it: types of devices, nodes, devices,
 * links. Plain data with indices instead of pointers between its parts. Units everywhere: bytes, seconds,
 * bytes per second, FLOP per second, dollars per hour (of one device).
 *
 * Devices of one type in one node are interchangeable: such a set is a *cell*. A search over plans moves
 * counts between cells and never tells equal devices apart (symmetry reduction).
 */
#ifndef TS_CORE_CLUSTER_H
#define TS_CORE_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

#define TS_CLUSTER_NAME_BYTES 48
#define TS_CLUSTER_TYPES_MAX  64
#define TS_CLUSTER_NODES_MAX  1024
#define TS_CLUSTER_GPUS_MAX   4096

/* One direction of a point-to-point path, or of each member's path in a collective. */
struct ts_link {
    char name[TS_CLUSTER_NAME_BYTES];
    double bytes_per_s; /* what a large message reaches; 0 = not connected */
    double latency_s;
};

/* How a type of device departs from its data sheet: fitted from measurements, or by the averages of those
 * (ts_cost.h says which formula uses which). */
struct ts_device_fit {
    double flops_efficiency;     /* share of flops that a large matrix product reaches */
    double memory_efficiency;    /* share of memory_bytes_per_s that streaming weights reaches */
    double context_efficiency;   /* the same for reading the KV cache in decode */
    double attention_efficiency; /* share of flops of the attention core in prefill */
    double layer_s;              /* constant of one layer: kernels that fill nothing */
    double step_s;               /* software constant of one forward pass */
    double tokens_half;          /* tokens at which a matrix product reaches half of its efficiency */
};

struct ts_device_type {
    char name[TS_CLUSTER_NAME_BYTES];
    double memory_bytes, memory_bytes_per_s;
    double flops; /* dense, 16-bit, as the catalogue says */
    double price_per_hour;
    struct ts_device_fit fit;
    struct ts_link peer; /* to a neighbour of the same node where the cluster file names no other link */
};

struct ts_node {
    char name[TS_CLUSTER_NAME_BYTES];
    struct ts_link inner; /* between two of its devices; bytes_per_s 0 = the devices' own */
    double nic_out_bytes_per_s, nic_in_bytes_per_s;
};

struct ts_gpu {
    uint16_t type, node;
    bool alive;
};

struct ts_cell {
    uint16_t type, node;
    uint32_t count; /* alive devices */
};

struct ts_cluster {
    char name[TS_CLUSTER_NAME_BYTES];
    struct ts_device_type *types;
    uint32_t type_count;
    struct ts_node *nodes;
    uint32_t node_count;
    struct ts_gpu *gpus; /* by node, then by type */
    uint32_t gpu_count;
    struct ts_link *links; /* [from * node_count + to] between two nodes; the diagonal is unused */
    struct ts_cell *cells; /* by node, then by type; made by ts_cluster_seal */
    uint32_t cell_count;
};

struct ts_cluster *ts_cluster_new(uint32_t types, uint32_t nodes, uint32_t gpus); /* zeroed, counts set */
struct ts_cluster *ts_cluster_copy(const struct ts_cluster *cluster);
void ts_cluster_destroy(struct ts_cluster **cluster);

/* Checks every number (finite, in range, indices inside) and makes the cells. To be called again after a
 * change of `alive`. An error names the part, the value and the range. */
enum ts_status ts_cluster_seal(struct ts_cluster *cluster, struct ts_error *err);

/* Inside one node: its inner link, else the peer link of the type. */
const struct ts_link *ts_cluster_inner(const struct ts_cluster *cluster, uint32_t node, uint32_t type);
/* Between two nodes, from != to. */
const struct ts_link *ts_cluster_link(const struct ts_cluster *cluster, uint32_t from, uint32_t to);

double ts_cluster_price_per_hour(const struct ts_cluster *cluster); /* of what is alive */

#endif
