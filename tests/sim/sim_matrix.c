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

/* What is over but still in use is there beside the present attempt. */
static void count_dying(const struct sim_world *w, const struct cloud_node *target, uint64_t *met)
{
    for (uint32_t i = 0; i < w->script.node_count; i++) {
        const struct cloud_node *node = w->nodes[i];
        if (!node || (target && target != node && target != w->router))
            continue;
        if (cloud_node_kind(node) == CLOUD_WORKER) {
            met[SIM_AT_p_dying] += sim_dying(node, TS_PHASE_PREFILL);
            met[SIM_AT_d_dying] += sim_dying(node, TS_PHASE_DECODE);
        } else if (cloud_node_kind(node) == CLOUD_RELAY) {
            met[SIM_AT_t_over] += sim_over(node);
        }
    }
}

void sim_met(struct sim_world *w, enum sim_fault_kind kind, const struct cloud_node *target,
             const struct cloud_node *other, const struct sim_ask *only)
{
    uint64_t *met = w->result->matrix.met[kind];
    w->result->matrix.happened[kind]++;
    if (!only)
        count_dying(w, target, met);
    for (uint32_t i = 0; i < w->script.request_count; i++) {
        const struct sim_ask *ask = &w->asks[i];
        if (!ask->live || (only && ask != only))
            continue;
        struct served s = {.client = w->clients[ask->client]};
        s.record = sim_record_state(w, ask, &s.rid, &s.prefill, &s.decode, &s.relay);
        if (s.record < 0 || (target && !serves(w, target, &s)) || (other && !serves(w, other, &s)))
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
