#include "services/cloud/cloud_impl.h"

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"

struct payload *payload_new(size_t size, uint64_t bytes)
{
    struct payload *p = ts_xcalloc(1, sizeof *p + size);
    p->refs = 1;
    p->bytes = bytes;
    p->size = size;
    p->data = p->own;
    p->place = UINT32_MAX;
    return p;
}

const uint32_t *cloud_zeros(struct cloud *cloud)
{
    if (!cloud->zeros)
        cloud->zeros = ts_xcalloc(TS_PROMPT_TOKENS_MAX, sizeof *cloud->zeros);
    return cloud->zeros;
}

struct payload *payload_zeros(struct cloud *cloud, size_t size)
{
    struct payload *p = payload_new(0, size);
    TS_ASSERT(size <= TS_PROMPT_TOKENS_MAX * sizeof *cloud->zeros);
    cloud_zeros(cloud);
    p->size = size;
    p->data = (uint8_t *)(void *)cloud->zeros;
    return p;
}

struct payload *payload_ref(struct payload *payload)
{
    payload->refs++;
    return payload;
}

void payload_unref(struct payload *payload)
{
    if (payload && --payload->refs == 0)
        ts_free(payload);
}

struct ts_bulk bulk_put(struct bulk_table *table, struct payload *payload)
{
    if (table->free == 0) {
        void *slots = table->slots;
        ts_array_reserve(&slots, &table->capacity, table->count + 1, sizeof *table->slots);
        table->slots = slots;
        table->slots[table->count++] = (struct bulk_slot){.generation = 0};
        table->free = (uint32_t)table->count;
    }
    uint32_t number = table->free;
    struct bulk_slot *slot = &table->slots[number - 1];
    table->free = slot->next_free;
    slot->payload = payload;
    slot->generation++;
    table->held++;
    return (struct ts_bulk){.slot = number, .generation = slot->generation, .bytes = payload->bytes};
}

struct payload *bulk_payload(const struct bulk_table *table, struct ts_bulk bulk)
{
    if (bulk.slot == 0 || bulk.slot > table->count)
        return NULL;
    const struct bulk_slot *slot = &table->slots[bulk.slot - 1];
    return slot->generation == bulk.generation ? slot->payload : NULL;
}

bool bulk_drop(struct bulk_table *table, struct ts_bulk bulk)
{
    struct payload *payload = bulk_payload(table, bulk);
    if (!payload)
        return false;
    struct bulk_slot *slot = &table->slots[bulk.slot - 1];
    slot->payload = NULL;
    slot->next_free = table->free;
    table->free = bulk.slot;
    table->held--;
    payload_unref(payload);
    return true;
}

void bulk_fini(struct bulk_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        payload_unref(table->slots[i].payload);
    ts_free(table->slots);
    *table = (struct bulk_table){.slots = NULL};
}
