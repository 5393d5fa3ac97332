/* What KV reaches between relays and decode workers: the matrix that the router knows, and a test of one
 * link. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_json.h"
#include "services/tsctl/tsctl.h"
#include "services/tsctl/tsctl_ask.h"

#define ASK_MS  3000
#define TEST_MS 20000 /* longer than the router waits for the relay */

struct links_flags {
    struct ts_conf *conf;
    const char *router;
    uint32_t mib, timeout_ms;
    bool json;
};

static const struct ts_option options[] = {
    {"router", TS_OPTION_STRING, offsetof(struct links_flags, router), "tcp://127.0.0.1:5555", 0, 0,
     "client endpoint of the router"},
    {"mib", TS_OPTION_U32, offsetof(struct links_flags, mib), "16", 1, 1024,
     "MiB that a test sends, at most, and for 10 s at most"},
    {"timeout_ms", TS_OPTION_U32, offsetof(struct links_flags, timeout_ms), "0", 0, 1e6,
     "how long to wait for the answer; 0 = 3000, of a test 20000"},
    {"json", TS_OPTION_BOOL, offsetof(struct links_flags, json), "false", 0, 0, "print one JSON document"},
};

static void put_str(struct ts_json *object, const char *key, struct ts_str text)
{
    ts_json_put_string(object, key, text.count ? text.data : "", text.count);
}

static void put_known(struct ts_json *object, const char *key, double value) /* 0 = not known */
{
    if (value > 0)
        ts_json_put_number(object, key, value);
    else
        ts_json_put_null(object, key);
}

static struct ts_json *link_json(const struct ts_link_item *l)
{
    struct ts_json *item = ts_json_new_object();
    put_str(item, "from", l->from);
    put_str(item, "to", l->to);
    put_known(item, "goodput_bytes_per_s", l->goodput_bytes_per_s);
    ts_json_put_bool(item, "at_least", l->at_least);
    put_known(item, "rtt_ms", (double)l->rtt_ns / 1e6);
    put_known(item, "expected_bytes_per_s", l->expected_bytes_per_s);
    ts_json_put_bool(item, "slow", l->slow);
    ts_json_put_number(item, "age_s", (double)l->age_ms / 1e3);
    ts_json_put_integer(item, "transfers", (int64_t)l->transfers);
    ts_json_put_integer(item, "repeats", (int64_t)l->repeats);
    ts_json_put_integer(item, "bytes", (int64_t)l->bytes);
    ts_json_put_integer(item, "samples", (int64_t)l->samples);
    return item;
}

static void print_json(struct ts_json **doc)
{
    char *text = ts_json_dump(*doc, false);
    puts(text);
    ts_free(text);
    ts_json_destroy(doc);
}

/* "118", ">=2.6", "-" */
static const char *speed_words(double bytes_per_s, bool at_least, char words[32])
{
    if (bytes_per_s > 0)
        snprintf(words, 32, "%s%.4g", at_least ? ">=" : "", bytes_per_s / 1e6);
    else
        snprintf(words, 32, "-");
    return words;
}

static void print_row(const struct ts_link_item *l)
{
    char speed[32], expected[32], rtt[32] = "-";
    if (l->rtt_ns > 0)
        snprintf(rtt, sizeof rtt, "%.3g", (double)l->rtt_ns / 1e6);
    printf("%-14.*s %-14.*s %12s %10s %13s %8.1f %10" PRIu64 " %10.1f %8" PRIu64 "%s\n", (int)l->from.count,
           l->from.count ? l->from.data : "", (int)l->to.count, l->to.count ? l->to.data : "",
           speed_words(l->goodput_bytes_per_s, l->at_least, speed), rtt,
           speed_words(l->expected_bytes_per_s, false, expected), (double)l->age_ms / 1e3, l->transfers,
           (double)l->bytes / 1e6, l->repeats, l->slow ? "  slow" : "");
}

static int show(const struct links_flags *f)
{
    struct ts_arena arena;
    struct ts_msg question = {.kind = TS_MSG_LINKS}, answer;
    struct ts_error err = {0};
    int code = 0;
    ts_arena_init(&arena);
    if (tsctl_ask(f->router, TS_CHANNEL_ADMIN, &question, TS_MSG_LINKS_REPLY,
                  f->timeout_ms ? (int)f->timeout_ms : ASK_MS, &arena, &answer, &err) != TS_OK) {
        code = tsctl_fail("links", 1, err.text);
    } else {
        const struct ts_link_items *links = &answer.links_reply.links;
        struct ts_json *doc = ts_json_new_object(), *list = ts_json_new_array();
        if (!f->json)
            printf("%-14s %-14s %12s %10s %13s %8s %10s %10s %8s\n", "from", "to", "MB/s", "rtt ms",
                   "expected MB/s", "age s", "transfers", "MB", "repeats");
        for (uint32_t i = 0; i < links->count; i++) {
            struct ts_json *item = f->json ? link_json(&links->data[i]) : NULL;
            if (item)
                ts_json_put(list, NULL, &item);
            else
                print_row(&links->data[i]);
        }
        ts_json_put(doc, "links", &list);
        if (f->json)
            print_json(&doc);
        ts_json_destroy(&doc);
        if (!f->json && links->count == 0)
            fprintf(stderr,
                    "no link is known yet: KV measures them as it flows, and so does tsctl links test A B\n");
    }
    ts_arena_fini(&arena);
    return code;
}

static void print_test(const struct ts_link_item *l)
{
    char speed[32], expected[64] = "";
    if (l->expected_bytes_per_s > 0)
        snprintf(expected, sizeof expected, ", expected %.4g MB/s", l->expected_bytes_per_s / 1e6);
    printf("%.*s -> %.*s: %s MB/s, round trip %.3g ms, by %.1f MB%s\n", (int)l->from.count,
           l->from.count ? l->from.data : "", (int)l->to.count, l->to.count ? l->to.data : "",
           speed_words(l->goodput_bytes_per_s, l->at_least, speed), (double)l->rtt_ns / 1e6,
           (double)l->bytes / 1e6, expected);
}

static int test(const struct links_flags *f, const char *from, const char *to)
{
    struct ts_arena arena;
    struct ts_msg question = {.kind = TS_MSG_LINK_TEST}, answer;
    struct ts_error err = {0};
    int code = 0;
    ts_arena_init(&arena);
    question.link_test = (struct ts_msg_link_test){
        .from = ts_str_of(from), .to = ts_str_of(to), .bytes = (uint64_t)f->mib << 20};
    if (tsctl_ask(f->router, TS_CHANNEL_ADMIN, &question, TS_MSG_LINK_TEST_REPLY,
                  f->timeout_ms ? (int)f->timeout_ms : TEST_MS, &arena, &answer, &err) != TS_OK) {
        code = tsctl_fail("links", 1, err.text);
    } else if (answer.link_test_reply.reason != TS_REASON_NONE) {
        const struct ts_str text = answer.link_test_reply.text;
        ts_error_set(&err, TS_EIO, "%s to %s: %.*s (%s)", from, to, (int)text.count,
                     text.count ? text.data : "", ts_reason_name(answer.link_test_reply.reason));
        code = tsctl_fail("links", 1, err.text);
    } else if (f->json) {
        struct ts_json *doc = link_json(&answer.link_test_reply.link);
        print_json(&doc);
    } else {
        print_test(&answer.link_test_reply.link);
    }
    ts_arena_fini(&arena);
    return code;
}

int tsctl_links(int argc, char **argv)
{
    struct links_flags f = {.conf = NULL};
    struct ts_conf_strings words;
    struct ts_error err = {0};
    int code;
    switch (ts_conf_load("links", options, TS_ARRAY_SIZE(options), argc, argv, &f, &words, &f.conf, &err)) {
    case TS_CONF_EXIT:
        return 0;
    case TS_CONF_ERROR:
        return tsctl_fail("links", 2, err.text);
    case TS_CONF_RUN:
        break;
    }
    if (words.count == 0)
        code = show(&f);
    else if (words.count == 3 && strcmp(words.items[0], "test") == 0 && *words.items[1] && *words.items[2])
        code = test(&f, words.items[1], words.items[2]);
    else
        code = tsctl_fail("links", 2,
                          "expected nothing, or test FROM TO: a relay or a worker that has one, and a decode "
                          "worker, as tsctl status lists them");
    ts_conf_destroy(&f.conf);
    return code;
}
