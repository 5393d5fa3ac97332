#include "common/core/ts_event.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/core/ts_schema_table.h"

#define LOG_BYTES_MAX      4096
#define BATCH_ROWS_MAX     TS_LIST_MAX
#define BLOCKS_MAX         (1u << 20)
#define ENDPOINT_BYTES_MAX TS_TEXT_BYTES_MAX

/* Of kinds that carry nothing: they still need a case of the one-of to be recorded. */
static const struct ts_schema nothing_schema = {.name = "Nothing"};

/* --- events ------------------------------------------------------------------------------------------ */

static const struct ts_field message_fields[] = {
    TS_F_ENUM(event_message, channel, TS_CHANNEL_LAST),    TS_F(event_message, peer),
    TS_F_MSG(event_message, envelope, ts_envelope_schema), TS_F_MSG(event_message, msg, ts_msg_schema),
    TS_F_MSG(event_message, bulk, ts_bulk_schema),         TS_F(event_message, wire_bytes),
};
static const struct ts_schema message_schema = TS_SCHEMA(event_message, "EventMessage", message_fields);

static const struct ts_field send_failed_fields[] = {
    TS_F_ENUM(event_send_failed, channel, TS_CHANNEL_LAST),
    TS_F(event_send_failed, peer),
};
static const struct ts_schema send_failed_schema =
    TS_SCHEMA(event_send_failed, "EventSendFailed", send_failed_fields);

static const struct ts_field tokenised_fields[] = {
    TS_F(event_tokenised, job),
    TS_F_ENUM(event_tokenised, reason, TS_REASON_LAST),
    TS_F_TEXT(event_tokenised, text),
    TS_F_SPAN(event_tokenised, ids, TS_PROMPT_TOKENS_MAX),
};
static const struct ts_schema tokenised_schema =
    TS_SCHEMA(event_tokenised, "EventTokenised", tokenised_fields);

static const struct ts_field layer_done_fields[] = {TS_F(event_layer_done, batch),
                                                    TS_F(event_layer_done, layer)};
static const struct ts_schema layer_done_schema =
    TS_SCHEMA(event_layer_done, "EventLayerDone", layer_done_fields);

static const struct ts_field batch_sample_fields[] = {
    TS_F(batch_sample, tag),
    TS_F_MSG(batch_sample, item, ts_token_item_schema),
    TS_F_ENUM(batch_sample, finish, TS_FINISH_LAST),
    TS_F(batch_sample, complete),
};
static const struct ts_schema batch_sample_schema =
    TS_SCHEMA(batch_sample, "BatchSample", batch_sample_fields);

static const struct ts_field batch_done_fields[] = {
    TS_F(event_batch_done, batch),
    TS_F_ENUM(event_batch_done, reason, TS_REASON_LAST),
    TS_F_TEXT(event_batch_done, text),
    TS_F_LIST(event_batch_done, samples, BATCH_ROWS_MAX, batch_sample_schema),
    TS_F(event_batch_done, compute_ns),
};
static const struct ts_schema batch_done_schema =
    TS_SCHEMA(event_batch_done, "EventBatchDone", batch_done_fields);

static const struct ts_field encoded_fields[] = {
    TS_F(event_encoded, job),
    TS_F_ENUM(event_encoded, reason, TS_REASON_LAST),
    TS_F_TEXT(event_encoded, text),
    TS_F_MSG(event_encoded, bulk, ts_bulk_schema),
    TS_F(event_encoded, declared_bytes),
    TS_F(event_encoded, crc32c),
    TS_F(event_encoded, escapes),
    TS_F_SPAN(event_encoded, digests, TS_LIST_MAX),
};
static const struct ts_schema encoded_schema = TS_SCHEMA(event_encoded, "EventEncoded", encoded_fields);

static const struct ts_field scattered_fields[] = {
    TS_F(event_scattered, job),
    TS_F_ENUM(event_scattered, reason, TS_REASON_LAST),
    TS_F_SPAN(event_scattered, digests, TS_LIST_MAX),
};
static const struct ts_schema scattered_schema =
    TS_SCHEMA(event_scattered, "EventScattered", scattered_fields);

static const struct ts_field pool_mapped_fields[] = {
    TS_F(event_pool_mapped, pool),
    TS_F_ENUM(event_pool_mapped, reason, TS_REASON_LAST),
    TS_F_TEXT(event_pool_mapped, text),
};
static const struct ts_schema pool_mapped_schema =
    TS_SCHEMA(event_pool_mapped, "EventPoolMapped", pool_mapped_fields);

#define NOTHING(name, kind_value)                                                                            \
    {                                                                                                        \
        name, TS_FIELD_MSG, 0, 0, &nothing_schema, (kind_value)                                              \
    }

static const struct ts_field event_fields[] = {
    NOTHING("start", TS_EVENT_START),
    NOTHING("tick", TS_EVENT_TICK),
    TS_F_CASE(event, message, TS_EVENT_MESSAGE, message_schema),
    TS_F_CASE(event, send_failed, TS_EVENT_SEND_FAILED, send_failed_schema),
    TS_F_CASE(event, tokenised, TS_EVENT_TOKENISED, tokenised_schema),
    TS_F_CASE(event, layer_done, TS_EVENT_LAYER_DONE, layer_done_schema),
    TS_F_CASE(event, batch_done, TS_EVENT_BATCH_DONE, batch_done_schema),
    TS_F_CASE(event, encoded, TS_EVENT_ENCODED, encoded_schema),
    TS_F_CASE(event, scattered, TS_EVENT_SCATTERED, scattered_schema),
    TS_F_CASE(event, pool_mapped, TS_EVENT_POOL_MAPPED, pool_mapped_schema),
    NOTHING("drain", TS_EVENT_DRAIN),
};
_Static_assert(TS_ARRAY_SIZE(event_fields) == TS_EVENT_LAST, "an event kind without a case");

const struct ts_schema ts_event_schema = {
    .name = "Event",
    .size = sizeof(struct ts_event),
    .one_of = true,
    .field_count = TS_ARRAY_SIZE(event_fields),
    .fields = event_fields,
};

/* --- actions ----------------------------------------------------------------------------------------- */

static const struct ts_field send_fields[] = {
    TS_F_ENUM(action_send, channel, TS_CHANNEL_LAST),    TS_F(action_send, peer),
    TS_F_MSG(action_send, envelope, ts_envelope_schema), TS_F_MSG(action_send, msg, ts_msg_schema),
    TS_F_MSG(action_send, bulk, ts_bulk_schema),         TS_F(action_send, filler_bytes),
};
static const struct ts_schema send_schema = TS_SCHEMA(action_send, "ActionSend", send_fields);

static const struct ts_field connect_fields[] = {
    TS_F_ENUM(action_connect, channel, TS_CHANNEL_LAST),
    TS_F(action_connect, peer),
    TS_F_SPAN(action_connect, endpoint, ENDPOINT_BYTES_MAX),
};
static const struct ts_schema connect_schema = TS_SCHEMA(action_connect, "ActionConnect", connect_fields);

static const struct ts_field disconnect_fields[] = {
    TS_F_ENUM(action_disconnect, channel, TS_CHANNEL_LAST),
    TS_F(action_disconnect, peer),
};
static const struct ts_schema disconnect_schema =
    TS_SCHEMA(action_disconnect, "ActionDisconnect", disconnect_fields);

static const struct ts_field drop_fields[] = {TS_F_MSG(action_drop, bulk, ts_bulk_schema)};
static const struct ts_schema drop_schema = TS_SCHEMA(action_drop, "ActionDrop", drop_fields);

static const struct ts_field tokenise_fields[] = {
    TS_F(action_tokenise, job),
    TS_F_ENUM(action_tokenise, prompt_kind, TS_PROMPT_LAST),
    TS_F_MSG(action_tokenise, bulk, ts_bulk_schema),
};
static const struct ts_schema tokenise_schema = TS_SCHEMA(action_tokenise, "ActionTokenise", tokenise_fields);

static const struct ts_field text_open_fields[] = {
    TS_F(action_text_open, tag),
    TS_F_MSG(action_text_open, sampling, ts_sampling_schema),
    TS_F_LIST(action_text_open, stops, TS_STOPS_MAX, ts_stop_schema),
    TS_F_SPAN(action_text_open, produced, TS_PROMPT_TOKENS_MAX),
};
static const struct ts_schema text_open_schema =
    TS_SCHEMA(action_text_open, "ActionTextOpen", text_open_fields);

static const struct ts_field text_close_fields[] = {TS_F(action_text_close, tag)};
static const struct ts_schema text_close_schema =
    TS_SCHEMA(action_text_close, "ActionTextClose", text_close_fields);

static const struct ts_field batch_row_fields[] = {
    TS_F(batch_row, tag),
    TS_F(batch_row, position),
    TS_F_SPAN(batch_row, tokens, TS_PROMPT_TOKENS_MAX),
    TS_F_SPAN(batch_row, blocks, BLOCKS_MAX),
    TS_F(batch_row, sample),
    TS_F(batch_row, sample_index),
    TS_F_MSG(batch_row, sampling, ts_sampling_schema),
    TS_F_SPAN(batch_row, prompt_ids, TS_PROMPT_TOKENS_MAX),
    TS_F_SPAN(batch_row, output_ids, TS_PROMPT_TOKENS_MAX),
};
static const struct ts_schema batch_row_schema = TS_SCHEMA(batch_row, "BatchRow", batch_row_fields);

static const struct ts_field batch_fields[] = {
    TS_F(action_batch, batch),
    TS_F_LIST(action_batch, rows, BATCH_ROWS_MAX, batch_row_schema),
    TS_F(action_batch, report_layers),
};
static const struct ts_schema batch_schema = TS_SCHEMA(action_batch, "ActionBatch", batch_fields);

static const struct ts_field encode_fields[] = {
    TS_F(action_encode, job),
    TS_F(action_encode, pool),
    TS_F_MSG(action_encode, codec, ts_codec_schema),
    TS_F_SPAN(action_encode, blocks, BLOCKS_MAX),
    TS_F_SPAN(action_encode, generations, BLOCKS_MAX),
    TS_F(action_encode, layer),
    TS_F(action_encode, head_begin),
    TS_F(action_encode, head_count),
    TS_F(action_encode, token_begin),
    TS_F(action_encode, token_count),
};
static const struct ts_schema encode_schema = TS_SCHEMA(action_encode, "ActionEncode", encode_fields);

static const struct ts_field scatter_fields[] = {
    TS_F(action_scatter, job),
    TS_F_MSG(action_scatter, bulk, ts_bulk_schema),
    TS_F(action_scatter, declared_bytes),
    TS_F_MSG(action_scatter, codec, ts_codec_schema),
    TS_F_SPAN(action_scatter, blocks, BLOCKS_MAX),
    TS_F(action_scatter, layer),
    TS_F(action_scatter, head_begin),
    TS_F(action_scatter, head_count),
    TS_F(action_scatter, token_begin),
    TS_F(action_scatter, token_count),
    TS_F(action_scatter, crc32c),
};
static const struct ts_schema scatter_schema = TS_SCHEMA(action_scatter, "ActionScatter", scatter_fields);

static const struct ts_field map_pool_fields[] = {
    TS_F(action_map_pool, pool),
    TS_F_MSG(action_map_pool, layout, ts_msg_pool_schema),
};
static const struct ts_schema map_pool_schema = TS_SCHEMA(action_map_pool, "ActionMapPool", map_pool_fields);

static const struct ts_field unmap_pool_fields[] = {TS_F(action_unmap_pool, pool)};
static const struct ts_schema unmap_pool_schema =
    TS_SCHEMA(action_unmap_pool, "ActionUnmapPool", unmap_pool_fields);

static const struct ts_field trace_fields[] = {TS_F_MSG(action_trace, trace, ts_trace_schema)};
static const struct ts_schema trace_schema = TS_SCHEMA(action_trace, "ActionTrace", trace_fields);

static const struct ts_field log_fields[] = {
    TS_F(action_log, level),
    TS_F_SPAN(action_log, text, LOG_BYTES_MAX),
};
static const struct ts_schema log_schema = TS_SCHEMA(action_log, "ActionLog", log_fields);

static const struct ts_field free_blocks_fields[] = {TS_F_SPAN(action_free_blocks, blocks, BLOCKS_MAX)};
static const struct ts_schema free_blocks_schema =
    TS_SCHEMA(action_free_blocks, "ActionFreeBlocks", free_blocks_fields);

static const struct ts_field action_fields[] = {
    TS_F_CASE(action, send, TS_ACTION_SEND, send_schema),
    TS_F_CASE(action, connect, TS_ACTION_CONNECT, connect_schema),
    TS_F_CASE(action, disconnect, TS_ACTION_DISCONNECT, disconnect_schema),
    TS_F_CASE(action, drop, TS_ACTION_DROP, drop_schema),
    TS_F_CASE(action, tokenise, TS_ACTION_TOKENISE, tokenise_schema),
    TS_F_CASE(action, text_open, TS_ACTION_TEXT_OPEN, text_open_schema),
    TS_F_CASE(action, text_close, TS_ACTION_TEXT_CLOSE, text_close_schema),
    TS_F_CASE(action, batch, TS_ACTION_BATCH, batch_schema),
    TS_F_CASE(action, encode, TS_ACTION_ENCODE, encode_schema),
    TS_F_CASE(action, scatter, TS_ACTION_SCATTER, scatter_schema),
    TS_F_CASE(action, map_pool, TS_ACTION_MAP_POOL, map_pool_schema),
    TS_F_CASE(action, unmap_pool, TS_ACTION_UNMAP_POOL, unmap_pool_schema),
    TS_F_CASE(action, trace, TS_ACTION_TRACE, trace_schema),
    TS_F_CASE(action, log, TS_ACTION_LOG, log_schema),
    NOTHING("stop", TS_ACTION_STOP),
    TS_F_CASE(action, free_blocks, TS_ACTION_FREE_BLOCKS, free_blocks_schema),
};
_Static_assert(TS_ARRAY_SIZE(action_fields) == TS_ACTION_LAST, "an action kind without a case");

const struct ts_schema ts_action_schema = {
    .name = "Action",
    .size = sizeof(struct ts_action),
    .one_of = true,
    .field_count = TS_ARRAY_SIZE(action_fields),
    .fields = action_fields,
};

/* --- the container ----------------------------------------------------------------------------------- */

void ts_actions_init(struct ts_actions *actions)
{
    *actions = (struct ts_actions){.items = NULL};
    ts_arena_init(&actions->arena);
}

void ts_actions_fini(struct ts_actions *actions)
{
    ts_free(actions->items);
    ts_arena_fini(&actions->arena);
    *actions = (struct ts_actions){.items = NULL};
}

void ts_actions_clear(struct ts_actions *actions)
{
    actions->count = 0;
    ts_arena_reset(&actions->arena);
}

struct ts_action *ts_actions_add(struct ts_actions *actions, enum ts_action_kind kind)
{
    void *items = actions->items;
    ts_array_reserve(&items, &actions->capacity, actions->count + 1, sizeof *actions->items);
    actions->items = items;
    struct ts_action *action = &actions->items[actions->count++];
    memset(action, 0, sizeof *action);
    action->kind = kind;
    return action;
}

struct ts_action_send *ts_actions_send(struct ts_actions *actions, enum ts_channel channel, uint64_t peer,
                                       enum ts_msg_kind kind)
{
    TS_ASSERT(ts_msg_allowed(channel, kind));
    struct ts_action_send *send = &ts_actions_add(actions, TS_ACTION_SEND)->send;
    send->channel = channel;
    send->peer = peer;
    send->msg.kind = kind;
    return send;
}

void ts_actions_drop(struct ts_actions *actions, struct ts_bulk bulk)
{
    if (bulk.slot != 0)
        ts_actions_add(actions, TS_ACTION_DROP)->drop.bulk = bulk;
}

/* What is left of cut text when the last character, which may be incomplete, goes. */
static int whole_characters(const char *text, int length)
{
    while (length > 0 && (text[length - 1] & 0xc0) == 0x80)
        length--;
    return length > 0 ? length - 1 : 0;
}

void ts_actions_log(struct ts_actions *actions, uint32_t level, const char *format, ...)
{
    char text[LOG_BYTES_MAX];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0)
        length = 0;
    if ((size_t)length >= sizeof text)
        length = whole_characters(text, sizeof text - 1);
    struct ts_action_log *log = &ts_actions_add(actions, TS_ACTION_LOG)->log;
    log->level = level;
    log->text = (struct ts_str){ts_arena_copy(&actions->arena, text, (size_t)length), (uint32_t)length};
}
