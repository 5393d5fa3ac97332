/*
 * Runs a core through a table of events and expected actions (core_text.h says how a line reads). The fixture
 * plays every peer (a message is 10 bytes and its frame): it numbers messages within their sessions, checks
 * the numbers of the core's own, counts bulk handles (each reference of an event must be dropped exactly
 * once, an action may only borrow one that is held), checks each message against its bounds, the core's
 * invariants after every step and that its deadline lies ahead.
 *
 * An event line may begin with one of: `gap` (the message before it was lost), `old` (of an earlier session),
 * `as=N` (from now on that peer's incarnation is N), `lane=N` (in the session of peer N of that channel,
 * outside of its order). `channel:peer unreachable` is a failed send.
 */
#ifndef CORE_FIXTURE_H
#define CORE_FIXTURE_H

#include "common/base/ts_assert.h"
#include "core_text.h"

#define CORE_PEERS_MAX  64
#define CORE_SLOTS_MAX  256
#define CORE_BLOCKS_MAX 1024

/* What a prompt of fewer than 32 tokens goes as. */
#define I8 "codec.key.bits=8 codec.key.flags=2 codec.value.bits=8 codec.value.flags=2"

struct core_driver {
    void *core;
    void (*step)(void *core, ts_time now, const struct ts_event *event, struct ts_actions *out);
    ts_time (*deadline)(const void *core);
    bool (*check)(const void *core, struct ts_error *err);
};

struct core_peer { /* played by the test */
    enum ts_channel channel;
    uint64_t peer, incarnation, session, tx, rx;
};

struct core_fixture {
    struct core_driver driver;
    struct ts_actions out;
    struct ts_arena arena;
    ts_time now;
    struct core_peer peers[CORE_PEERS_MAX];
    size_t peer_count;
    uint64_t next_session;
    int refs[CORE_SLOTS_MAX];              /* references the core owes, by slot */
    uint32_t generations[CORE_BLOCKS_MAX]; /* how often a worker gave each block back */
    bool busy;                             /* a deadline at once is right (a search is under way) */
    const char *name;                      /* of the case, for failures */
};

struct core_step {
    int64_t at_ms;
    const char *event;
    const char
        *actions; /* a line for each in order, logs left out; "" = none; a line "*" = whatever follows */
};

void core_begin(struct core_fixture *f, struct core_driver driver);
void core_run(struct core_fixture *f, const char *name, const struct core_step *steps, size_t count);
void core_step_one(struct core_fixture *f, int64_t at_ms, const char *event, const char *actions);
/* The parts, for tests that make their own events: the envelope as a peer that keeps to the protocol writes
 * it; one step with all checks, whose actions are then in f->out. */
void core_stamp(struct core_fixture *f, struct ts_event_message *m);
void core_feed(struct core_fixture *f, ts_time now, const struct ts_event *event);
void core_end(struct core_fixture *f); /* no handle may be held */
int core_refs(const struct core_fixture *f);

#define CORE_RUN(f, name, steps) core_run(f, name, steps, TS_ARRAY_SIZE(steps))
/* A whole case: of a core that has just begun, to the end that its fixture gives it. */
#define CORE_CASE(begun, name, steps, end)                                                                   \
    do {                                                                                                     \
        struct core_fixture *of_case = begun;                                                                \
        CORE_RUN(of_case, name, steps);                                                                      \
        end(&of_case);                                                                                       \
    } while (0)

/* Cases that a loop goes through: CORE_TABLE(told), ... */
struct core_table {
    const char *name;
    const struct core_step *steps;
    size_t count;
};
#define CORE_TABLE(steps)                                                                                    \
    {                                                                                                        \
#steps, steps, TS_ARRAY_SIZE(steps)                                                                  \
    }

#endif
