/* Copy, comparison, checks and printing over the tables, and that the tables cover their structs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/ts_assert.h"
#include "common/core/ts_event.h"

/* --- tables and structs -------------------------------------------------------------------------------- */

static uint32_t field_align(const struct ts_field *field);
static void check_layout(const struct ts_schema *schema);

static uint32_t schema_align(const struct ts_schema *schema)
{
    uint32_t most = schema->one_of ? 4 : 1;
    for (uint32_t i = 0; i < schema->field_count; i++) {
        uint32_t align = field_align(&schema->fields[i]);
        most = align > most ? align : most;
    }
    return most;
}

static uint32_t field_align(const struct ts_field *field)
{
    switch (field->type) {
    case TS_FIELD_BOOL:
        return 1;
    case TS_FIELD_U32:
    case TS_FIELD_F32:
    case TS_FIELD_ENUM:
        return 4;
    case TS_FIELD_MSG:
        return schema_align(field->sub);
    default:
        return 8;
    }
}

static uint32_t field_size(const struct ts_field *field)
{
    switch (field->type) {
    case TS_FIELD_BOOL:
        return 1;
    case TS_FIELD_U32:
    case TS_FIELD_F32:
    case TS_FIELD_ENUM:
        return 4;
    case TS_FIELD_U64:
    case TS_FIELD_I64:
    case TS_FIELD_F64:
        return 8;
    case TS_FIELD_MSG:
        return field->sub->size;
    default:
        return sizeof(struct ts_list);
    }
}

static uint32_t align_up(uint32_t value, uint32_t align)
{
    return (value + align - 1) / align * align;
}

/* Lays the fields out as the compiler does: a forgotten member or a wrong sub-table leaves a hole. */
static void check_layout(const struct ts_schema *schema)
{
    uint32_t begin = schema->one_of ? align_up(4, schema_align(schema)) : 0, end = begin;
    for (uint32_t i = 0; i < schema->field_count; i++) {
        const struct ts_field *field = &schema->fields[i];
        uint32_t size = field_size(field);
        if (field->sub)
            check_layout(field->sub);
        if (size == 0)
            continue;
        uint32_t at = schema->one_of ? begin : align_up(end, field_align(field));
        if (field->offset != at)
            fail_msg("%s.%s: at %u, expected %u", schema->name, field->name, field->offset, at);
        end = at + size > end ? at + size : end;
    }
    if (align_up(end, schema_align(schema)) != schema->size)
        fail_msg("%s: fields end at %u of %u", schema->name, end, schema->size);
}

static void test_tables_cover_structs(void **state)
{
    (void)state;
    check_layout(&ts_msg_schema);
    check_layout(&ts_envelope_schema);
    check_layout(&ts_event_schema);
    check_layout(&ts_action_schema);
}

/* --- copy and comparison ------------------------------------------------------------------------------- */

struct sample {
    char request_id[4], text[4];
    struct ts_top tops[2];
    struct ts_token_item items[2];
    struct ts_msg msg;
};

static void sample_fill(struct sample *s)
{
    memset(s, 0, sizeof *s);
    memcpy(s->request_id, "r-1", 4);
    memcpy(s->text, "abc", 4);
    s->tops[0] = (struct ts_top){.token = 5, .logprob = -0.5f};
    s->tops[1] = (struct ts_top){.token = 6, .logprob = -2.0f};
    s->items[0] =
        (struct ts_token_item){.token = 5, .text = {s->text, 3}, .logprob = -0.5f, .top = {s->tops, 2}};
    s->items[1] = (struct ts_token_item){.token = 9};
    s->msg.kind = TS_MSG_TOKENS;
    s->msg.tokens = (struct ts_msg_tokens){
        .request_id = {s->request_id, 3}, .epoch = 1, .first_index = 4, .items = {s->items, 2}};
}

static void test_copy_is_deep(void **state)
{
    (void)state;
    struct sample *one = malloc(sizeof *one), *two = malloc(sizeof *two);
    struct ts_arena arena;
    struct ts_msg copy;
    ts_arena_init(&arena);
    sample_fill(one);
    sample_fill(two);
    ts_schema_copy(&ts_msg_schema, &copy, &one->msg, &arena);
    memset(one, 0xee, sizeof *one);
    free(one);
    assert_true(ts_schema_equal(&ts_msg_schema, &copy, &two->msg));
    assert_ptr_not_equal(copy.tokens.items.data, two->items);
    assert_null(copy.tokens.items.data[1].text.data);
    ts_arena_fini(&arena);
    free(two);
}

static void test_equal_sees_each_difference(void **state)
{
    (void)state;
    struct sample a, b;
    sample_fill(&a);
    sample_fill(&b);
    assert_true(ts_schema_equal(&ts_msg_schema, &a.msg, &b.msg));
#define DIFFERS(change)                                                                                      \
    do {                                                                                                     \
        sample_fill(&b);                                                                                     \
        change;                                                                                              \
        assert_false(ts_schema_equal(&ts_msg_schema, &a.msg, &b.msg));                                       \
        assert_false(ts_schema_equal(&ts_msg_schema, &b.msg, &a.msg));                                       \
    } while (0)
    DIFFERS(b.msg.kind = TS_MSG_OUTPUT);
    DIFFERS(b.msg.tokens.epoch++);
    DIFFERS(b.msg.tokens.first_index++);
    DIFFERS(b.request_id[2] = '2');
    DIFFERS(b.msg.tokens.request_id.count--);
    DIFFERS(b.msg.tokens.items.count--);
    DIFFERS(b.items[1].token++);
    DIFFERS(b.items[0].logprob = -0.25f);
    DIFFERS(b.items[0].top.count--);
    DIFFERS(b.tops[1].token++);
    DIFFERS(b.text[0] = 'x');
#undef DIFFERS
}

static void test_equal_compares_floats_by_bits(void **state)
{
    (void)state;
    struct ts_sampling a = {.temperature = 0.0f}, b = {.temperature = -0.0f};
    assert_false(ts_schema_equal(&ts_sampling_schema, &a, &b));
    a.temperature = b.temperature = NAN;
    assert_true(ts_schema_equal(&ts_sampling_schema, &a, &b));
}

static void test_equal_ignores_other_members_of_the_union(void **state)
{
    (void)state;
    struct ts_event a, b;
    memset(&a, 0x11, sizeof a);
    memset(&b, 0x22, sizeof b);
    a.kind = b.kind = TS_EVENT_TICK;
    assert_true(ts_schema_equal(&ts_event_schema, &a, &b));
    a.kind = b.kind = TS_EVENT_LAYER_DONE;
    a.layer_done = b.layer_done = (struct ts_event_layer_done){.batch = 1, .layer = 2};
    assert_true(ts_schema_equal(&ts_event_schema, &a, &b));
    b.kind = TS_EVENT_DRAIN;
    assert_false(ts_schema_equal(&ts_event_schema, &a, &b));
}

/* --- checks -------------------------------------------------------------------------------------------- */

static void test_check_names_the_field(void **state)
{
    (void)state;
    struct ts_error err = {0};
    struct ts_msg msg = {.kind = TS_MSG_RESET, .reset = {.reason = TS_REASON_LAST}};
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, &err), TS_OK);
    msg.reset.reason = (enum ts_reason)(TS_REASON_LAST + 1);
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, &err), TS_EINVAL);
    assert_non_null(strstr(err.text, "Reset.reason"));
}

static void test_check_kind(void **state)
{
    (void)state;
    struct ts_msg msg = {.kind = TS_MSG_NONE};
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_OK); /* nothing in it */
    msg.kind = (enum ts_msg_kind)16;
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_EINVAL);
}

static void test_check_bounds(void **state)
{
    (void)state;
    static char id[TS_ID_BYTES_MAX + 1];
    static struct ts_stop stops[TS_STOPS_MAX + 1];
    memset(id, 'x', sizeof id);
    struct ts_msg msg = {.kind = TS_MSG_GENERATE,
                         .generate = {.client = {id, TS_ID_BYTES_MAX}, .stops = {stops, TS_STOPS_MAX}}};
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_OK);
    msg.generate.client.count++;
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_EINVAL);
    msg.generate.client.count--;
    msg.generate.stops.count++;
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_EINVAL);
    msg.generate.stops.count = 1;
    stops[0].text = (struct ts_str){"\xff", 1}; /* inside a list */
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_EINVAL);
    stops[0].text = (struct ts_str){NULL, 1};
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_EINVAL);
}

static void test_check_floats(void **state)
{
    (void)state;
    struct ts_sampling sampling = ts_sampling_defaults();
    assert_int_equal(ts_schema_check(&ts_sampling_schema, &sampling, NULL), TS_OK);
    sampling.top_p = NAN;
    assert_int_equal(ts_schema_check(&ts_sampling_schema, &sampling, NULL), TS_EINVAL);
    sampling.top_p = INFINITY;
    assert_int_equal(ts_schema_check(&ts_sampling_schema, &sampling, NULL), TS_EINVAL);
    struct ts_token_item item = {.logprob = -INFINITY}; /* a masked token's */
    assert_int_equal(ts_schema_check(&ts_token_item_schema, &item, NULL), TS_OK);
    struct ts_msg msg = {.kind = TS_MSG_PLAN, .plan = {.attainment = -INFINITY}};
    assert_int_equal(ts_schema_check(&ts_msg_schema, &msg, NULL), TS_EINVAL);
}

static void test_check_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t count;
        bool valid;
    } cases[] = {
        {"", 0, true},
        {"a\0b", 3, true},
        {"\x7f", 1, true},
        {"\xc2\x80", 2, true},
        {"\xdf\xbf", 2, true},
        {"\xe0\xa0\x80", 3, true},
        {"\xed\x9f\xbf", 3, true},
        {"\xee\x80\x80", 3, true},
        {"\xef\xbf\xbf", 3, true},
        {"\xf0\x90\x80\x80", 4, true},
        {"\xf4\x8f\xbf\xbf", 4, true},
        {"\x80", 1, false},     /* a lone continuation */
        {"\xc0\x80", 2, false}, /* overlong */
        {"\xc1\xbf", 2, false},
        {"\xe0\x9f\xbf", 3, false},
        {"\xf0\x8f\xbf\xbf", 4, false},
        {"\xed\xa0\x80", 3, false},     /* a surrogate */
        {"\xf4\x90\x80\x80", 4, false}, /* above U+10FFFF */
        {"\xf5\x80\x80\x80", 4, false},
        {"\xc2", 1, false}, /* cut */
        {"\xe2\x82", 2, false},
        {"a\xf0\x9f\x98", 4, false},
        {"\xe2\x28\xa1", 3, false},
        {"\xe2\x82\x28", 3, false},
    };
    for (size_t i = 0; i < TS_ARRAY_SIZE(cases); i++) {
        struct ts_stop stop = {.text = {cases[i].text, cases[i].count}};
        if ((ts_schema_check(&ts_stop_schema, &stop, NULL) == TS_OK) != cases[i].valid)
            fail_msg("case %zu", i);
    }
}

/* --- printing ------------------------------------------------------------------------------------------ */

static void test_print(void **state)
{
    (void)state;
    char line[600];
    struct sample s;
    sample_fill(&s);
    const char *expected =
        "tokens={request_id=\"r-1\" epoch=1 first_index=4 items=[{token=5 text=\"abc\" logprob=-0.5 "
        "top=[{token=5 logprob=-0.5} {token=6 logprob=-2}]} {token=9 text=\"\" logprob=0 top=[]}]}";
    assert_int_equal(ts_schema_print(&ts_msg_schema, &s.msg, line, sizeof line), strlen(expected));
    assert_string_equal(line, expected);
}

static void test_print_escapes_and_cuts_lists(void **state)
{
    (void)state;
    static const uint32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    char line[200];
    struct ts_stop stop = {.text = {"a\"\n\xc3\xa9", 5}};
    ts_schema_print(&ts_stop_schema, &stop, line, sizeof line);
    assert_string_equal(line, "text=\"a\\x22\\x0a\\xc3\\xa9\"");
    struct ts_msg msg = {.kind = TS_MSG_DETOKENIZE, .detokenize = {.id = 3, .tokens = {tokens, 10}}};
    ts_schema_print(&ts_msg_schema, &msg, line, sizeof line);
    assert_string_equal(line, "detokenize={id=3 model=\"\" tokens=[1 2 3 4 5 6 7 8 ... of 10]}");
}

static void test_print_truncates(void **state)
{
    (void)state;
    char whole[600];
    struct sample s;
    sample_fill(&s);
    size_t length = ts_schema_print(&ts_msg_schema, &s.msg, whole, sizeof whole);
    assert_int_equal(ts_schema_print(&ts_msg_schema, &s.msg, NULL, 0), 0);
    for (size_t capacity = 1; capacity <= length + 1; capacity++) {
        char *line = malloc(capacity);
        assert_int_equal(ts_schema_print(&ts_msg_schema, &s.msg, line, capacity), capacity - 1);
        assert_int_equal(line[capacity - 1], '\0');
        assert_memory_equal(line, whole, capacity - 1);
        free(line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_cover_structs),
        cmocka_unit_test(test_copy_is_deep),
        cmocka_unit_test(test_equal_sees_each_difference),
        cmocka_unit_test(test_equal_compares_floats_by_bits),
        cmocka_unit_test(test_equal_ignores_other_members_of_the_union),
        cmocka_unit_test(test_check_names_the_field),
        cmocka_unit_test(test_check_kind),
        cmocka_unit_test(test_check_bounds),
        cmocka_unit_test(test_check_floats),
        cmocka_unit_test(test_check_utf8),
        cmocka_unit_test(test_print),
        cmocka_unit_test(test_print_escapes_and_cuts_lists),
        cmocka_unit_test(test_print_truncates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
