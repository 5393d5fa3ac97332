/* Tokenize and Detokenize: the router does not tokenise, it asks a worker that does. */
#include "common/base/ts_mem.h"
#include "services/router/router_impl.h"

#define FORWARDS_MAX    1024
#define FORWARD_TIMEOUT (10 * TS_S)

static void answer_forward(struct router_core *core, struct forwarded *f,
                           const struct ts_msg_tokenize_reply *reply)
{
    struct ts_action_send *s = stream_send(core, f->client_peer, TS_MSG_TOKENIZE_REPLY);
    s->msg.tokenize_reply = *reply;
    s->msg.tokenize_reply.id = f->client_id;
    timers_set(&core->timers, &f->timer, TS_TIME_NEVER);
    ts_free(f);
}

static struct member *tokenizer_worker(const struct router_core *core, struct ts_str model)
{
    for (size_t i = 0; i < core->worker_count; i++) {
        struct member *member = member_of(core->workers[i]);
        if (member_ready(member) && member->hello.profile.tokenizer &&
            (model.count == 0 || ts_str_equal(member->hello.profile.model, model)))
            return member;
    }
    return NULL;
}

void forward_asked(struct router_core *core, const struct ts_event_message *m)
{
    bool tokenize = m->msg.kind == TS_MSG_TOKENIZE;
    struct member *worker =
        tokenizer_worker(core, tokenize ? m->msg.tokenize.model : m->msg.detokenize.model);
    if (!worker || ts_map_count(core->forwards) >= FORWARDS_MAX) {
        struct ts_action_send *s = stream_send(core, m->peer, TS_MSG_TOKENIZE_REPLY);
        s->msg.tokenize_reply.id = tokenize ? m->msg.tokenize.id : m->msg.detokenize.id;
        s->msg.tokenize_reply.reason = worker ? TS_REASON_QUEUE_FULL : TS_REASON_NO_WORKER;
        return;
    }
    struct forwarded *f = ts_xcalloc(1, sizeof *f);
    f->id = core->next_forward++;
    f->client_peer = m->peer;
    f->client_id = tokenize ? m->msg.tokenize.id : m->msg.detokenize.id;
    f->timer.kind = TIMER_FORWARD;
    timers_set(&core->timers, &f->timer, core->now + FORWARD_TIMEOUT);
    ts_map_put_u64(core->forwards, f->id, f);
    struct ts_action_send *s = member_send(core, worker, m->msg.kind);
    s->msg = m->msg;
    *(tokenize ? &s->msg.tokenize.id : &s->msg.detokenize.id) = f->id;
    s->bulk = m->bulk;
}

void forward_reply(struct router_core *core, const struct ts_msg_tokenize_reply *reply)
{
    struct forwarded *f = ts_map_remove_u64(core->forwards, reply->id);
    if (!f)
        return;
    answer_forward(core, f, reply);
}

void forward_due(struct router_core *core, struct forwarded *f)
{
    ts_map_remove_u64(core->forwards, f->id);
    answer_forward(core, f, &(struct ts_msg_tokenize_reply){.reason = TS_REASON_PEER_LOST});
}
