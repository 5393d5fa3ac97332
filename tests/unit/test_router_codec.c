/* Which codec a request is given, and the words for it: request, operator, and the automatic choice by
 * accuracy, link, plan and model. Through the router's own messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "router_fixture.h"

#define PROFILE_I4HC                                                                                         \
    "profile.relay=r0 profile.head_dim=64 profile.kv_codec=i4hc profile.kv_codec_why=offset-12.5"
#define PROFILE_I4H                                                                                          \
    "profile.relay=r0 profile.head_dim=64 profile.kv_codec=i4h profile.kv_codec_why=offset-1.5"
#define PROFILE_ODD "profile.relay=r0 profile.head_dim=100 profile.kv_codec=i4h"

#define NORMAL   ROUTER_ACCURACY_NORMAL
#define SAFE     ROUTER_ACCURACY_SAFE
#define LOSSLESS ROUTER_ACCURACY_LOSSLESS

struct choice {
    const char *setting;
    enum router_accuracy accuracy;
    const char *profile, *link; /* goodput as reported, NULL = nobody has measured */
    const char *wish;
    const char *codec, *why;
};

static void check(const struct choice *c)
{
    char lines[5][512];
    struct router_settings settings = router_test_settings();
    settings.codec = c->setting;
    settings.accuracy = c->accuracy;
    struct core_fixture *f = router_begin(&settings);
    snprintf(lines[0], sizeof lines[0], "worker:1 " WORKER("p0", "prefill", "%s"), c->profile);
    core_step_one(f, 0, HELLO_R0, "relay:1 welcome");
    core_step_one(f, 0, lines[0], "worker:1 welcome");
    core_step_one(f, 0, "worker:1 resync", "worker:1 resync_reply");
    core_step_one(f, 0, HELLO_D0, "worker:2 welcome");
    core_step_one(f, 0, "worker:2 resync", "worker:2 resync_reply");
    if (c->link) {
        snprintf(lines[1], sizeof lines[1], "relay:1 link_report links=r0:d0:%s:250000:77:0:3:1:5", c->link);
        core_step_one(f, 1, lines[1], "");
    }
    snprintf(lines[2], sizeof lines[2], "client:9 " GENERATE("a") "codec=%s #1/400", c->wish);
    snprintf(lines[3], sizeof lines[3],
             "client:9 accepted\nworker:2 assign codec=%s\nworker:1 assign codec=%s #1", c->codec, c->codec);
    core_step_one(f, 2, lines[2], lines[3]);
    core_step_one(f, 3, "worker:1 report rid=1.1 role=prefill prompt_tokens=100", "");
    core_step_one(f, 4, "client:9 cancel client=c request_id=a", "*");
    const struct ts_action *end = NULL;
    for (size_t i = 0; i < f->out.count; i++)
        end = f->out.items[i].kind == TS_ACTION_TRACE ? &f->out.items[i] : end;
    assert_non_null(end);
    const struct ts_str why = end->trace.trace.codec_why;
    if (!ts_str_equal(why, ts_str_of(c->why)))
        fail_msg("%s because of \"%.*s\", not \"%s\"", c->codec, (int)why.count, why.data, c->why);
    router_end(&f);
}

static void test_choices(void **state)
{
    static const struct choice choices[] = {
        {"auto", NORMAL, PROFILE_I4H, "1e8", "i4", "i4", "request"},
        {"k8v4h", NORMAL, PROFILE_I4H, "1e8", "none", "none", "request"},
        {"k8v4h", NORMAL, PROFILE_I4HC, "1e8", "auto", "k8v4h", "operator"},
        {"auto", NORMAL, PROFILE_I4H, "1e8", "", "i4h", "auto: offset-1.5"},
        {"auto", NORMAL, PROFILE_I4HC, "1e8", "", "i4hc", "auto: offset-12.5"},
        {"auto", NORMAL, PROFILE_I4HC, NULL, "auto", "i4hc", "auto: offset-12.5"},
        {"auto", NORMAL, "profile.relay=r0", "1e8", "", "i4h", "auto: model not calibrated"},
        {"auto", NORMAL, "profile.relay=r0 profile.kv_codec=zip", "1e8", "", "i4h",
         "auto: model not calibrated"},
        {"auto", NORMAL, PROFILE_I4H, "5e9", "", "none", "auto: link 5 GB/s"},
        {"auto", NORMAL, PROFILE_ODD, "1e8", "", "none", "auto: head_dim 100"},
        {"auto", SAFE, PROFILE_I4H, "1e8", "", "k8v4h", "auto: link 0.1 GB/s"},
        {"auto", SAFE, PROFILE_I4H, NULL, "", "k8v4h", "auto: link not measured"},
        {"auto", SAFE, PROFILE_I4H, "2e9", "", "i8", "auto: link 2 GB/s"},
        {"auto", LOSSLESS, PROFILE_I4H, "1e8", "", "lz16", "auto: link 0.1 GB/s"},
        {"auto", LOSSLESS, PROFILE_I4H, "2e9", "", "none", "auto: link 2 GB/s"},
        {"auto", LOSSLESS, PROFILE_I4H, NULL, "", "none", "auto: link not measured"},
        {"auto", LOSSLESS, PROFILE_ODD, "1e8", "", "none", "auto: head_dim 100"},
        {"auto", LOSSLESS, PROFILE_I4H, "1e8", "i4h,0=8/16", "i4h,0=8/16", "request"},
    };
    (void)state;
    for (size_t i = 0; i < TS_ARRAY_SIZE(choices); i++)
        check(&choices[i]);
}

/* One who asks for what there is not is told what there is; a worker that cannot do it ends the request. */
static void test_refused(void **state)
{
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "codec=zip #1", "client:9 refused reason=bad_request\ndrop #1"},
        {1, "client:9 " GENERATE("b") "codec=i4h,0=3 #2", "client:9 refused reason=bad_request\ndrop #2"},
        {2, "client:9 " GENERATE("c") "codec=i4 #3",
         "client:9 accepted\nworker:2 assign\nworker:1 assign #3"},
        {3, "worker:1 assign_refused rid=1.1 role=prefill reason=unsupported text=head_dim",
         "worker:1 release\nworker:2 release\ndrop #3\nclient:9 end reason=unsupported text=head_dim\ntrace"},
    };
    (void)state;
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "refused", steps);
}

/* Later attempts encode as the first one did, whatever the link has become. */
static void test_fixed(void **state)
{
    static const struct core_step steps[] = {
        {1, "client:9 " GENERATE("a") "#1",
         "client:9 accepted\nworker:2 assign codec=i4h\nworker:1 assign codec=i4h #1"},
        {2, "relay:1 link_report links=r0:d0:6e9:250000:77:0:3:1:5", ""},
        {3, "worker:2 attempt_failed rid=1.1 role=decode reason=kv_corrupt",
         "worker:1 release\nworker:2 release"},
        {30, "tick", "worker:2 assign rid=1.2 codec=i4h\nworker:1 assign rid=1.2 codec=i4h #1"},
        {31, "client:9 " GENERATE("b") "#2",
         "client:9 accepted\nworker:2 assign codec=none\nworker:1 assign codec=none #2"},
        {40, "client:9 cancel client=c request_id=a", "*"},
        {40, "client:9 cancel client=c request_id=b", "*"},
    };
    (void)state;
    struct router_settings settings = router_test_settings();
    ROUTER_CASE(router_begin_cluster(&settings), "fixed", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_choices), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_fixed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
