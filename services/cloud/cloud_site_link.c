/* The links of a site: what they carried, and changes of what they can. */
#include "common/base/ts_mem.h"
#include "services/cloud/cloud_site_impl.h"

struct link_change {
    struct link_change *next;
    struct cloud *cloud;
    uint32_t from, to;
    double factor;
};

struct site_links {
    struct link_change *changes;  /* all there ever were */
    struct cloud_site_link *used; /* as of the last count */
    size_t count, capacity;
};

struct site_links *site_links_new(void)
{
    return ts_xcalloc(1, sizeof(struct site_links));
}

void site_links_destroy(struct site_links **links)
{
    if (!*links)
        return;
    for (struct link_change *c = (*links)->changes, *next; c; c = next) {
        next = c->next;
        ts_free(c);
    }
    ts_free((*links)->used);
    ts_free(*links);
    *links = NULL;
}

static void change_happens(void *context)
{
    const struct link_change *c = context;
    cloud_link_factor(c->cloud, c->from, c->to, c->factor);
}

void cloud_site_link(struct cloud_site *site, ts_time at, uint32_t from, uint32_t to, double factor)
{
    struct link_change *c = ts_xcalloc(1, sizeof *c);
    *c = (struct link_change){site->links->changes, site->cloud, from, to, factor};
    site->links->changes = c;
    cloud_at(site->cloud, at + SITE_START, change_happens, c);
}

size_t cloud_site_link_count(const struct cloud_site *site)
{
    struct site_links *links = site->links;
    uint32_t nodes = site->settings.cluster->node_count;
    links->count = 0;
    for (uint32_t from = 0; from < nodes; from++) {
        for (uint32_t to = 0; to < nodes; to++) {
            struct cloud_link_use use =
                from == to ? cloud_card_use(site->cloud, from, true) : cloud_link_use(site->cloud, from, to);
            void *used = links->used;
            if (!(use.bytes > 0))
                continue;
            ts_array_reserve(&used, &links->capacity, links->count + 1, sizeof *links->used);
            links->used = used;
            links->used[links->count++] =
                (struct cloud_site_link){from, to, use.bytes, use.busy_s, use.bytes_per_s};
        }
    }
    return links->count;
}

struct cloud_site_link cloud_site_link_at(const struct cloud_site *site, size_t i)
{
    return site->links->used[i];
}
