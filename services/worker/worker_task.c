/*
 * The life of a task, and what its router hears of it.
 */
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/worker/worker_impl.h"

struct task_key {
    uint64_t router, request, attempt, role;
};

static struct task_key key_of(struct ts_rid rid, enum ts_phase role)
{
    return (struct task_key){rid.router, rid.request, rid.attempt, role};
}

struct task *task_find(const struct worker_core *core, struct ts_rid rid, enum ts_phase role)
{
    struct task_key key = key_of(rid, role);
    return ts_map_get(core->tasks, &key, sizeof key);
}

struct task *task_by_tag(const struct worker_core *core, uint64_t tag)
{
    return ts_map_get_u64(core->by_tag, tag);
}

bool task_younger(const struct task *a, const struct task *b)
{
    return a->accepted_at > b->accepted_at || (a->accepted_at == b->accepted_at && a->tag > b->tag);
}

static void list_add(struct task_list *list, struct task *t)
{
    struct task *after = list->tail;
    while (after && task_younger(after, t))
        after = after->alike_prev;
    t->alike_prev = after;
    t->alike_next = after ? after->alike_next : list->head;
    *(after ? &after->alike_next : &list->head) = t;
    *(t->alike_next ? &t->alike_next->alike_prev : &list->tail) = t;
    list->count++;
}

static void list_remove(struct task_list *list, struct task *t)
{
    *(t->alike_prev ? &t->alike_prev->alike_next : &list->head) = t->alike_next;
    *(t->alike_next ? &t->alike_next->alike_prev : &list->tail) = t->alike_prev;
    list->count--;
}

bool task_may_become(enum task_state from, enum task_state to)
{
    static const uint16_t legal[] = {
        [TASK_TOKENISING] = 1 << TASK_WAITING | 1 << TASK_DYING,
        [TASK_WAITING] = 1 << TASK_PREFILLING | 1 << TASK_DYING,
        [TASK_PREFILLING] = 1 << TASK_SEALED | 1 << TASK_READY | 1 << TASK_DYING,
        [TASK_SEALED] = 1 << TASK_DYING,
        [TASK_ASSIGNED] = 1 << TASK_GRANT_WAIT | 1 << TASK_DYING,
        [TASK_GRANT_WAIT] = 1 << TASK_RECEIVING | 1 << TASK_SUSPENDED | 1 << TASK_DYING,
        [TASK_RECEIVING] = 1 << TASK_READY | 1 << TASK_SUSPENDED | 1 << TASK_DYING,
        [TASK_SUSPENDED] = 1 << TASK_GRANT_WAIT | 1 << TASK_RECEIVING | 1 << TASK_READY | 1 << TASK_DYING,
        [TASK_READY] = 1 << TASK_FINISHED | 1 << TASK_DYING,
        [TASK_FINISHED] = 1 << TASK_DYING,
        [TASK_DYING] = 0,
    };
    return legal[from] >> to & 1;
}

void task_state_set(struct worker_core *core, struct task *t, enum task_state state)
{
    TS_ASSERT(task_may_become(t->state, state));
    if (t->state == TASK_READY && t->in_batch)
        core->flying--;
    list_remove(&core->lists[t->state], t);
    t->state = state;
    list_add(&core->lists[state], t);
}

void task_free(struct task *t)
{
    ts_free(t->items);
    ts_free(t->outputs);
    ts_free(t->prompt);
    ts_free(t->blocks);
    ts_free(t->chain);
    part_free(t);
    ts_arena_fini(&t->arena);
    ts_free(t);
}

static void insert_by_age(struct worker_core *core, struct task *t)
{
    struct task *after = core->tail;
    while (after && task_younger(after, t))
        after = after->prev;
    t->prev = after;
    t->next = after ? after->next : core->head;
    *(after ? &after->next : &core->head) = t;
    *(t->next ? &t->next->prev : &core->tail) = t;
    list_add(&core->lists[t->state], t);
}

static void unlink_task(struct worker_core *core, struct task *t)
{
    *(t->prev ? &t->prev->next : &core->head) = t->next;
    *(t->next ? &t->next->prev : &core->tail) = t->prev;
    list_remove(&core->lists[t->state], t);
}

static void refuse(struct worker_core *core, struct router_link *link, const struct ts_msg_assign *a,
                   enum ts_reason reason, const char *text)
{
    struct ts_action_send *s = worker_send_router(core, link, TS_MSG_ASSIGN_REFUSED);
    if (s)
        s->msg.assign_refused = (struct ts_msg_assign_refused){
            .rid = a->rid, .role = a->role, .reason = reason, .text = ts_str_of(text)};
}

static enum ts_reason judge(const struct worker_core *core, const struct router_link *link,
                            const struct ts_msg_assign *a)
{
    if (worker_stale(link, a->term, a->plan))
        return TS_REASON_STALE_PLAN;
    if (core->draining)
        return TS_REASON_DRAINING;
    if (a->role == TS_PHASE_NONE || (core->settings.profile.phase & a->role) != a->role)
        return TS_REASON_WRONG_PHASE;
    if (ts_map_count(core->tasks) >= core->settings.requests_max)
        return TS_REASON_BUSY;
    if (a->fingerprint != core->settings.profile.fingerprint)
        return TS_REASON_KV_MISMATCH;
    return TS_REASON_NONE;
}

static struct task *new_task(struct worker_core *core, struct router_link *link,
                             const struct ts_event_message *m)
{
    struct task *t = ts_xcalloc(1, sizeof *t);
    struct ts_msg copy = {.kind = TS_MSG_ASSIGN};
    ts_arena_init(&t->arena);
    ts_schema_copy(&ts_msg_schema, &copy, &m->msg, &t->arena);
    t->assign = copy.assign;
    t->tag = core->next_tag++;
    t->rid = t->assign.rid;
    t->role = t->assign.role;
    t->router = link;
    t->sampling = ts_sampling_apply(&t->assign.sampling, &core->settings.profile.defaults);
    t->arrived_at = t->waiting_since = core->now;
    t->accepted_at = core->now - (ts_time)t->assign.age_ms * TS_MS;
    t->state = t->role & TS_PHASE_PREFILL ? TASK_TOKENISING : TASK_ASSIGNED;
    for (uint32_t i = 0; i < t->assign.produced.count; i++)
        task_add_output(t, t->assign.produced.data[i]);
    struct task_key key = key_of(t->rid, t->role);
    ts_map_put(core->tasks, &key, sizeof key, t);
    ts_map_put_u64(core->by_tag, t->tag, t);
    insert_by_age(core, t);
    return t;
}

void task_assign(struct worker_core *core, struct router_link *link, const struct ts_event_message *m)
{
    const struct ts_msg_assign *a = &m->msg.assign;
    enum ts_reason reason = judge(core, link, a);
    struct ts_codec codec = {.raw_tokens = 0};
    struct ts_error err = {.status = TS_OK};
    if (task_find(core, a->rid, a->role)) /* known from before a Resync */
        return;
    if (reason == TS_REASON_NONE && a->role != TS_PHASE_BOTH &&
        (ts_codec_parse_text(a->codec, &core->out->arena, &codec, &err) != TS_OK ||
         ts_codec_check(&codec, core->settings.profile.head_dim, &err) != TS_OK))
        reason = TS_REASON_UNSUPPORTED;
    if (reason != TS_REASON_NONE) {
        refuse(core, link, a, reason, ts_arena_printf(&core->out->arena, "%s", err.text));
        return;
    }
    link->term = a->term;
    link->plan = a->plan;
    struct task *t = new_task(core, link, m);
    ts_schema_copy(&ts_codec_schema, &t->codec, &codec, &t->arena);
    if (t->role & TS_PHASE_PREFILL)
        prefill_assigned(core, t, m->bulk);
}

/* prompt_tokens + max_tokens must fit the context: the stream then ends with "length". */
void task_clip(struct worker_core *core, struct task *t)
{
    uint32_t room = core->settings.profile.context_tokens - t->prompt_count;
    if (t->sampling.max_tokens > room)
        t->sampling.max_tokens = room;
}

void task_add_output(struct task *t, uint32_t token)
{
    ts_array_reserve((void **)&t->outputs, &t->output_capacity, t->output_count + 1, sizeof *t->outputs);
    t->outputs[t->output_count++] = token;
}

void task_add_item(struct task *t, const struct ts_token_item *item)
{
    ts_array_reserve((void **)&t->items, &t->item_capacity, t->item_count + 1, sizeof *t->items);
    struct ts_token_item *to = &t->items[t->item_count++];
    *to = *item;
    if (item->text.count)
        to->text.data = ts_arena_copy(&t->arena, item->text.data, item->text.count);
    if (item->top.count)
        to->top.data = ts_arena_copy(&t->arena, item->top.data, item->top.count * sizeof *item->top.data);
}

void task_send_output(struct worker_core *core, struct task *t, uint32_t from_index)
{
    uint32_t last = t->item_first + (uint32_t)t->item_count;
    uint32_t first = from_index < t->item_first ? t->item_first : from_index > last ? last : from_index;
    struct ts_msg_output output = {
        .rid = t->rid,
        .role = t->role,
        .first_index = first,
        .items = {first < last ? &t->items[first - t->item_first] : NULL, last - first},
        .finish = t->finish};
    if (t->router->outputs) {
        t->router->outputs[t->router->output_count++] = output;
        return;
    }
    struct ts_action_send *s = worker_send_router(core, t->router, TS_MSG_OUTPUT);
    if (s) /* else Resync asks for it */
        s->msg.output = output;
}

void task_outputs_begin(struct worker_core *core, uint32_t count)
{
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct router_link *link = &core->routers[i];
        if (link->session.up && link->output_batches)
            link->outputs = ts_arena_alloc(&core->out->arena, count * sizeof *link->outputs);
        link->output_count = 0;
    }
}

void task_outputs_end(struct worker_core *core)
{
    for (size_t i = 0; i < core->settings.router_count; i++) {
        struct router_link *link = &core->routers[i];
        struct ts_outputs outputs = {link->outputs, link->output_count};
        link->outputs = NULL;
        if (outputs.count > 1)
            worker_send_router(core, link, TS_MSG_OUTPUT_BATCH)->msg.output_batch.outputs = outputs;
        else if (outputs.count == 1)
            worker_send_router(core, link, TS_MSG_OUTPUT)->msg.output = outputs.data[0];
    }
}

void task_text_open(struct worker_core *core, struct task *t)
{
    struct ts_action *a = ts_actions_add(core->out, TS_ACTION_TEXT_OPEN);
    a->text_open = (struct ts_action_text_open){.tag = t->tag,
                                                .sampling = t->sampling,
                                                .stops = t->assign.stops,
                                                .produced = {t->outputs, (uint32_t)t->output_count}};
    t->text_open = true;
}

void task_text_close(struct worker_core *core, struct task *t)
{
    if (t->text_open)
        ts_actions_add(core->out, TS_ACTION_TEXT_CLOSE)->text_close.tag = t->tag;
    t->text_open = false;
}

bool task_take_blocks(struct worker_core *core, struct task *t, uint32_t tokens)
{
    uint32_t need = ts_kv_blocks_for(tokens);
    size_t capacity = t->block_capacity;
    if (need <= t->block_count)
        return true;
    ts_array_reserve((void **)&t->blocks, &capacity, need, sizeof *t->blocks);
    t->block_capacity = (uint32_t)capacity;
    prefix_make_room(core, need - t->block_count);
    if (!ts_kv_take(&core->kv, t->tag, need - t->block_count, t->blocks + t->block_count))
        return false;
    t->block_count = need;
    return true;
}

bool task_admit_blocks(struct worker_core *core, struct task *t, uint32_t tokens)
{
    uint32_t kept = core->lists[TASK_READY].count, need = ts_kv_blocks_for(tokens);
    if (core->starved || prefix_room(core) < need + kept)
        return false;
    prefix_take(core, t);
    if (t->shared > 0 && prefix_room(core) <= need - t->shared) { /* no room for the scratch block */
        prefix_leave(core, t);
        t->block_count = 0;
    }
    bool taken = task_take_blocks(core, t, tokens);
    if (t->shared > 0) {
        prefix_make_room(core, 1);
        taken &= ts_kv_take(&core->kv, t->tag, 1, &t->scratch);
        t->scratch++;
    }
    TS_ASSERT(taken);
    return true;
}

void task_give_scratch(struct worker_core *core, struct task *t)
{
    uint32_t *block = ts_arena_alloc(&core->out->arena, sizeof *block);
    if (t->scratch == 0)
        return;
    *block = t->scratch - 1;
    t->scratch = 0;
    ts_kv_give(&core->kv, t->tag, block, 1);
    ts_actions_add(core->out, TS_ACTION_FREE_BLOCKS)->free_blocks.blocks = (struct ts_u32s){block, 1};
}

void task_give_blocks(struct worker_core *core, struct task *t)
{
    uint32_t own = t->block_count - t->shared;
    task_give_scratch(core, t);
    if (own > 0) {
        uint32_t *blocks = t->blocks + t->shared;
        ts_kv_give(&core->kv, t->tag, blocks, own);
        blocks = ts_arena_copy(&core->out->arena, blocks, own * sizeof *blocks);
        ts_actions_add(core->out, TS_ACTION_FREE_BLOCKS)->free_blocks.blocks = (struct ts_u32s){blocks, own};
    }
    prefix_leave(core, t);
    t->block_count = 0;
}

void task_settle(struct worker_core *core, struct task *t)
{
    if (t->state != TASK_DYING || t->in_batch || t->scatters > 0 || t->encodes > 0 || t->begun ||
        t->tokenising)
        return;
    core->returning -= t->returning;
    task_give_blocks(core, t);
    ts_map_remove_u64(core->by_tag, t->tag);
    unlink_task(core, t);
    t->next = core->dead;
    core->dead = t;
}

/* Drops it as soon as nothing uses its blocks. */
static void task_kill(struct worker_core *core, struct task *t, enum ts_reason reason)
{
    struct task_key key = key_of(t->rid, t->role);
    if (t->state == TASK_DYING)
        return;
    task_state_set(core, t, TASK_DYING);
    ts_map_remove(core->tasks, &key, sizeof key);
    task_text_close(core, t);
    t->returning = t->in_batch && t->role != TS_PHASE_PREFILL ? t->block_count - t->shared : 0;
    core->returning += t->returning;
    for (uint32_t i = 0; i < t->part_count; i++) { /* may wait for a grant or credit that will never come */
        struct ts_action_send *s = worker_send_kv(core, t->parts[i].sender, TS_MSG_KV_ABORT);
        if (s)
            s->msg.kv_abort = (struct ts_msg_kv_abort){.rid = t->rid, .reason = TS_REASON_CANCELLED};
        t->parts[i].sender = NULL;
    }
    if (t->relay_knows) {
        struct ts_action_send *s = worker_send_pool(core, TS_MSG_RELEASE);
        if (s)
            s->msg.release = (struct ts_msg_release){.rid = t->rid, .reason = reason};
    }
    task_settle(core, t);
}

void task_release(struct worker_core *core, struct ts_rid rid, enum ts_reason reason)
{
    for (enum ts_phase role = TS_PHASE_PREFILL; role <= TS_PHASE_BOTH; role++) {
        struct task *t = task_find(core, rid, role);
        if (t)
            task_kill(core, t, reason == TS_REASON_FINISHED ? reason : TS_REASON_CANCELLED);
    }
}

void task_fail(struct worker_core *core, struct task *t, enum ts_reason reason, bool final, const char *text)
{
    struct ts_action_send *s =
        t->state == TASK_DYING ? NULL : worker_send_router(core, t->router, TS_MSG_ATTEMPT_FAILED);
    if (s)
        s->msg.attempt_failed = (struct ts_msg_attempt_failed){
            .rid = t->rid,
            .role = t->role,
            .reason = reason,
            .final = final,
            .text = ts_str_of(ts_arena_printf(&core->out->arena, "%.500s", text))};
    task_kill(core, t, TS_REASON_CANCELLED);
}

void task_drop_router(struct worker_core *core, struct router_link *link)
{
    for (struct task *t = core->head, *next; t; t = next) {
        next = t->next;
        if (t->router == link)
            task_kill(core, t, TS_REASON_CANCELLED);
    }
}

void task_resync(struct worker_core *core, struct router_link *link)
{
    uint32_t count = 0;
    struct ts_resync_item *items =
        ts_arena_zalloc(&core->out->arena, (ts_map_count(core->tasks) + 1) * sizeof *items);
    for (const struct task *t = core->head; t; t = t->next) {
        if (t->router == link && t->state != TASK_DYING)
            items[count++] = (struct ts_resync_item){
                .rid = t->rid, .role = t->role, .next_index = t->item_first + (uint32_t)t->item_count};
    }
    worker_send_router(core, link, TS_MSG_RESYNC)->msg.resync.items = (struct ts_resync_items){items, count};
}

void task_resync_reply(struct worker_core *core, const struct ts_msg_resync_reply *m)
{
    for (uint32_t i = 0; i < m->items.count; i++) {
        const struct ts_resync_answer *a = &m->items.data[i];
        struct task *t = task_find(core, a->rid, a->role);
        if (!t)
            continue;
        if (a->verdict == TS_RESYNC_CANCEL) {
            task_kill(core, t, TS_REASON_CANCELLED);
        } else if (a->verdict == TS_RESYNC_RESEND) {
            core->counts.resent++;
            task_send_output(core, t, a->from_index);
        }
    }
}
