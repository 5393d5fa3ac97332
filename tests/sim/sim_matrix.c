#include "tests/sim/sim_matrix.h"

#include "tests/sim/sim_impl.h"

const char *const sim_state_names[SIM_STATE_COUNT] = {
#define SIM_STATE_NAME(name) #name,
    SIM_STATES(SIM_STATE_NAME)
#undef SIM_STATE_NAME
};

const char *const sim_fault_names[SIM_FAULT_KIND_COUNT] = {
#define SIM_FAULT_NAME(KIND, name, words) #name,
    SIM_FAULT_KINDS(SIM_FAULT_NAME)
#undef SIM_FAULT_NAME
};

const char *const sim_fault_words[SIM_FAULT_KIND_COUNT] = {
#define SIM_FAULT_WORDS(KIND, name, words) words,
    SIM_FAULT_KINDS(SIM_FAULT_WORDS)
#undef SIM_FAULT_WORDS
};

#define OVER_MAX 16 /* transfers that are over at one relay: as many as it has jobs */

struct served { /* one request where it is at this instant */
    struct cloud_node *client, *prefill, *decode, *relay;
    struct ts_rid rid;
    int record;
};

static bool serves(const struct sim_world *w, const struct cloud_node *node, const struct served *s)
{
    return node == w->router || cloud_node_kind(node) == CLOUD_PLANNER || node == s->client ||
           node == s->prefill || node == s->decode || node == s->relay;
}

static void count(uint64_t *met, int state)
{
    if (state >= 0)
        met[state]++;
}

static int colocated(int state)
{
    switch (state) {
    case SIM_AT_p_tokenising:
        return SIM_AT_c_tokenising;
    case SIM_AT_p_waiting:
        return SIM_AT_c_waiting;
    case SIM_AT_p_prefilling:
        return SIM_AT_c_prefilling;
    default:
        return SIM_AT_c_ready;
    }
}

static bool meets(const struct sim_world *w, const struct cloud_node *target, const struct cloud_node *other,
                  const struct served *s)
{
    return (!target || serves(w, target, s)) && (!other || serves(w, other, s));
}

/* What is over but still in use is there beside the present attempt: a prefill task until its relay has given
 * back the blocks, a decode task until its batch is, a transfer until its encodes of a worker's pool are. */
static void count_dying(const struct sim_world *w, const struct cloud_node *target,
                        const struct cloud_node *other, uint64_t *met)
{
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        struct cloud_node *node = w->nodes[i], *owners[OVER_MAX];
        uint32_t host = w->script.nodes[i].host;
        if (node && cloud_node_kind(node) == CLOUD_WORKER) {
            struct served s = {.prefill = node, .relay = host == SIM_NODE_NONE ? NULL : w->nodes[host]};
            met[SIM_AT_p_dying] += meets(w, target, other, &s) ? sim_dying(node, TS_PHASE_PREFILL) : 0;
            s = (struct served){.decode = node};
            met[SIM_AT_d_dying] += meets(w, target, other, &s) ? sim_dying(node, TS_PHASE_DECODE) : 0;
        } else if (node && cloud_node_kind(node) == CLOUD_RELAY) {
            for (uint32_t k = sim_over(node, owners, OVER_MAX); k-- > 0;)
                met[SIM_AT_t_over] +=
                    meets(w, target, other, &(struct served){.prefill = owners[k], .relay = node});
        }
    }
}

void sim_met(struct sim_world *w, enum sim_fault_kind kind, const struct cloud_node *target,
             const struct cloud_node *other, const struct sim_ask *only)
{
    uint64_t *met = w->result->matrix.met[kind];
    w->result->matrix.happened[kind]++;
    if (!only)
        count_dying(w, target, other, met);
    for (uint32_t i = 0; i < w->script.request_count; i++) {
        const struct sim_ask *ask = &w->asks[i];
        if (!ask->live || (only && ask != only))
            continue;
        struct served s = {.client = w->clients[ask->client]};
        s.record = sim_record_state(w, ask, &s.rid, &s.prefill, &s.decode, &s.relay);
        if (s.record < 0 || !meets(w, target, other, &s))
            continue;
        count(met, s.record);
        bool one = s.prefill && s.prefill == s.decode; /* perhaps one task for both */
        int both = one ? sim_task_state(s.prefill, s.rid, TS_PHASE_BOTH) : -1;
        count(met, both >= 0 ? colocated(both) : -1);
        count(met, s.prefill ? sim_task_state(s.prefill, s.rid, TS_PHASE_PREFILL) : -1);
        count(met, s.decode ? sim_task_state(s.decode, s.rid, TS_PHASE_DECODE) : -1);
        count(met, s.relay ? sim_transfer_state(s.relay, s.rid) : -1);
    }
}
