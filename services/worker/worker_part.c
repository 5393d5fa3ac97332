/*
 * What one relay brings of a transfer: the layers and heads that its KvOpen names. One brings all that this
 * worker holds, or several do together, each on its own session, with numbers, credit and digests of its own.
 */
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/core/ts_reshard.h"
#include "services/worker/worker_impl.h"

struct part *part_of(const struct task *t, const struct kv_peer *peer)
{
    for (uint32_t i = 0; i < t->part_count; i++) {
        if (t->parts[i].sender == peer)
            return &t->parts[i];
    }
    return NULL;
}

struct part *part_of_relay(const struct task *t, uint64_t incarnation)
{
    for (uint32_t i = 0; i < t->part_count; i++) {
        if (t->parts[i].relay == incarnation)
            return &t->parts[i];
    }
    return NULL;
}

static struct ts_shard_rect rect_of(const struct ts_msg_kv_open *o)
{
    return (struct ts_shard_rect){o->layer_begin, o->layer_end, o->head_begin, o->head_end};
}

static uint32_t senders_of(const struct ts_msg_kv_open *m)
{
    return m->senders ? m->senders : 1;
}

static bool same_chain(const struct task *t, struct ts_u64s chain)
{
    return !t->chain ||
           (chain.count == t->prompt_count / TS_KV_BLOCK_TOKENS &&
            (chain.count == 0 || memcmp(chain.data, t->chain, chain.count * sizeof *t->chain) == 0));
}

const char *part_fault(const struct worker_core *core, const struct task *t, const struct ts_msg_kv_open *m)
{
    const struct ts_msg_pool *kv = &core->settings.pool;
    const struct ts_shard_rect own = {kv->layer_begin, kv->layer_end, kv->head_begin, kv->head_end};
    struct ts_shard_rect rects[TS_KV_PARTS_MAX];
    uint32_t senders = senders_of(m), count = t->part_count;
    if (senders > TS_KV_PARTS_MAX)
        return "more senders than a worker takes";
    if (count > 0 && (senders != t->senders || m->token_count != t->prompt_count || !same_chain(t, m->chain)))
        return "the senders do not bring the same prompt";
    if (count == senders)
        return "another sender than those that bring the transfer";
    for (uint32_t i = 0; i < count; i++)
        rects[i] = rect_of(&t->parts[i].open);
    rects[count++] = rect_of(m);
    if (count < senders ? ts_rects_apart(rects, count, own) : ts_rects_tile(rects, count, own))
        return NULL;
    return "the transfer's layers or heads are not those of this worker";
}

void part_add(struct task *t, struct kv_peer *peer, const struct ts_msg_kv_open *m)
{
    if (!t->parts) {
        t->senders = senders_of(m);
        t->parts = ts_xcalloc(t->senders, sizeof *t->parts);
    }
    struct part *p = &t->parts[t->part_count++];
    *p = (struct part){.sender = peer, .relay = peer->session.remote, .relay_name = peer->name, .open = *m};
    p->open.codec = t->codec;
    p->open.chain = (struct ts_u64s){.count = 0};
}

void part_free(struct task *t)
{
    for (uint32_t i = 0; i < t->part_count; i++) {
        ts_free(t->parts[i].digests);
        ts_free(t->parts[i].chunk_seen);
    }
    ts_free(t->parts);
}

static uint32_t heads_of(const struct part *p)
{
    return p->open.head_end - p->open.head_begin;
}

uint32_t part_rows(const struct part *p)
{
    return (p->open.layer_end - p->open.layer_begin) * heads_of(p);
}

void part_granted(const struct task *t, struct part *p)
{
    p->digests = ts_xcalloc(part_rows(p), sizeof *p->digests);
    p->chunk_limit =
        (uint64_t)part_rows(p) * ts_kv_blocks_for(t->prompt_count); /* at least one tile pair in each */
    p->chunk_seen = ts_xcalloc(p->chunk_limit / 8 + 1, 1);
}

bool part_chunk_fits(const struct part *p, const struct ts_msg_kv_chunk *m)
{
    const struct ts_msg_kv_open *o = &p->open;
    uint64_t end = (uint64_t)m->token_begin + m->token_count;
    if (m->layer < o->layer_begin || m->layer >= o->layer_end || m->head_begin < o->head_begin ||
        m->head_begin >= o->head_end || m->head_count == 0 || m->head_count > o->head_end - m->head_begin)
        return false;
    uint32_t span = ts_codec_span(&o->codec);
    return m->token_begin % span == 0 && m->token_count > 0 && end <= o->token_count &&
           (end % span == 0 || end == o->token_count) && m->number < p->chunk_limit;
}

void part_restored(const struct task *t, const struct scatter *job, struct ts_u64s digests)
{
    struct part *p = job->part;
    uint64_t *row = p->digests + (size_t)(job->layer - p->open.layer_begin) * heads_of(p) +
                    (job->head_begin - p->open.head_begin);
    for (uint32_t h = 0; h < job->head_count && h < digests.count; h++)
        row[h] ^= digests.data[h];
    p->chunks_scattered++;
    uint32_t there = t->present * TS_KV_BLOCK_TOKENS, end = job->token_begin + job->token_count;
    uint32_t begin = job->token_begin < there ? there : job->token_begin;
    p->tiles_scattered += end > begin ? (uint64_t)job->head_count * ts_kv_blocks_for(end - begin) : 0;
}

bool part_all_came(const struct task *t)
{
    if (t->part_count == 0 || t->part_count < t->senders || !t->committed || t->scatters > 0)
        return false;
    for (uint32_t i = 0; i < t->part_count; i++) {
        const struct part *p = &t->parts[i];
        if (!p->ended || p->chunks_scattered < p->end.chunks)
            return false;
    }
    return true;
}

bool part_agrees(const struct task *t, const struct part *p)
{
    uint64_t tiles = (uint64_t)part_rows(p) * (ts_kv_blocks_for(t->prompt_count) - t->present);
    return p->tiles_scattered == tiles && p->end.digests.count == part_rows(p) &&
           memcmp(p->digests, p->end.digests.data, part_rows(p) * sizeof *p->digests) == 0;
}
