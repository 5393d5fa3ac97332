#include "services/router/router_links.h"

#include <stdio.h>
#include <string.h>

#include "common/base/ts_log.h"
#include "common/base/ts_mem.h"
#include "services/router/router_impl.h"

#define LINK_SLOW_SHARE   0.5 /* of what is expected */
#define LINK_SLOW_REPORTS 3   /* with new measurements, one after the other */
#define BYTES_PER_S_MAX   1e14
#define RTT_MAX           (60 * TS_S)

struct link_key {
    char relay[TS_ID_BYTES_MAX + 1], decode[TS_ID_BYTES_MAX + 1];
};

struct router_link {
    struct link_key key;
    struct ts_link_item item; /* without names and age */
    ts_time measured_at;
    bool told;    /* in the log, that its limit is known */
    uint32_t low; /* reports in a row that were far below */
};

static struct link_key key_of(const char *relay, const char *decode)
{
    struct link_key key = {.relay = ""};
    snprintf(key.relay, sizeof key.relay, "%s", relay);
    snprintf(key.decode, sizeof key.decode, "%s", decode);
    return key;
}

/* --- the cluster file --------------------------------------------------------------------------------- */

static const struct ts_node *node_of(const struct ts_cluster *cluster, struct ts_str host)
{
    for (uint32_t i = 0; i < cluster->node_count; i++) {
        if (ts_str_equal(ts_str_of(cluster->nodes[i].name), host))
            return &cluster->nodes[i];
    }
    return NULL;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

/* 0: it does not say, or both are on one host. */
double links_expected(const struct router_core *core, const struct member *relay, const struct member *decode)
{
    const struct ts_cluster *cluster = core->settings.cluster;
    const struct ts_node *from = cluster ? node_of(cluster, relay->hello.host) : NULL;
    const struct ts_node *to = cluster ? node_of(cluster, decode->hello.host) : NULL;
    if (!from || !to || from == to)
        return 0;
    const struct ts_link *link =
        ts_cluster_link(cluster, (uint32_t)(from - cluster->nodes), (uint32_t)(to - cluster->nodes));
    return least(link->bytes_per_s, least(from->nic_out_bytes_per_s, to->nic_in_bytes_per_s));
}

/* --- reports ------------------------------------------------------------------------------------------ */

static bool sensible(const struct ts_link_item *m)
{
    return m->goodput_bytes_per_s >= 0 && m->goodput_bytes_per_s <= BYTES_PER_S_MAX && m->rtt_ns >= 0 &&
           m->rtt_ns <= RTT_MAX && (m->samples > 0 || m->rtt_ns > 0);
}

static struct router_link *link_of(struct router_core *core, const struct member *relay,
                                   const struct member *decode)
{
    struct link_key key = key_of(relay->id, decode->id);
    struct router_link *link = ts_map_get(core->links, &key, sizeof key);
    if (link || ts_map_count(core->links) >= ROUTER_LINKS_MAX)
        return link;
    link = ts_xcalloc(1, sizeof *link);
    link->key = key;
    link->item.expected_bytes_per_s = links_expected(core, relay, decode);
    ts_map_put(core->links, &key, sizeof key, link);
    return link;
}

static void tell(struct router_core *core, const struct router_link *link, uint32_t level, const char *event)
{
    ts_actions_log(core->out, level, "event=%s from=%s to=%s measured=%.4gMB/s expected=%.4gMB/s", event,
                   link->key.relay, link->key.decode, link->item.goodput_bytes_per_s / 1e6,
                   link->item.expected_bytes_per_s / 1e6);
}

/* What is a lower bound says that a link is fast enough, never that it is not. */
static void judge(struct router_core *core, struct router_link *link)
{
    struct ts_link_item *m = &link->item;
    if (!link->told && m->goodput_bytes_per_s > 0 && !m->at_least) {
        link->told = true;
        tell(core, link, TS_LOG_INFO, "link_measured");
    }
    bool low = m->goodput_bytes_per_s < LINK_SLOW_SHARE * m->expected_bytes_per_s;
    if (!(m->expected_bytes_per_s > 0 && m->goodput_bytes_per_s > 0) || (low && m->at_least))
        return;
    link->low = low ? link->low + 1 : 0;
    if (m->slow && !low)
        tell(core, link, TS_LOG_INFO, "link_recovered");
    if (!m->slow && link->low == LINK_SLOW_REPORTS)
        tell(core, link, TS_LOG_WARN, "link_slow");
    m->slow = low && (m->slow || link->low >= LINK_SLOW_REPORTS);
}

static void take(struct router_core *core, struct router_link *link, const struct ts_link_item *m)
{
    struct ts_link_item before = link->item;
    uint64_t age_ms = m->age_ms < (uint64_t)(core->now / TS_MS) ? m->age_ms : (uint64_t)(core->now / TS_MS);
    link->item = *m;
    link->item.from = link->item.to = (struct ts_str){.count = 0};
    link->item.expected_bytes_per_s = before.expected_bytes_per_s;
    link->item.slow = before.slow;
    link->measured_at = core->now - (ts_time)age_ms * TS_MS;
    if (m->samples != before.samples)
        judge(core, link);
}

/* Planners hear of it with the workload: a plan that is being made does not get stale by it. */
void links_report(struct router_core *core, const struct member *from, const struct ts_msg_link_report *m)
{
    for (uint32_t i = 0; i < m->links.count; i++) {
        const struct ts_link_item *item = &m->links.data[i];
        char id[TS_ID_BYTES_MAX + 1];
        snprintf(id, sizeof id, "%.*s", (int)item->to.count, item->to.count ? item->to.data : "");
        const struct member *to = member_find(core, TS_ROLE_WORKER, id);
        struct router_link *link = NULL;
        if (to && ts_str_equal(item->from, ts_str_of(from->id)) && sensible(item))
            link = link_of(core, from, to);
        if (link)
            take(core, link, item);
    }
    if (m->links.count > 0 && core->workload_timer.slot == 0)
        timers_set(&core->timers, &core->workload_timer,
                   core->now + core->settings.workload_update_ms * TS_MS);
}

/* The relay dials, and probes until the link has been idle for too long. */
static void watch(struct router_core *core, struct member *relay, const struct member *decode)
{
    const struct ts_profile *p = &decode->hello.profile;
    struct link_key key = key_of(relay->id, decode->id);
    if (!relay->hello.link_tests || !(p->phase & TS_PHASE_DECODE) || p->kv_endpoint.count == 0 ||
        !member_ready(decode) || relay->draining || ts_map_get(core->links, &key, sizeof key))
        return;
    struct ts_action_send *s = member_send(core, relay, TS_MSG_LINK_TEST);
    if (s)
        s->msg.link_test = (struct ts_msg_link_test){
            .from = ts_str_of(relay->id), .to = ts_str_of(decode->id), .endpoint = p->kv_endpoint};
}

void links_watch(struct router_core *core, const struct member *joined)
{
    struct member *m;
    bool worker = joined->role == TS_ROLE_WORKER;
    enum ts_role wanted = worker ? TS_ROLE_RELAY : TS_ROLE_WORKER;
    for (size_t cursor = 0; core->settings.measure_links && joined->role != TS_ROLE_PLANNER &&
                            (m = ts_map_next(core->members, &cursor, NULL, NULL));) {
        if (m->role == wanted)
            watch(core, worker ? m : member_find(core, TS_ROLE_RELAY, joined->id), worker ? joined : m);
    }
}

void links_forget(struct router_core *core, const struct member *gone)
{
    struct router_link *link;
    bool planner = gone->role == TS_ROLE_PLANNER;
    for (size_t cursor = 0; !planner && (link = ts_map_next(core->links, &cursor, NULL, NULL));) {
        if (strcmp(gone->role == TS_ROLE_RELAY ? link->key.relay : link->key.decode, gone->id) != 0)
            continue;
        ts_map_remove(core->links, &link->key, sizeof link->key);
        ts_free(link);
    }
}

/* --- questions ---------------------------------------------------------------------------------------- */

static ts_time age_of(const struct router_core *core, const struct router_link *link)
{
    return core->now - link->measured_at;
}

/* Names are copied: a link may be forgotten in the step that tells of it. */
struct ts_link_items links_list(struct router_core *core, bool limits_only)
{
    const struct router_link *link;
    uint32_t count = 0;
    struct ts_link_item *items =
        ts_arena_zalloc(&core->out->arena, (ts_map_count(core->links) + 1) * sizeof *items);
    for (size_t cursor = 0; (link = ts_map_next(core->links, &cursor, NULL, NULL));) {
        if (limits_only && (link->item.at_least || !(link->item.goodput_bytes_per_s > 0)))
            continue;
        items[count] = link->item;
        items[count].from = ts_str_of(ts_arena_printf(&core->out->arena, "%s", link->key.relay));
        items[count].to = ts_str_of(ts_arena_printf(&core->out->arena, "%s", link->key.decode));
        items[count++].age_ms = (uint64_t)(age_of(core, link) / TS_MS);
    }
    return (struct ts_link_items){items, count};
}

bool router_links_find(const struct router_core *core, const char *relay, const char *decode,
                       struct router_link_info *out)
{
    struct link_key key = key_of(relay, decode);
    const struct router_link *link = ts_map_get(core->links, &key, sizeof key);
    const struct member *from = member_find(core, TS_ROLE_RELAY, relay);
    const struct member *to = member_find(core, TS_ROLE_WORKER, decode);
    *out = (struct router_link_info){.bytes_per_s = 0};
    if (link)
        *out = (struct router_link_info){.bytes_per_s = link->item.goodput_bytes_per_s,
                                         .at_least = link->item.at_least,
                                         .expected_bytes_per_s = link->item.expected_bytes_per_s,
                                         .rtt = link->item.rtt_ns,
                                         .age = age_of(core, link),
                                         .slow = link->item.slow};
    else if (from && to)
        out->expected_bytes_per_s = links_expected(core, from, to);
    return link || out->expected_bytes_per_s > 0;
}
