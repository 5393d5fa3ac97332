/* KV of a prompt that is at the decode worker already, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/core/ts_kv.h"
#include "worker_fixture.h"

/* Prompts are 1, 2, ... 20: one whole block and 4 tokens. */
static const char *open_line(const char *rid, const char *codec)
{
    static char line[600];
    uint32_t tokens[TS_KV_BLOCK_TOKENS];
    for (uint32_t i = 0; i < TS_KV_BLOCK_TOKENS; i++)
        tokens[i] = i + 1;
    snprintf(line, sizeof line,
             "kv:1 kv_open rid=%s fingerprint=7 decode_incarnation=800 %s layers=2 layer_end=2 kv_heads=2 "
             "head_end=2 head_dim=64 kv_dtype=3 block_tokens=16 token_count=20 chain=%llu",
             rid, codec, (unsigned long long)ts_kv_chain(7, tokens));
    return line;
}

static const char *named(const char *format, const char *rid)
{
    static char lines[4][600];
    static int next;
    char *line = lines[next++ % 4];
    snprintf(line, sizeof lines[0], format, rid, rid, rid);
    return line;
}

static struct core_fixture *begin(uint32_t prefix_blocks)
{
    struct worker_settings settings = worker_test_settings(TS_PHASE_DECODE);
    settings.pool.kv_blocks = 5;
    settings.prefix_blocks_max = prefix_blocks;
    settings.relay_endpoint = "";
    struct core_fixture *f = worker_begin_alone(&settings);
    core_step_one(f, 0, "kv:1 hello role=relay id=r0", "kv:1 welcome id=w0");
    return f;
}

static void open_one(struct core_fixture *f, int64_t at, const char *rid, const char *codec,
                     const char *grant)
{
    core_step_one(f, at,
                  named("worker:1 assign role=decode rid=%s fingerprint=7 prompt_kind=tokens codec=i4", rid),
                  "");
    core_step_one(f, at, open_line(rid, codec), grant);
}

/* A chunk of each layer of those tokens, and all that makes it ready. */
static void bring(struct core_fixture *f, int64_t at, const char *rid, int job, const char *where,
                  const char *scatter)
{
    for (int layer = 0; layer < 2; layer++) {
        char event[300], action[300];
        snprintf(event, sizeof event, "kv:1 kv_chunk rid=%s number=%d layer=%d head_count=2 %s #%d/40", rid,
                 layer, layer, where, 5 + layer);
        snprintf(action, sizeof action, "scatter job=%d layer=%d %s #%d\ndrop #%d", job + layer, layer,
                 scatter, 5 + layer, 5 + layer);
        core_step_one(f, at, event, action);
        snprintf(event, sizeof event, "scattered job=%d digests=7,8", job + layer);
        core_step_one(f, at, event, named("kv:1 kv_credit rid=%s bytes=40", rid));
    }
    core_step_one(
        f, at, named("kv:1 kv_end rid=%s layer_end=2 head_end=2 chunks=2 bytes_raw=100 digests=7,8,7,8", rid),
        "");
}

#define COMMIT "kv:1 kv_commit rid=%s senders=1 prompt_ids=*20 produced=42 first=42:A"

static void finish(struct core_fixture *f, int64_t at, const char *rid, const char *batch, const char *tag)
{
    char event[100];
    core_step_one(f, at, named(COMMIT, rid), "*");
    snprintf(event, sizeof event, "batch_done batch=%s samples=%s:43:length", batch, tag);
    core_step_one(f, at, event, "*");
    core_step_one(f, at, named("worker:1 release rid=%s reason=finished", rid), "");
}

static void test_not_sent_again(void **state)
{
    (void)state;
    struct core_fixture *f = begin(5);
    open_one(f, 1, "1.1", I8, "kv:1 kv_grant rid=1.1 token_begin=0");
    bring(f, 2, "1.1", 1, "token_count=20", "blocks=0,1 token_count=20");
    finish(f, 3, "1.1", "1", "1");
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 0); /* what is only remembered counts as free */
    open_one(f, 4, "2.1", I8, "kv:1 kv_grant rid=2.1 token_begin=16");
    bring(f, 5, "2.1", 3, "token_begin=16 token_count=4", "blocks=0,1 token_begin=16 token_count=4");
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 3); /* a scratch block until all is there */
    core_step_one(f, 6, named(COMMIT, "2.1"),
                  "kv:1 kv_done rid=2.1\nworker:1 report rid=2.1 prompt_tokens=20\ntext_open tag=2\n"
                  "worker:1 output rid=2.1 items=42:A\nbatch batch=2 rows=2:20:42:0+1:1:1");
    assert_int_equal(worker_core_blocks_used(worker_of(f)), 2);
    /* Used by two at a time. */
    open_one(f, 7, "3.1", I8, "kv:1 kv_grant rid=3.1 token_begin=16");
    core_step_one(f, 7, "worker:1 release rid=3.1", "kv:1 kv_abort rid=3.1");
    core_step_one(f, 8, "batch_done batch=2 samples=2:43:length", "*");
    core_step_one(f, 8, "worker:1 release rid=2.1 reason=finished", "");
    assert_int_equal(worker_core_counts(worker_of(f)).prefix_hits, 2);
    worker_end(&f);
}

/* A sender may bring what is there nevertheless: it is checked, and lands where nobody reads. */
static void test_sent_nevertheless(void **state)
{
    (void)state;
    struct core_fixture *f = begin(5);
    open_one(f, 1, "1.1", I8, "kv:1 kv_grant rid=1.1 token_begin=0");
    bring(f, 2, "1.1", 1, "token_count=20", "blocks=0,1");
    finish(f, 3, "1.1", "1", "1");
    open_one(f, 4, "2.1", I8, "kv:1 kv_grant rid=2.1 token_begin=16");
    bring(f, 5, "2.1", 3, "token_count=20", "blocks=2,1 token_begin=0 token_count=20");
    finish(f, 6, "2.1", "2", "2");
    worker_end(&f);
}

/* Another codec restores other bytes; other tokens have other KV; nothing is remembered if it may not be. */
static void test_not_the_same(void **state)
{
    (void)state;
    static const struct core_step other[] = {
        {5, "kv:1 kv_commit rid=2.1 senders=1 prompt_ids=*21 produced=42 first=42:A",
         "kv:1 kv_nack rid=2.1 chunk=whole reason=kv_mismatch\nworker:1 attempt_failed rid=2.1 "
         "reason=kv_mismatch"},
    };
    struct core_fixture *f = begin(5);
    open_one(f, 1, "1.1", I8, "kv:1 kv_grant rid=1.1 token_begin=0");
    bring(f, 2, "1.1", 1, "token_count=20", "blocks=0,1");
    finish(f, 3, "1.1", "1", "1");
    core_step_one(f, 4, "worker:1 assign role=decode rid=2.1 fingerprint=7 prompt_kind=tokens codec=none",
                  "");
    core_step_one(f, 4, open_line("2.1", "codec.key.bits=16 codec.value.bits=16"),
                  "kv:1 kv_grant rid=2.1 token_begin=0");
    CORE_RUN(f, "other tokens", other);
    worker_end(&f);
    f = begin(0);
    open_one(f, 1, "1.1", I8, "kv:1 kv_grant rid=1.1 token_begin=0");
    bring(f, 2, "1.1", 1, "token_count=20", "blocks=0,1");
    finish(f, 3, "1.1", "1", "1");
    open_one(f, 4, "2.1", I8, "kv:1 kv_grant rid=2.1 token_begin=0");
    core_step_one(f, 5, "worker:1 release rid=2.1", "kv:1 kv_abort rid=2.1");
    worker_end(&f);
}

/* Who wants memory gets it: what is only remembered goes. */
static void test_gives_way(void **state)
{
    (void)state;
    struct core_fixture *f = begin(5);
    open_one(f, 1, "1.1", I8, "kv:1 kv_grant rid=1.1 token_begin=0");
    bring(f, 2, "1.1", 1, "token_count=20", "blocks=0,1");
    finish(f, 3, "1.1", "1", "1");
    core_step_one(f, 4, "worker:1 assign role=decode rid=2.1 fingerprint=7 prompt_kind=tokens codec=i4", "");
    core_step_one(f, 4,
                  "kv:1 kv_open rid=2.1 fingerprint=7 decode_incarnation=800 " I4
                  " layers=2 layer_end=2 kv_heads=2 "
                  "head_end=2 head_dim=64 kv_dtype=3 block_tokens=16 token_count=79",
                  "kv:1 kv_grant rid=2.1 token_begin=0");
    assert_int_equal(worker_core_counts(worker_of(f)).prefix_evicted, 1);
    core_step_one(f, 5, "worker:1 release rid=2.1", "kv:1 kv_abort rid=2.1");
    open_one(f, 6, "3.1", I8, "kv:1 kv_grant rid=3.1 token_begin=0");
    core_step_one(f, 7, "worker:1 release rid=3.1", "kv:1 kv_abort rid=3.1");
    worker_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_sent_again),
        cmocka_unit_test(test_sent_nevertheless),
        cmocka_unit_test(test_not_the_same),
        cmocka_unit_test(test_gives_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
