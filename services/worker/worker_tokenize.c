/*
 * Tokenize of a client, passed on by its router: the same job as for a prompt, with the ids as the answer.
 * Text with no special tokens, and the way back, are refused.
 */
#include "common/base/ts_mem.h"
#include "services/worker/worker_impl.h"

static struct ts_msg_tokenize_reply *answer(struct worker_core *core, struct router_link *link, uint64_t id,
                                            enum ts_reason reason)
{
    struct ts_action_send *s = worker_send_router(core, link, TS_MSG_TOKENIZE_REPLY);
    if (!s)
        return NULL; /* the router gives up on it by itself */
    s->msg.tokenize_reply.id = id;
    s->msg.tokenize_reply.reason = reason;
    return &s->msg.tokenize_reply;
}

void tokenize_asked(struct worker_core *core, struct router_link *link, const struct ts_event_message *m)
{
    bool tokenize = m->msg.kind == TS_MSG_TOKENIZE && m->msg.tokenize.add_special;
    uint64_t id = m->msg.kind == TS_MSG_TOKENIZE ? m->msg.tokenize.id : m->msg.detokenize.id;
    if (!tokenize || !core->settings.profile.tokenizer) {
        answer(core, link, id, TS_REASON_UNSUPPORTED);
        return;
    }
    if (ts_map_count(core->asked) >= core->settings.requests_max) {
        answer(core, link, id, TS_REASON_BUSY);
        return;
    }
    struct asked *ask = ts_xcalloc(1, sizeof *ask);
    *ask = (struct asked){.job = core->next_tag++, .id = id, .router = link};
    ts_map_put_u64(core->asked, ask->job, ask);
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_TOKENISE);
    a->tokenise =
        (struct ts_action_tokenise){.job = ask->job, .prompt_kind = TS_PROMPT_TEXT, .bulk = m->bulk};
}

void tokenize_done(struct worker_core *core, const struct ts_event_tokenised *m)
{
    struct asked *ask = ts_map_remove_u64(core->asked, m->job);
    if (!ask)
        return;
    struct ts_msg_tokenize_reply *reply = answer(core, ask->router, ask->id, m->reason);
    if (reply && m->reason == TS_REASON_NONE)
        reply->tokens = (struct ts_u32s){
            ts_arena_copy(&core->out->arena, m->ids.data, m->ids.count * sizeof *m->ids.data), m->ids.count};
    ts_free(ask);
}
