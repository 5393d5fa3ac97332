#include "services/router/router_codec.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "services/router/router_links.h"

/* Bytes of payload a second, on one core each side (gpu/codec/README.md): beyond, encoding is what takes
 * longest. */
#define NONE_IS_FASTER  4e9
#define LZ16_IS_SLOWER  1e9
#define SAFE_WANTS_LESS 1.25e9 /* 10 Gbit/s */

/* Bytes a second that the link carries, at least; 0 = not known. Words for the trace. */
static double link_speed(const struct router_core *core, const struct member *prefill,
                         const struct member *decode, char *words, size_t capacity)
{
    const struct ts_str relay = prefill->hello.profile.relay;
    struct router_link_info link;
    char id[TS_ID_BYTES_MAX + 1];
    snprintf(id, sizeof id, "%.*s", (int)relay.count, relay.count ? relay.data : "");
    snprintf(words, capacity, "link not measured");
    if (!router_links_find(core, id, decode->id, &link))
        return 0;
    bool measured = link.bytes_per_s > 0 && (!link.at_least || link.bytes_per_s >= link.expected_bytes_per_s);
    double speed = measured ? link.bytes_per_s : link.expected_bytes_per_s;
    if (speed > 0)
        snprintf(words, capacity, "link %s%.3g GB/s%s", measured && link.at_least ? "at least " : "",
                 speed / 1e9, measured ? "" : " by the cluster file");
    return speed;
}

/* What the model bears with 4 bits. */
static const char *of_model(const struct member *prefill, char *words, size_t capacity)
{
    static const char *const known[] = {"i4", "i4h", "i4hs", "i4hc", "k8v4h"};
    const struct ts_profile *p = &prefill->hello.profile;
    snprintf(words, capacity, "model not calibrated");
    for (size_t i = 0; i < TS_ARRAY_SIZE(known); i++) {
        if (!ts_str_equal(p->kv_codec, ts_str_of(known[i])))
            continue;
        snprintf(words, capacity, "%.*s", (int)p->kv_codec_why.count,
                 p->kv_codec_why.count ? p->kv_codec_why.data : "");
        return known[i];
    }
    return "i4h";
}

/* Heads that no group divides go as they are. */
static bool fits(const char *codec, const struct member *prefill)
{
    struct ts_codec described;
    uint32_t head_dim = prefill->hello.profile.head_dim;
    return head_dim == 0 || (ts_codec_parse(codec, &described, NULL) == TS_OK &&
                             ts_codec_check(&described, head_dim, NULL) == TS_OK);
}

static const char *automatic(const struct router_core *core, const struct member *prefill,
                             const struct member *decode, const char *plan_codec, char *why, size_t capacity)
{
    char link[80], model[80];
    double speed = link_speed(core, prefill, decode, link, sizeof link);
    const char *four = of_model(prefill, model, sizeof model);
    const char *codec = "none", *because = link;
    switch (core->settings.accuracy) {
    case ROUTER_ACCURACY_LOSSLESS:
        codec = speed > 0 && speed < LZ16_IS_SLOWER ? "lz16" : "none";
        break;
    case ROUTER_ACCURACY_SAFE:
        codec = speed < SAFE_WANTS_LESS ? "k8v4h" : "i8";
        break;
    case ROUTER_ACCURACY_NORMAL:
        if (*plan_codec ? strcmp(plan_codec, "none") == 0 : speed >= NONE_IS_FASTER) {
            because = *plan_codec ? "plan" : link;
        } else {
            codec = four;
            because = model;
        }
        break;
    }
    if (!fits(codec, prefill)) {
        snprintf(why, capacity, "auto: head_dim %u", prefill->hello.profile.head_dim);
        return "none";
    }
    snprintf(why, capacity, "auto: %s", because);
    return codec;
}

void router_codec_fix(const struct router_core *core, struct record *r, const struct member *prefill,
                      const struct member *decode, const char *plan_codec)
{
    const struct ts_str wish = r->generate.codec;
    if (r->codec[0])
        return;
    if (prefill == decode) { /* on exact KV: so should it go on elsewhere */
        snprintf(r->codec, sizeof r->codec, "none");
        snprintf(r->codec_why, sizeof r->codec_why, "colocated");
    } else if (wish.count && !ts_str_equal(wish, ts_str_of("auto"))) {
        snprintf(r->codec, sizeof r->codec, "%.*s", (int)wish.count, wish.data);
        snprintf(r->codec_why, sizeof r->codec_why, "request");
    } else if (strcmp(core->settings.codec, "auto") != 0) {
        snprintf(r->codec, sizeof r->codec, "%s", core->settings.codec);
        snprintf(r->codec_why, sizeof r->codec_why, "operator");
    } else {
        snprintf(r->codec, sizeof r->codec, "%s",
                 automatic(core, prefill, decode, plan_codec, r->codec_why, sizeof r->codec_why));
    }
}

void router_codec_trace(const struct record *r, struct ts_trace *out)
{
    struct ts_codec codec;
    out->codec = ts_str_of(r->codec);
    out->codec_why = ts_str_of(r->codec_why);
    if (r->trace.prompt_tokens > 0 && ts_codec_parse(r->codec, &codec, NULL) == TS_OK &&
        r->trace.prompt_tokens < codec.short_tokens) {
        codec = ts_codec_for_prompt(&codec, r->trace.prompt_tokens);
        out->codec = ts_str_of(ts_codec_name(&codec));
        out->codec_why = ts_str_of("short prompt");
    }
}
