/*
 * What the parts of the cloud share. cloud.c has heap, clock and loop; cloud_node.c the nodes and what all of
 * them do; cloud_net*.c connections and messages; cloud_bulk.c handles; cloud_device.c the KV pools and the
 * work of workers and relays; cloud_client.c the modelled client, cloud_streams.c its requests;
 * cloud_digest.c the digest of plain structs.
 */
#ifndef CLOUD_IMPL_H
#define CLOUD_IMPL_H

#include "common/base/ts_heap.h"
#include "common/base/ts_map.h"
#include "common/base/ts_rng.h"
#include "gpu/sim/ts_sim_model.h"
#include "services/cloud/cloud.h"

/* Something that happens at an instant. `life` of the node must still be the present one. */
struct occurrence {
    struct cloud_node *node; /* NULL = not of a node */
    uint64_t life;
    void (*happen)(struct cloud *cloud, struct occurrence *o); /* owns `o` */
    void (*forget)(struct occurrence *o);                      /* instead, when its node is gone: frees it */
};

struct payload { /* counted bytes behind handles */
    uint32_t refs;
    uint64_t bytes; /* as announced: what the handle says */
    size_t size;    /* of data */
    uint8_t *data;  /* own, or the cloud's zeros, which nobody writes to */
    uint32_t place; /* of KV: cloud_node_place of where it was read; UINT32_MAX otherwise */
    uint8_t own[];
};

struct bulk_slot {
    struct payload *payload; /* NULL = free */
    uint32_t generation, next_free;
};

struct bulk_table {
    struct bulk_slot *slots;
    size_t count, capacity, held;
    uint32_t free; /* number of a free slot; 0 = none */
};

struct unreachable {
    enum ts_channel channel;
    uint64_t peer;
};

struct cloud_work { /* of a worker's batches, over all its lives */
    uint64_t batches, prompt_tokens, output_tokens;
};

struct cloud_conn;
struct cloud_device;
struct cloud_client;
struct cloud_publisher;

struct cloud_node {
    struct cloud *cloud;
    enum cloud_kind kind;
    char *id, *endpoint; /* "cloud://ID" */
    uint32_t index;
    union {
        struct router_settings router;
        struct planner_settings planner;
        struct worker_settings worker;
        struct relay_settings relay;
    } settings;
    char pool_path[64];
    uint64_t life; /* counts starts and deaths */
    bool alive, restart_stopped, retired;
    void *core; /* a client, a publisher: its struct, which outlives its connections */
    struct bulk_table bulks;
    struct ts_actions actions;
    struct ts_map *conns;                  /* channel, peer -> struct cloud_conn */
    struct cloud_conn *dialled, *accepted; /* those that are not closed; all */
    uint64_t next_peer;
    ts_time tick_at;                    /* of the tick that is due */
    ts_time frozen_until, frozen_again; /* again: from then to when, for a freeze that came meanwhile */
    uint32_t jobs_to_fail;
    uint32_t spins; /* ticks without time passing */
    struct unreachable *failed;
    size_t failed_count, failed_capacity;
    struct cloud_device *device;   /* workers, relays */
    struct cloud_replica *replica; /* worker: borrowed; NULL = the cloud's coefficients */
    struct cloud_work work;
    bool stopping;
};

struct cloud {
    struct cloud_settings settings;
    struct ts_sim_costs costs; /* of devices that are not replicas */
    struct ts_model model, kv; /* as it is; as the KV pools are laid out */
    struct ts_rng rng, faults;
    struct ts_heap heap;
    ts_time now;
    uint64_t digest, steps;
    struct cloud_node **nodes;
    size_t node_count, node_capacity, started;
    struct ts_map *endpoints; /* -> struct cloud_node */
    struct copier *copier;
    struct packet *spare;
    struct cloud_flows *flows; /* NULL = bandwidth is not shared */
    struct cloud_counts counts;
    struct ts_error failure;
    uint32_t *zeros; /* TS_PROMPT_TOKENS_MAX token ids; NULL until wanted */
};

/* cloud.c */
void cloud_push(struct cloud *cloud, ts_time at, struct occurrence *o);
ts_time cloud_draw_time(struct ts_rng *rng, ts_time max); /* uniform in [0, max] */
bool cloud_chance(struct cloud *cloud, double chance);    /* only while faults happen */

/* cloud_node.c */
void cloud_step(struct cloud_node *node, const struct ts_event *event);
void cloud_unreachable(struct cloud_node *node, enum ts_channel channel, uint64_t peer);
bool cloud_node_frozen(struct cloud_node *node);
bool cloud_job_fails(struct cloud_node *node,
                     double chance); /* a batch or an encode: as told, or by chance */
struct cloud_node *cloud_find(const struct cloud *cloud, struct ts_str endpoint);
void cloud_node_free(struct cloud_node *node);
/* Node of the cluster on which a worker's part `part` of the KV lies; UINT32_MAX: of no cluster. */
uint32_t cloud_node_place(const struct cloud_node *node, uint32_t part);

/* cloud_bulk.c */
struct payload *payload_new(size_t size, uint64_t bytes);
struct payload *payload_zeros(struct cloud *cloud, size_t size); /* of at most TS_PROMPT_TOKENS_MAX ids */
const uint32_t *cloud_zeros(struct cloud *cloud);
struct payload *payload_ref(struct payload *payload);
void payload_unref(struct payload *payload);                                /* null-safe */
struct ts_bulk bulk_put(struct bulk_table *table, struct payload *payload); /* takes the reference */
struct payload *bulk_payload(const struct bulk_table *table,
                             struct ts_bulk bulk); /* borrowed; NULL: no such */
bool bulk_drop(struct bulk_table *table, struct ts_bulk bulk);
void bulk_fini(struct bulk_table *table);

/* cloud_net.c */
void net_connect(struct cloud_node *node, const struct ts_action_connect *connect);
void net_disconnect(struct cloud_node *node, const struct ts_action_disconnect *disconnect);
void net_send(struct cloud_node *node, const struct ts_action_send *send);
void net_node_died(struct cloud_node *node, bool abrupt); /* abrupt: what it sent may be lost */
void net_node_started(struct cloud_node *node);
void net_close(struct cloud *cloud); /* all connections; what is under way to nobody is still in the heap */
void packets_fini(struct cloud *cloud);

/* cloud_device.c */
struct cloud_device *device_new(struct cloud_node *node);
void device_destroy(struct cloud_device **device);
bool device_perform(struct cloud_node *node, const struct ts_action *action); /* false: not its work */
uint64_t device_chain(uint64_t before, uint32_t token); /* of a sequence that continues `before` with token */
enum ts_finish device_finish(const struct ts_sampling *sampling, uint32_t token, uint32_t count);

/* cloud_client.c */
struct cloud_client *client_new(struct cloud_node *node);
void client_destroy(struct cloud_client **client);
void client_step(struct cloud_client *client, ts_time now, const struct ts_event *event,
                 struct ts_actions *out);
ts_time client_deadline(const struct cloud_client *client);

/* cloud_publisher.c */
struct cloud_publisher *publisher_new(struct cloud_node *node);
void publisher_destroy(struct cloud_publisher **publisher);
void publisher_step(struct cloud_publisher *publisher, ts_time now, const struct ts_event *event,
                    struct ts_actions *out);
ts_time publisher_deadline(const struct cloud_publisher *publisher);

/* cloud_digest.c */
uint64_t digest_mix(uint64_t digest, uint64_t word);
uint64_t digest_struct(uint64_t digest, const struct ts_schema *schema, const void *value);

#endif
