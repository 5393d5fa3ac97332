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

void sim_met(struct sim_world *w, enum sim_fault_kind kind, const struct cloud_node *target,
             const struct cloud_node *other, const struct sim_ask *only)
{
    uint64_t *met = w->result->matrix.met[kind];
    w->result->matrix.happened[kind]++;
    for (uint32_t i = 0; i < w->script.request_count; i++) {
        const struct sim_ask *ask = &w->asks[i];
        if (!ask->live || (only && ask != only))
            continue;
        struct served s = {.client = w->clients[ask->client]};
        s.record = sim_record_state(w, ask, &s.rid, &s.prefill, &s.decode, &s.relay);
        if (s.record < 0 || (target && !serves(w, target, &s)) || (other && !serves(w, other, &s)))
            continue;
        count(met, s.record);
        count(met, s.prefill ? sim_task_state(s.prefill, s.rid, TS_PHASE_PREFILL) : -1);
        count(met, s.decode ? sim_task_state(s.decode, s.rid, TS_PHASE_DECODE) : -1);
        count(met, s.relay ? sim_transfer_state(s.relay, s.rid) : -1);
    }
}
