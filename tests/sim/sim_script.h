/*
 * A world as plain lists: which services there are, which requests come, what goes wrong. Drawn whole from a
 * seed, then run; so a world that breaks an invariant can be made smaller by leaving entries out. An entry
 * left out changes no other entry.
 */
#ifndef SIM_SCRIPT_H
#define SIM_SCRIPT_H

#include "services/cloud/cloud.h"

#define SIM_NODES_MAX    24
#define SIM_CLIENTS_MAX  3
#define SIM_REQUESTS_MAX 160
#define SIM_FAULTS_MAX   72
#define SIM_PROMPT_MAX   160
#define SIM_OUTPUT_MAX   120
#define SIM_NODE_NONE    UINT32_MAX

/* X(KIND, name, what it does) */
#define SIM_FAULT_KINDS(X)                                                                                   \
    X(CRASH, crash, "the core is gone with all it held; a new incarnation comes")                            \
    X(FREEZE, freeze, "nothing happens to it for a while")                                                   \
    X(CUT, cut, "all connections of two services end")                                                       \
    X(ONE_WAY, one_way, "what the one says to the other is lost for a while")                                \
    X(SLOW, slow, "what the one says to the other takes longer for a while")                                 \
    X(GAP, gap, "the next messages are lost, later ones arrive")                                             \
    X(LATE, late, "the next message and all behind it wait")                                                 \
    X(DUPLICATE, duplicate, "messages arrive again, some behind later ones")                                 \
    X(REFUSE, refuse, "a send fails, as with a full queue")                                                  \
    X(CORRUPT, corrupt, "KV chunks arrive with another byte: their checksum must tell")                      \
    X(DIGEST, digest, "KV arrives whole but is not what was read: the digests must tell")                    \
    X(STALE, stale, "an assignment claims an older plan or another phase, a plan an older term")             \
    X(ENGINE, engine, "batches end in an error")                                                             \
    X(CODEC, codec, "encodes end in an error")                                                               \
    X(DRAIN, drain, "first SIGTERM; comes back as a new incarnation")                                        \
    X(OPERATOR, operator, "the same by an operator through the router")                                      \
    X(FLIP, flip, "an operator changes a worker's phase")                                                    \
    X(SWAP, swap, "the planner leaves for good, one with another algorithm comes")                           \
    X(JOIN, join, "a worker appears")                                                                        \
    X(LEAVE, leave, "a worker drains and never comes back")                                                  \
    X(ABSENCE, absence, "a client goes without a word and comes back")                                       \
    X(BURST, burst, "many requests at one instant")                                                          \
    X(CANCEL, cancel, "a client cancels a request")                                                          \
    X(DEADLINE, deadline, "a request may take so long")

enum sim_fault_kind {
#define SIM_FAULT_ENUM(KIND, name, words) SIM_##KIND,
    SIM_FAULT_KINDS(SIM_FAULT_ENUM)
#undef SIM_FAULT_ENUM
        SIM_FAULT_KIND_COUNT
};

struct sim_fault {
    enum sim_fault_kind kind;
    ts_time at, lasts;
    uint32_t node,
        other; /* of the script; a client by SIM_NODES_MAX + its number; cancel, deadline: the request */
    uint32_t amount;
    int aim; /* enum sim_state: it waits a while for a request in that state and strikes there; -1 = as it is
              */
};

struct sim_node {
    enum cloud_kind kind; /* planner, worker, relay */
    char id[24];
    bool joins; /* by a fault of kind JOIN or SWAP */
    union {
        struct planner_settings planner;
        struct worker_settings worker;
        struct relay_settings relay;
    };
    enum ts_phase phase;
    uint32_t kv_blocks;
    bool willing;  /* worker: it can change its phase */
    uint32_t host; /* worker: its relay, an index of nodes; SIM_NODE_NONE = none */
};

struct sim_request {
    uint32_t client;
    ts_time at;
    uint32_t prompt_count, reattach_ms;
    uint64_t prompt_seed;
    struct ts_sampling sampling;
    const char *codec;
    uint32_t deadline_ms; /* 0 = none, or set by the fault of kind DEADLINE */
    ts_time cancel_at;
    uint32_t burst; /* number of the fault that brings it + 1; 0 = it comes anyway */
};

struct sim_script {
    uint64_t seed;
    bool calm;
    struct cloud_settings cloud;
    struct router_settings router;
    struct sim_node nodes[SIM_NODES_MAX];
    uint32_t node_count, client_count;
    struct sim_request requests[SIM_REQUESTS_MAX];
    uint32_t request_count;
    struct sim_fault faults[SIM_FAULTS_MAX];
    uint32_t fault_count;
    ts_time faults_end; /* nothing goes wrong any more */
};

extern const char *const sim_fault_names[SIM_FAULT_KIND_COUNT];
extern const char *const sim_fault_words[SIM_FAULT_KIND_COUNT];

/* `fast`, `slow`: coefficients of devices; every second world is slow, so that work meets faults. Every fifth
 * is calm: nothing goes wrong but cancels and deadlines, and every request must end as expected. */
void sim_script_draw(struct sim_script *script, uint64_t seed, const char *fast, const char *slow);
void sim_prompt(const struct sim_request *request, uint32_t *out);
/* Lines of text: what of the script is left under the masks (NULL = all). */
void sim_script_print(const struct sim_script *script, const bool *faults, const bool *requests);
void sim_fault_print(const struct sim_script *script, uint32_t number, char *out, size_t size);

#endif
