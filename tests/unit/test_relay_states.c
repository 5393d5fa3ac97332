/*
 * The transfer of a relay as its README has it: each state against each event, and every edge that the code
 * allows is among them. Letters are states; '-': gone. All of it twice: the relay encodes, or the worker does
 * when it is asked to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/ts_mem.h"
#include "relay_fixture.h"
#include "services/relay/relay_impl.h"

static const char letters[] = "OWSFRE"; /* in the order of enum transfer_state */

/* Job 1 is done, job 2 of the codec runs, where it is not over. */
#define DONE_1 "encoded job=1 digests=1,2 crc32c=91 #5/40"
#define DONE_2 "encoded job=2 digests=3,4 crc32c=92 #6/44"
#define ENCODING                                                                                             \
    {3, READY("1.1", "0"), "*"},                                                                             \
    {                                                                                                        \
        4, DONE_1, "*"                                                                                       \
    }
#define BOTH_ENCODED                                                                                         \
    ENCODING,                                                                                                \
    {                                                                                                        \
        4, DONE_2, "*"                                                                                       \
    }
#define GRANT "kv:1000 kv_grant rid=1.1 credit_bytes=100"
#define DONE  "kv:1000 kv_done rid=1.1"

static const struct core_step opening[] = {{1, BEGIN("1.1"), CONNECT}, ENCODING},
                              waiting[] = {OPENED, ENCODING},
                              streaming[] = {OPENED, ENCODING, {5, GRANT, "*"}},
                              sealed[] = {OPENED, ENCODING, {5, GRANT, "*"}, {6, SEAL("1.1"), "*"}},
                              flushing[] = {OPENED, BOTH_ENCODED, {5, SEAL("1.1"), "*"}, {6, GRANT, "*"}},
                              ended[] = {OPENED,
                                         BOTH_ENCODED,
                                         {5, SEAL("1.1"), "*"},
                                         {6, GRANT, "*"},
                                         {7, "kv:1000 unreachable", "*"},
                                         {8, "kv:1000 welcome", "*"}},
                              retained[] = {OPENED,
                                            BOTH_ENCODED,
                                            {5, SEAL("1.1"), "*"},
                                            {6, GRANT, "*"},
                                            {7, DONE, "*"}},
                              over[] = {OPENED, ENCODING, {5, "kv:1000 kv_abort rid=1.1", "*"}};

struct prelude {
    const struct core_step *steps;
    size_t count;
};
#define PRELUDE(steps)                                                                                       \
    {                                                                                                        \
        steps, sizeof(steps) / sizeof(steps)[0]                                                              \
    }

static const struct prelude reach[] = {PRELUDE(opening),  PRELUDE(waiting),  PRELUDE(streaming),
                                       PRELUDE(flushing), PRELUDE(retained), PRELUDE(over)};

static bool seen[sizeof letters][sizeof letters];

static char state_of(const struct core_fixture *f)
{
    const struct relay_core *core = f->driver.core;
    char found = '-';
    for (size_t i = 0; letters[i]; i++)
        found = core->state_counts[i] ? letters[i] : found;
    return found;
}

static size_t index_of(char letter) /* what is gone was over before */
{
    return letter == '-' ? TRANSFER_OVER : (size_t)(strchr(letters, letter) - letters);
}

static bool workers_encode; /* in what follows */

/* What a codec says comes from the worker where it encodes. */
static void step(struct core_fixture *f, int64_t at_ms, const char *event, const char *actions)
{
    char words[200];
    snprintf(words, sizeof words, "%s%s", workers_encode ? "pool:1 kv_" : "", event);
    core_step_one(f, at_ms, strncmp(event, "encoded", 7) == 0 ? words : event, actions);
}

static void check(struct prelude to, char from, const char *event, char want)
{
    struct relay_settings settings = relay_test_settings();
    settings.encode_jobs_max = 2;
    settings.workers_encode = workers_encode;
    struct core_fixture *f = relay_begin_encoding(&settings);
    f->name = event;
    for (size_t i = 0; i < to.count; i++)
        step(f, to.steps[i].at_ms, to.steps[i].event, to.steps[i].actions);
    if (state_of(f) != from)
        fail_msg("%s: %c is not reached, but %c", event, from, state_of(f));
    bool late = strcmp(event, "tick") == 0;
    step(f, f->now / TS_MS + (late ? 6000 : 10), event, "*");
    char got = state_of(f);
    if (got != want)
        fail_msg("%c, %s: %c instead of %c", from, event, got, want);
    if (strcmp(event, "kv:1000 welcome") == 0 && got == 'W') { /* two steps at once */
        seen[index_of(from)][TRANSFER_OPENING] = seen[TRANSFER_OPENING][TRANSFER_WAIT_GRANT] = true;
    } else {
        seen[index_of(from)][index_of(got)] = true;
    }
    struct relay_core *core = f->driver.core;
    memset(f->refs, 0, sizeof f->refs); /* it is stopped in the middle */
    core_end(f);
    relay_core_destroy(&core);
    ts_free(f);
}

static void each_state_and_event(void)
{
    const struct {
        const char *event, *next; /* from each of the letters */
    } rows[] = {
        {"kv:1000 welcome", "WWWWRE"}, /* of another session, where there was one: it is gone on with */
        {"kv:1000 unreachable", "OOOORE"},
        {GRANT, "OSSFRE"},
        {"kv:1000 kv_grant rid=1.1 token_begin=7", "OESFRE"},
        {"kv:1000 kv_credit rid=1.1 bytes=40", "OWSFRE"},
        {DONE, "OWSRRE"},
        {"kv:1000 kv_nack rid=1.1 chunk=0 reason=kv_corrupt", "OESFRE"},
        {"kv:1000 kv_nack rid=1.1 chunk=99 reason=kv_corrupt", "OEE-RE"},
        {"kv:1000 kv_nack rid=1.1 chunk=whole reason=no_assign", "OOE-RE"},
        {"kv:1000 kv_nack rid=1.1 chunk=whole reason=kv_no_memory", "OEE-RE"},
        {"kv:1000 kv_abort rid=1.1", "OEE-RE"},
        {"pool:1 kv_ready layer_begin=0 layer_end=1 items=1.1:0:16", "EEE-RE"}, /* announced twice */
        {DONE_2, "OWSFR-"},
        {"encoded job=2 reason=internal", "---FR-"},
        {"encoded job=9 #6/44", "OWSFRE"}, /* nobody asked */
        {SEAL("1.1"), "OWSFRE"},
        {BEGIN("1.1"), "OWSFRE"},
        {"pool:1 release rid=1.1", "EEE-RE"},
        {"pool:1 release rid=1.1 reason=finished",
         "EEEFRE"}, /* decode has it, and said so to the router first */
        {"relay:1 release rid=1.1", "EEE--E"},
        {"relay:1 refeed from=1.1 rid=1.2 decode=d1 endpoint=tcp://d1", "OWSFOE"},
        {"pool:1 unreachable", workers_encode ? "---FR-" : "EEEFRE"},
        {"relay:1 drain", "OWSF-E"},
        {"tick", "EWSFRE"}, /* 6 s later */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(strlen(rows[i].next), sizeof letters - 1);
        for (size_t s = 0; letters[s]; s++)
            check(reach[s], letters[s], rows[i].event, rows[i].next[s]);
    }
    check((struct prelude)PRELUDE(sealed), 'S', DONE_2, 'F');
    check((struct prelude)PRELUDE(ended), 'W', DONE, 'R');
    for (size_t from = 0; letters[from]; from++) {
        for (size_t to = 0; letters[to]; to++) {
            if (from != to &&
                seen[from][to] != transfer_may_become((enum transfer_state)from, (enum transfer_state)to))
                fail_msg("from %c to %c: %s", letters[from], letters[to],
                         seen[from][to] ? "seen, and not allowed" : "allowed, and not seen");
        }
    }
}

static void test_relay_encodes(void **state)
{
    (void)state;
    workers_encode = false;
    each_state_and_event();
}

static void test_worker_encodes(void **state)
{
    (void)state;
    workers_encode = true;
    memset(seen, 0, sizeof seen);
    each_state_and_event();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_relay_encodes),
                                       cmocka_unit_test(test_worker_encodes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
