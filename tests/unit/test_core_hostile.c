/*
 * Peers are not trusted: whatever well-formed message arrives, in whatever order, a core refuses it or lives
 * with it. Messages that make sense, some with a field or two changed, and wholly random ones go to every
 * core in random order, between honest completions of its own jobs. Values come from small domains, so that
 * they often name something real. The fixture checks handles, bounds, invariants and deadlines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "common/base/ts_rng.h"
#include "planner_core_fixture.h"
#include "router_fixture.h"
#include "services/relay/relay_core.h"
#include "worker_fixture.h"

#define WORLDS   120 /* of one core each: a message may well end all that could follow in one */
#define STEPS    3000
#define JOBS_MAX 64

struct line { /* a message that makes sense, and the peer's number when the core has dialled it */
    enum ts_channel channel;
    uint64_t dialled;
    const char *text; /* its rid is drawn */
};

#define LAST_DIALLED UINT64_MAX /* the newest connection that the core has made on that channel */

static uint64_t seed = 11;

struct world {
    struct core_fixture *f;
    struct ts_rng rng;
    struct ts_arena arena;
    struct ts_action jobs[JOBS_MAX]; /* under way: without spans */
    uint32_t samples[JOBS_MAX];      /* of a batch */
    uint64_t tags[JOBS_MAX][4];
    size_t job_count;
    uint64_t last_dialled;
    bool sent[128]; /* by kind of message */
};

static uint64_t pick(struct world *w, uint64_t below)
{
    return ts_rng_below(&w->rng, below);
}

static uint64_t random_number(struct world *w)
{
    static const uint64_t likely[] = {0,  1,  1,   2,   2,   3,     7,          7,         16,
                                      20, 64, 100, 500, 800, 65535, UINT32_MAX, UINT64_MAX};
    return likely[pick(w, TS_ARRAY_SIZE(likely))];
}

static struct ts_str random_text(struct world *w)
{
    static const char *const likely[] = {"",   "a", "b",  "c",    "p0",       "d0",     "r0",
                                         "pa", "m", "i4", "none", "tcp://d0", "router0"};
    return ts_str_of(likely[pick(w, TS_ARRAY_SIZE(likely))]);
}

static void fill(struct world *w, const struct ts_schema *schema, void *base);

static void fill_list(struct world *w, const struct ts_field *field, struct ts_list *list)
{
    size_t size = field->type == TS_FIELD_MSGS ? field->sub->size : field->type == TS_FIELD_U64S ? 8 : 4;
    uint32_t count = pick(w, 4) ? (uint32_t)pick(w, 4) : 20;
    if (count > field->max)
        count = field->max;
    char *data = ts_arena_zalloc(&w->arena, (count + 1) * size);
    for (uint32_t i = 0; i < count; i++) {
        if (field->type == TS_FIELD_MSGS)
            fill(w, field->sub, data + i * size);
        else if (size == 8)
            ((uint64_t *)(void *)data)[i] = random_number(w);
        else
            ((uint32_t *)(void *)data)[i] = (uint32_t)random_number(w);
    }
    *list = (struct ts_list){data, count};
}

static void fill_field(struct world *w, const struct ts_field *field, void *at)
{
    switch (field->type) {
    case TS_FIELD_BOOL:
        *(bool *)at = pick(w, 2);
        break;
    case TS_FIELD_U32:
        *(uint32_t *)at = (uint32_t)random_number(w);
        break;
    case TS_FIELD_U64:
    case TS_FIELD_I64:
        *(uint64_t *)at = random_number(w);
        break;
    case TS_FIELD_F32:
        *(float *)at = (float)pick(w, 3);
        break;
    case TS_FIELD_F64:
        *(double *)at = (double)pick(w, 3) / 2;
        break;
    case TS_FIELD_ENUM:
        *(uint32_t *)at = (uint32_t)pick(w, field->max + 1);
        break;
    case TS_FIELD_STR:
        *(struct ts_str *)at = random_text(w);
        break;
    case TS_FIELD_BYTES:
        *(struct ts_bytes *)at = (struct ts_bytes){(const uint8_t *)"xyz", 3};
        break;
    case TS_FIELD_MSG:
        if (field->sub == &ts_rid_schema)
            *(struct ts_rid *)at = (struct ts_rid){500, 1 + pick(w, 2), pick(w, 8) ? 1 : 2};
        else
            fill(w, field->sub, at);
        break;
    case TS_FIELD_U32S:
    case TS_FIELD_U64S:
    case TS_FIELD_MSGS:
        fill_list(w, field, at);
        break;
    }
}

/* Half of the fields stay as they are. */
static void fill(struct world *w, const struct ts_schema *schema, void *base)
{
    for (uint32_t i = 0; i < schema->field_count; i++) {
        if (schema->fields[i].when == 0 && pick(w, 4))
            fill_field(w, &schema->fields[i], (char *)base + schema->fields[i].offset);
    }
}

static uint32_t free_slot(struct world *w)
{
    uint32_t slot = 1 + (uint32_t)pick(w, CORE_SLOTS_MAX - 1);
    return w->f->refs[slot] == 0 ? slot : 0;
}

/* A few kinds would end all work too soon; Welcome starts a session only where the core has said Hello. */
static bool unwanted(struct world *w, const struct line *line, uint32_t kind)
{
    return !ts_msg_allowed(line->channel, (enum ts_msg_kind)kind) || (kind == TS_MSG_RESET && pick(w, 20)) ||
           (kind == TS_MSG_DRAIN && pick(w, 2000)) ||
           (kind == TS_MSG_WELCOME && (!line->dialled || pick(w, 20)));
}

static void random_body(struct world *w, const struct line *line, struct ts_msg *msg)
{
    const struct ts_field *kind;
    do
        kind = &ts_msg_schema.fields[pick(w, ts_msg_schema.field_count)];
    while (unwanted(w, line, kind->when));
    msg->kind = (enum ts_msg_kind)kind->when;
    fill(w, kind->sub, (char *)msg + kind->offset);
}

static void sensible_body(struct world *w, const struct line *line, struct ts_msg *msg)
{
    struct core_head head;
    assert_true(core_text_head(line->text, &head));
    const struct ts_field *kind = core_text_case(&ts_msg_schema, head.kind);
    const struct ts_schema *schema = kind->sub;
    msg->kind = (enum ts_msg_kind)kind->when;
    core_text_fill(schema, (char *)msg + kind->offset, head.rest, &w->arena);
    for (uint32_t i = 0; i < schema->field_count; i++) {
        if (schema->fields[i].sub == &ts_rid_schema || pick(w, 40) == 0)
            fill_field(w, &schema->fields[i], (char *)msg + kind->offset + schema->fields[i].offset);
    }
}

static void hostile_message(struct world *w, struct ts_event *event, const struct line *lines, size_t count)
{
    struct ts_event_message *m = &event->message;
    const struct line *line = &lines[pick(w, count)];
    *event = (struct ts_event){.kind = TS_EVENT_MESSAGE};
    m->channel = line->channel;
    m->peer = line->dialled == LAST_DIALLED ? w->last_dialled : line->dialled;
    if (m->peer == 0)
        m->peer = pick(w, 8) ? 1 : 2;
    if (pick(w, 8))
        sensible_body(w, line, &m->msg);
    else
        random_body(w, line, &m->msg);
    if (pick(w, 4))
        m->bulk = (struct ts_bulk){free_slot(w), 1, pick(w, 4) ? 40 : random_number(w) % 200};
    core_stamp(w->f, m);
}

/* --- honest jobs --- */

static void remember(struct world *w, const struct ts_action *a)
{
    size_t n = w->job_count;
    if (a->kind == TS_ACTION_CONNECT)
        w->last_dialled = a->connect.peer;
    if (a->kind == TS_ACTION_SEND)
        w->sent[a->send.msg.kind] = true;
    if (a->kind != TS_ACTION_TOKENISE && a->kind != TS_ACTION_BATCH && a->kind != TS_ACTION_ENCODE &&
        a->kind != TS_ACTION_SCATTER && a->kind != TS_ACTION_MAP_POOL)
        return;
    assert_true(n < JOBS_MAX || a->kind == TS_ACTION_TOKENISE || a->kind == TS_ACTION_SCATTER);
    if (n == JOBS_MAX)
        return; /* as if it never ended */
    w->jobs[n] = *a;
    w->samples[n] = 0;
    for (uint32_t i = 0; a->kind == TS_ACTION_BATCH && i < a->batch.rows.count; i++) {
        if (a->batch.rows.data[i].sample)
            w->tags[n][w->samples[n]++] = a->batch.rows.data[i].tag;
    }
    w->job_count++;
}

static void batch_event(struct world *w, size_t n, struct ts_event *event)
{
    struct ts_batch_sample *samples = ts_arena_zalloc(&w->arena, 4 * sizeof *samples);
    for (uint32_t i = 0; i < w->samples[n]; i++)
        samples[i] = (struct ts_batch_sample){.tag = w->tags[n][i],
                                              .item = {.token = (uint32_t)pick(w, 1000)},
                                              .finish = pick(w, 4) ? TS_FINISH_NONE : TS_FINISH_STOP};
    event->kind = TS_EVENT_BATCH_DONE;
    event->batch_done =
        (struct ts_event_batch_done){.batch = w->jobs[n].batch.batch,
                                     .reason = pick(w, 20) ? TS_REASON_NONE : TS_REASON_ENGINE,
                                     .samples = {samples, w->samples[n]}};
}

/* Batches end in the order of issue. */
static size_t in_order(const struct world *w, size_t n)
{
    for (size_t i = 0; w->jobs[n].kind == TS_ACTION_BATCH && i < w->job_count; i++) {
        if (w->jobs[i].kind == TS_ACTION_BATCH && w->jobs[i].batch.batch < w->jobs[n].batch.batch)
            n = i;
    }
    return n;
}

static void job_event(struct world *w, struct ts_event *event)
{
    static const uint64_t digests[] = {7, 8};
    static uint32_t ids[90];
    size_t n = in_order(w, pick(w, w->job_count));
    const struct ts_action *a = &w->jobs[n];
    *event = (struct ts_event){.kind = TS_EVENT_TICK};
    if (a->kind == TS_ACTION_TOKENISE) {
        event->kind = TS_EVENT_TOKENISED;
        event->tokenised =
            (struct ts_event_tokenised){.job = a->tokenise.job, .ids = {ids, (uint32_t)pick(w, 60)}};
    } else if (a->kind == TS_ACTION_BATCH) {
        batch_event(w, n, event);
    } else if (a->kind == TS_ACTION_ENCODE) {
        event->kind = TS_EVENT_ENCODED;
        event->encoded = (struct ts_event_encoded){.job = a->encode.job,
                                                   .bulk = {free_slot(w), 1, 40},
                                                   .declared_bytes = 40,
                                                   .digests = {digests, 2}};
    } else if (a->kind == TS_ACTION_SCATTER) {
        event->kind = TS_EVENT_SCATTERED;
        event->scattered =
            (struct ts_event_scattered){.job = a->scatter.job,
                                        .reason = pick(w, 4) ? TS_REASON_NONE : TS_REASON_KV_CORRUPT,
                                        .digests = {digests, 2}};
    } else {
        event->kind = TS_EVENT_POOL_MAPPED;
        event->pool_mapped = (struct ts_event_pool_mapped){.pool = a->map_pool.pool};
    }
    w->job_count--;
    w->jobs[n] = w->jobs[w->job_count];
    w->samples[n] = w->samples[w->job_count];
    memcpy(w->tags[n], w->tags[w->job_count], sizeof w->tags[n]);
}

/* --- worlds --- */

/* True when the core sent a message of kind `last`, which it does only after many states have been passed. */
static bool run(struct core_fixture *f, const char *name, const struct line *lines, size_t count,
                enum ts_msg_kind last)
{
    struct world *w = ts_xcalloc(1, sizeof *w);
    w->f = f;
    f->name = name;
    ts_rng_init(&w->rng, seed++);
    ts_arena_init(&w->arena);
    for (size_t i = 0; i < f->out.count; i++)
        remember(w, &f->out.items[i]);
    for (int i = 0; i < STEPS; i++) {
        struct ts_event event = {.kind = TS_EVENT_TICK};
        ts_time now = f->now + (pick(w, 50) ? (ts_time)pick(w, 10) * TS_MS : TS_S);
        ts_arena_reset(&w->arena);
        if (w->job_count > 0 && (w->job_count > JOBS_MAX / 2 || pick(w, 3) == 0))
            job_event(w, &event);
        else if (f->driver.deadline(f->driver.core) > now || pick(w, 2))
            hostile_message(w, &event, lines, count);
        core_feed(f, now, &event);
        for (size_t k = 0; k < f->out.count; k++)
            remember(w, &f->out.items[k]);
    }
    bool passed = w->sent[last];
    ts_arena_fini(&w->arena);
    ts_free(w);
    return passed;
}

/* What a core still holds at the end is its own affair: it was stopped in the middle. */
static void forget_handles(struct core_fixture *f)
{
    memset(f->refs, 0, sizeof f->refs);
}

static bool router_world(void)
{
    static const struct line lines[] = {
        {TS_CHANNEL_CLIENT, 0, GENERATE("a")},
        {TS_CHANNEL_CLIENT, 0, GENERATE_OF("b", "b")},
        {TS_CHANNEL_CLIENT, 0, GENERATE("c") "next_index=1 produced=5"},
        {TS_CHANNEL_CLIENT, 0, "cancel client=c request_id=a"},
        {TS_CHANNEL_CLIENT, 0, "heartbeat"},
        {TS_CHANNEL_WORKER, 0, WORKER("p0", "prefill", "profile.relay=r0")},
        {TS_CHANNEL_WORKER, 0, WORKER("d0", "decode", "")},
        {TS_CHANNEL_WORKER, 0, "resync items=1.1:prefill:1,2.1:decode:2"},
        {TS_CHANNEL_WORKER, 0, "output role=prefill first_index=0 items=5"},
        {TS_CHANNEL_WORKER, 0, "output role=decode first_index=1 items=6 finish=stop"},
        {TS_CHANNEL_WORKER, 0, "report role=prefill prompt_tokens=4"},
        {TS_CHANNEL_WORKER, 0, "report role=decode prompt_tokens=4"},
        {TS_CHANNEL_WORKER, 0, "attempt_failed role=decode reason=preempted"},
        {TS_CHANNEL_RELAY, 0, "hello role=relay id=r0"},
        {TS_CHANNEL_RELAY, 0, "transfer"},
        {TS_CHANNEL_RELAY, 0, "copies items=1.1:40:1,2.1:40:1"},
        {TS_CHANNEL_RELAY, 0, "copies items=1.1:0:0"},
        {TS_CHANNEL_PLANNER, 0, "hello role=planner id=pa"},
        {TS_CHANNEL_PLANNER, 0,
         "plan term=1 number=1 snapshot_version=7 replicas=1:p0:prefill,2:d0:decode shares=1:2:0:1"},
        {TS_CHANNEL_ADMIN, 0, "status"},
        {TS_CHANNEL_ADMIN, 0, "links"},
        {TS_CHANNEL_ADMIN, 0, "link_test from=p0 to=d0 bytes=1"},
        {TS_CHANNEL_RELAY, 0, "hello role=relay id=r0 link_tests=1"},
        {TS_CHANNEL_RELAY, 0, "link_report links=r0:d0:1000000:5:7:0:1:0:1"},
        {TS_CHANNEL_RELAY, 0, "link_test_reply id=1"},
    };
    struct router_settings settings = router_settings_defaults();
    settings.id = "router0";
    settings.codec = "i4";
    settings.queue_max = 20;
    settings.ended_keep_count = 5;
    struct core_fixture *f = router_begin_cluster(&settings);
    bool passed = run(f, "router", lines, TS_ARRAY_SIZE(lines), TS_MSG_END);
    forget_handles(f);
    router_end(&f);
    return passed;
}

static bool worker_world(void)
{
    static const struct line lines[] = {
        {TS_CHANNEL_WORKER, 1, PREFILL("1.1")},
        {TS_CHANNEL_WORKER, 1, DECODE("1.1")},
        {TS_CHANNEL_WORKER, 1, DECODE("1.1") "produced=5,6"},
        {TS_CHANNEL_WORKER, 1, BOTH("1.1")},
        {TS_CHANNEL_WORKER, 1, "set_phase phase=both"},
        {TS_CHANNEL_WORKER, 1, "release"},
        {TS_CHANNEL_WORKER, 1, "resync_reply items=1.1:decode:resend:0"},
        {TS_CHANNEL_POOL, 1, "pool_reply"},
        {TS_CHANNEL_POOL, 1, "kv_freed"},
        {TS_CHANNEL_POOL, 1, "kv_freed"},
        {TS_CHANNEL_POOL, 1, "release reason=kv_timeout"},
        {TS_CHANNEL_KV, 0, OPEN("1.1")},
        {TS_CHANNEL_KV, 0, OPEN("1.1")},
        {TS_CHANNEL_KV, 0, "kv_chunk number=0 layer=0 head_count=2 token_count=20"},
        {TS_CHANNEL_KV, 0, "kv_chunk number=1 layer=1 head_count=2 token_count=20"},
        {TS_CHANNEL_KV, 0, "kv_end layer_end=2 head_end=2 chunks=2 digests=7,8,7,8"},
        {TS_CHANNEL_KV, 0, "kv_commit senders=1 prompt_ids=*20 produced=42"},
        {TS_CHANNEL_KV, 0, "kv_probe number=1"},
    };
    struct worker_settings settings = worker_test_settings(TS_PHASE_BOTH);
    settings.heartbeat_ms = 500;
    settings.timeout_ms = 3000;
    settings.requests_max = 8;
    settings.batches_max = 1 + (uint32_t)(seed % 3);
    struct core_fixture *f = worker_begin_joined(&settings);
    core_step_one(f, 1, "kv:1 hello role=relay id=r0", "kv:1 welcome");
    core_step_one(f, 1, "kv:2 hello role=relay id=r1", "kv:2 welcome");
    bool passed = run(f, "worker", lines, TS_ARRAY_SIZE(lines), TS_MSG_KV_DONE);
    struct worker_core *core = f->driver.core;
    forget_handles(f);
    core_end(f);
    worker_core_destroy(&core);
    ts_free(f);
    return passed;
}

static void relay_step(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out)
{
    relay_core_step(core, now, event, out);
}

static ts_time relay_deadline(const void *core)
{
    return relay_core_deadline(core);
}

static bool relay_check(const void *core, struct ts_error *err)
{
    return relay_core_check(core, err);
}

static bool relay_world(void)
{
#define BEGIN                                                                                                \
    "kv_begin decode=d0 endpoint=tcp://d0 decode_incarnation=9 " I8 " token_count=20 blocks=4,6 "            \
    "generations=1,2 chain=77"
    static const struct line lines[] = {
        {TS_CHANNEL_RELAY, 1, "release"},
        {TS_CHANNEL_RELAY, 1, "refeed from=1.1 rid=1.2 decode=d0 endpoint=tcp://d0"},
        {TS_CHANNEL_RELAY, 1, "refeed from=1.1 rid=1.2 decode=d0 endpoint=tcp://d1"},
        {TS_CHANNEL_POOL, 0, BEGIN},
        {TS_CHANNEL_POOL, 0, BEGIN},
        {TS_CHANNEL_POOL, 0, "kv_ready layer_begin=0 layer_end=2 items=1.1:0:16,2.1:0:20"},
        {TS_CHANNEL_POOL, 0, "kv_ready layer_begin=0 layer_end=2 items=1.1:16:4,1.2:0:20,3.1:0:20"},
        {TS_CHANNEL_POOL, 0, "kv_seal prompt_ids=*20 produced=42 first=42:A"},
        {TS_CHANNEL_POOL, 0, "kv_seal prompt_ids=*20 produced=42 first=42:A"},
        {TS_CHANNEL_POOL, 0, "release"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_grant credit_bytes=100"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_grant credit_bytes=10"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_credit bytes=40"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_credit bytes=40"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_done"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_nack chunk=0 reason=kv_corrupt"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_nack chunk=whole reason=no_assign"},
        {TS_CHANNEL_KV, LAST_DIALLED, "welcome"},
        {TS_CHANNEL_KV, LAST_DIALLED, "welcome id=d0 probes=1"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_probe reply=1 number=1"},
        {TS_CHANNEL_KV, LAST_DIALLED, "kv_probe reply=1 number=2"},
        {TS_CHANNEL_RELAY, 1, "link_test id=1 endpoint=tcp://d0 bytes=600000"},
        {TS_CHANNEL_RELAY, 1, "link_test id=0 endpoint=tcp://d2"},
    };
    struct relay_settings settings = relay_settings_defaults();
    settings.routers[0] = "tcp://router";
    settings.router_count = 1;
    settings.encoded_bytes_max = 400;
    settings.retained_bytes_max = 200;
    settings.timeout_ms = 30000;
    struct relay_core *core = relay_core_new(&settings, 700);
    struct core_fixture *f = ts_xcalloc(1, sizeof *f);
    core_text_router = 500;
    core_begin(f, (struct core_driver){core, relay_step, relay_deadline, relay_check});
    core_step_one(f, 0, "start", "*");
    core_step_one(f, 0, "as=500 relay:1 welcome", "*");
    core_step_one(f, 0, "pool:1 hello role=worker id=p0", "pool:1 welcome");
    core_step_one(f, 0,
                  "pool:1 pool fingerprint=7 layers=2 layer_end=2 kv_heads=2 head_end=2 kv_blocks=8 "
                  "head_dim=64 kv_dtype=3",
                  "map_pool");
    core_step_one(f, 0, "pool_mapped pool=1", "pool:1 pool_reply");
    core_step_one(f, 0, "pool:2 hello role=worker id=p1", "pool:2 welcome");
    core_step_one(f, 0,
                  "pool:2 pool fingerprint=7 layers=2 layer_end=2 kv_heads=2 head_end=2 kv_blocks=8 "
                  "head_dim=64 kv_dtype=3",
                  "map_pool");
    bool passed = run(f, "relay", lines, TS_ARRAY_SIZE(lines), TS_MSG_KV_COMMIT);
    forget_handles(f);
    core_end(f);
    relay_core_destroy(&core);
    ts_free(f);
    return passed;
}

static bool planner_world(void)
{
#define CLUSTER "workers=p0:h:m:r0:1:3:prefill:1,d0:h:m::2:3:decode:1"
    static const struct line lines[] = {
        {TS_CHANNEL_PLANNER, 1, "snapshot version=1 holder=pa " CLUSTER},
        {TS_CHANNEL_PLANNER, 1, "update version=2 holder= " CLUSTER},
        {TS_CHANNEL_PLANNER, 1, "plan_reply term=1 number=1 verdict=refused reason=stale_plan"},
        {TS_CHANNEL_PLANNER, 2, "welcome"},
        {TS_CHANNEL_PLANNER, 2, "snapshot version=1 term=2 holder=pa " CLUSTER},
    };
    struct planner_settings settings = planner_settings_defaults();
    settings.routers[0] = "tcp://a";
    settings.routers[1] = "tcp://b";
    settings.router_count = 2;
    struct planner_core *core = planner_core_new(&settings, 600);
    struct core_fixture *f = ts_xcalloc(1, sizeof *f);
    core_begin(f, planner_driver(core));
    f->busy = true; /* a flip may be searched for in the step after the re-route */
    core_step_one(f, 0, "start", "*");
    core_step_one(f, 0, "planner:1 welcome", "");
    bool passed = run(f, "planner", lines, TS_ARRAY_SIZE(lines), TS_MSG_PLAN);
    core_end(f);
    planner_core_destroy(&core);
    ts_free(f);
    return passed;
}

static void repeat(bool (*world)(void))
{
    int passed = 0;
    for (int i = 0; i < WORLDS; i++)
        passed += world();
    assert_in_range(passed, 1, WORLDS);
}

static void test_router(void **state)
{
    (void)state;
    repeat(router_world);
}

static void test_worker(void **state)
{
    (void)state;
    repeat(worker_world);
}

static void test_relay(void **state)
{
    (void)state;
    repeat(relay_world);
}

static void test_planner(void **state)
{
    (void)state;
    repeat(planner_world);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);

    const struct CMUnitTest tests[] = {cmocka_unit_test(test_router), cmocka_unit_test(test_worker),
                                       cmocka_unit_test(test_relay), cmocka_unit_test(test_planner)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
