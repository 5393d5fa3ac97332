/*
 * A transfer at the decode worker as its README has it: each state against each event, and every edge that
 * the code allows between them is among them. Letters are states; '-': gone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "services/worker/worker_impl.h"
#include "worker_fixture.h"

static const char letters[] = "AGRSYFD";
static const enum task_state states[] = {TASK_ASSIGNED, TASK_GRANT_WAIT, TASK_RECEIVING, TASK_SUSPENDED,
                                         TASK_READY,    TASK_FINISHED,   TASK_DYING};

/* Two blocks, as many as the prompt and its next token need; 2.1 is older. */
#define HELLO                                                                                                \
    {                                                                                                        \
        0, "as=77 kv:1 hello role=relay id=r0", "kv:1 welcome"                                               \
    }
#define ASSIGNED                                                                                             \
    HELLO,                                                                                                   \
    {                                                                                                        \
        1, "worker:1 " DECODE("1.1"), ""                                                                     \
    }
#define OCCUPIED                                                                                             \
    HELLO, {0, "worker:1 " DECODE("2.1") "age_ms=1000", ""}, {0, "kv:1 " OPEN("2.1"), "kv:1 kv_grant"},      \
    {                                                                                                        \
        1, "worker:1 " DECODE("1.1"), ""                                                                     \
    }
#define CHUNK(n, layer)                                                                                      \
    "kv:1 kv_chunk rid=1.1 number=" n " layer=" layer " head_count=2 token_count=20 crc32c=99 "
#define SENT                                                                                                 \
    {2, "kv:1 " OPEN("1.1"), "kv:1 kv_grant"}, {3, CHUNK("0", "0") "#5/40", "*"},                            \
        {3, CHUNK("1", "1") "#6/44", "*"},                                                                   \
    {                                                                                                        \
        4, "scattered job=1 digests=7,8", "*"                                                                \
    }
#define END    "kv:1 kv_end rid=1.1 layer_end=2 head_end=2 chunks=2 bytes_raw=100 bytes_sent=30 digests=7,8,9,1"
#define COMMIT "kv:1 kv_commit rid=1.1 senders=1 prompt_ids=*20 produced=42 first=42:A"
#define LAST   "scattered job=2 digests=9,1"
#define CUT    "kv:1 unreachable"
#define AGAIN  "kv:1 " OPEN("1.1") "resume=1"
#define BACK   "as=77 kv:1 hello role=relay id=r0"
#define DRAWN  "batch_done batch=1 samples=1:43:none"
#define LATER  "tick" /* beyond what it waits for memory and for its relay */

static const struct core_step assigned[] = {ASSIGNED}, occupied[] = {OCCUPIED},
                              waiting[] = {OCCUPIED, {2, "kv:1 " OPEN("1.1"), ""}},
                              receiving[] = {ASSIGNED, SENT},
                              complete[] = {ASSIGNED, SENT, {5, END, ""}, {5, COMMIT, ""}},
                              suspended[] = {ASSIGNED, SENT, {5, CUT, ""}},
                              back[] = {ASSIGNED, SENT, {5, CUT, ""}, {6, BACK, "*"}},
                              waits_again[] = {OCCUPIED,
                                               {2, "kv:1 " OPEN("1.1"), ""},
                                               {5, CUT, ""},
                                               {6, BACK, "*"}},
                              all_came[] = {ASSIGNED, SENT, {5, END, ""}, {5, COMMIT, ""}, {6, CUT, ""}},
                              ready[] = {ASSIGNED, SENT, {5, END, ""}, {5, COMMIT, ""}, {6, LAST, "*"}},
                              finished[] = {ASSIGNED,       SENT,
                                            {5, END, ""},   {5, COMMIT, ""},
                                            {6, LAST, "*"}, {7, "batch_done batch=1 samples=1:43:stop", "*"}},
                              dying[] = {ASSIGNED, SENT, {5, "worker:1 release rid=1.1", "*"}};

struct prelude {
    const struct core_step *steps;
    size_t count;
};
#define PRELUDE(steps)                                                                                       \
    {                                                                                                        \
        steps, sizeof(steps) / sizeof(steps)[0]                                                              \
    }

static const struct prelude reach[] = {PRELUDE(assigned),  PRELUDE(waiting), PRELUDE(receiving),
                                       PRELUDE(suspended), PRELUDE(ready),   PRELUDE(finished),
                                       PRELUDE(dying)};

static bool seen[sizeof letters][sizeof letters];

static char state_of(const struct core_fixture *f)
{
    for (const struct task *t = worker_of(f)->head; t; t = t->next) {
        for (size_t i = 0; t->rid.request == 1 && letters[i]; i++) {
            if (states[i] == t->state)
                return letters[i];
        }
    }
    return '-';
}

static size_t index_of(char letter) /* what is gone was dying before */
{
    return (size_t)(strchr(letters, letter == '-' ? 'D' : letter) - letters);
}

static void check(struct prelude to, char from, const char *event, char want)
{
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    settings.pool.kv_blocks = 2;
    settings.grant_wait_ms = 5000;
    settings.relay_endpoint = "";
    struct core_fixture *f = worker_begin_alone(&settings);
    f->name = event;
    for (size_t i = 0; i < to.count; i++)
        core_step_one(f, to.steps[i].at_ms, to.steps[i].event, to.steps[i].actions);
    if (state_of(f) != from)
        fail_msg("%s: %c is not reached, but %c", event, from, state_of(f));
    core_step_one(f, f->now / TS_MS + (strcmp(event, LATER) == 0 ? 60000 : 10), event, "*");
    char got = state_of(f);
    if (got != want)
        fail_msg("%c, %s: %c instead of %c", from, event, got, want);
    seen[index_of(from)][index_of(got)] = true;
    struct worker_core *core = worker_of(f);
    memset(f->refs, 0, sizeof f->refs); /* it is stopped in the middle */
    core_end(f);
    worker_core_destroy(&core);
    ts_free(f);
}

static void test_each_state_and_event(void **state)
{
    static const struct {
        const char *event, *next; /* from each of the letters */
    } rows[] = {
        {"kv:1 " OPEN("1.1") "codec.key.bits=4", "-GRSYFD"},
        {"kv:1 " OPEN("1.1") "decode_incarnation=1", "-GRSYFD"},
        {"kv:1 " OPEN("1.1") I4 "token_count=40", "-GRSYFD"}, /* more than there will ever be room for */
        {CHUNK("0", "0") "#7/40", "AGRSYFD"},
        {CHUNK("9", "0") "#7/40", "AGDSYFD"},
        {CHUNK("1", "1") "token_begin=16 #7/40", "AGDSYFD"},
        {LAST, "AGRSYF-"},
        {"scattered job=2 reason=kv_corrupt", "AGRSYF-"},
        {"scattered job=2 reason=kv_no_memory", "AG--YF-"},
        {"scattered job=2 reason=engine", "AG--YF-"},
        {END, "AGRSYFD"},
        {"kv:1 kv_end rid=1.1 layer_end=2 head_end=2 chunks=2 digests=7,8", "AGDSYFD"},
        {COMMIT, "AGRSYFD"},
        {"kv:1 kv_commit rid=1.1 senders=1 prompt_ids=*19 produced=42 first=42:A", "AGDSYFD"},
        {"kv:1 kv_abort rid=1.1", "A-DSYFD"},
        {CUT, "ASSSYFD"},
        {BACK, "ASSSYFD"},
        {"as=78 kv:1 hello role=relay id=r0", "A-DDYFD"},
        {DRAWN, "AGRSYFD"},
        {"batch_done batch=1 samples=1:43:stop", "AGRSFFD"},
        {"batch_done batch=1 reason=engine", "AGRS-FD"},
        {"worker:1 release rid=1.1", "--DDD-D"},
        {LATER, "A-RDYFD"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(strlen(rows[i].next), sizeof letters - 1);
        for (size_t s = 0; letters[s]; s++)
            check(reach[s], letters[s], rows[i].event, rows[i].next[s]);
    }
    check((struct prelude)PRELUDE(occupied), 'A', "kv:1 " OPEN("1.1"), 'G');
    check((struct prelude)PRELUDE(waiting), 'G', "worker:1 release rid=2.1", 'R');
    check((struct prelude)PRELUDE(complete), 'R', LAST, 'Y');
    check((struct prelude)PRELUDE(complete), 'R', "scattered job=2 digests=9,2", '-');
    check((struct prelude)PRELUDE(back), 'S', AGAIN, 'R');
    check((struct prelude)PRELUDE(waits_again), 'S', AGAIN, 'G');
    check((struct prelude)PRELUDE(all_came), 'S', LAST, 'Y');
    for (size_t from = 0; letters[from]; from++) {
        for (size_t to = 0; letters[to]; to++) {
            if (from != to && seen[from][to] != task_may_become(states[from], states[to]))
                fail_msg("from %c to %c: %s", letters[from], letters[to],
                         seen[from][to] ? "seen, and not allowed" : "allowed, and not seen");
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_state_and_event)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
