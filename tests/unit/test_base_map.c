/* The map against a plain array in order of insertion, over random operations. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_map.h"
#include "common/base/ts_rng.h"

#define MODEL_MAX 4096

struct model_item {
    char key[24];
    size_t key_bytes;
    void *value;
};

struct model {
    struct model_item items[MODEL_MAX];
    size_t count;
};

static size_t model_find(const struct model *model, const struct model_item *key)
{
    for (size_t i = 0; i < model->count; i++) {
        if (model->items[i].key_bytes == key->key_bytes &&
            memcmp(model->items[i].key, key->key, key->key_bytes) == 0) {
            return i;
        }
    }
    return MODEL_MAX;
}

static void model_remove(struct model *model, size_t index)
{
    memmove(&model->items[index], &model->items[index + 1],
            (model->count - index - 1) * sizeof model->items[0]);
    model->count--;
}

static void check_order(const struct ts_map *map, const struct model *model)
{
    size_t cursor = 0, key_bytes = 0;
    const void *key = NULL;
    assert_int_equal(ts_map_count(map), model->count);
    for (size_t i = 0; i < model->count; i++) {
        assert_ptr_equal(ts_map_next(map, &cursor, &key, &key_bytes), model->items[i].value);
        assert_int_equal(key_bytes, model->items[i].key_bytes);
        assert_memory_equal(key, model->items[i].key, key_bytes);
    }
    assert_null(ts_map_next(map, &cursor, NULL, NULL));
    assert_null(ts_map_next(map, &cursor, NULL, NULL));
}

/* Keys of length 0 to 20 over few values, so that removed keys come back. */
static struct model_item random_key(struct ts_rng *rng, uint64_t range)
{
    struct model_item item = {0};
    uint64_t number = ts_rng_below(rng, range);
    item.key_bytes = (size_t)(number % 21);
    for (size_t i = 0; i < item.key_bytes; i++) {
        item.key[i] = (char)(number >> (i % 3 * 4));
    }
    return item;
}

static void random_operation(struct ts_map *map, struct model *model, struct ts_rng *rng, int growing)
{
    struct model_item item = random_key(rng, 3000);
    size_t index = model_find(model, &item);
    if ((int)ts_rng_below(rng, 10) < (growing ? 6 : 3)) {
        item.value = (void *)(uintptr_t)(ts_rng_u64(rng) | 1);
        void *earlier = ts_map_put(map, item.key, item.key_bytes, item.value);
        if (index == MODEL_MAX) {
            assert_null(earlier);
            model->items[model->count++] = item;
        } else {
            assert_ptr_equal(earlier, model->items[index].value);
            model->items[index].value = item.value;
        }
    } else {
        void *expected = index == MODEL_MAX ? NULL : model->items[index].value;
        assert_ptr_equal(ts_map_get(map, item.key, item.key_bytes), expected);
        assert_ptr_equal(ts_map_remove(map, item.key, item.key_bytes), expected);
        if (index != MODEL_MAX) {
            model_remove(model, index);
        }
    }
}

static void remove_while_iterating(struct ts_map *map, struct model *model, struct ts_rng *rng)
{
    size_t cursor = 0, key_bytes = 0, index = 0;
    const void *key = NULL;
    void *value;
    while ((value = ts_map_next(map, &cursor, &key, &key_bytes))) {
        assert_ptr_equal(value, model->items[index].value);
        if (ts_rng_below(rng, 2)) {
            /* The key given is the map's own memory. */
            assert_ptr_equal(ts_map_remove(map, key, key_bytes), value);
            model_remove(model, index);
        } else {
            index++;
        }
    }
    assert_int_equal(index, model->count);
}

static void test_against_model(void **state)
{
    (void)state;
    static struct model model;
    struct ts_map *map = ts_map_new();
    struct ts_rng rng;
    ts_rng_init(&rng, 21);
    for (int round = 0; round < 60; round++) {
        for (int i = 0; i < 500; i++) {
            random_operation(map, &model, &rng, round % 6 < 3);
        }
        if (round % 5 == 4) {
            remove_while_iterating(map, &model, &rng);
        }
        check_order(map, &model);
    }
    ts_map_destroy(&map);
    assert_null(map);
    ts_map_destroy(&map);
}

static void test_empty(void **state)
{
    (void)state;
    struct ts_map *map = ts_map_new();
    size_t cursor = 0;
    assert_int_equal(ts_map_count(map), 0);
    assert_null(ts_map_get(map, "a", 1));
    assert_null(ts_map_remove(map, "a", 1));
    assert_null(ts_map_next(map, &cursor, NULL, NULL));
    ts_map_destroy(&map);
}

static void test_queue_use(void **state)
{
    (void)state;
    /* In at the end, out at the front, a million times: linear in time and bounded in memory, or the test
     * runs out of time. */
    struct ts_map *map = ts_map_new();
    for (uint64_t i = 1; i <= 1000000; i++) {
        assert_null(ts_map_put_u64(map, i, (void *)(uintptr_t)i));
        if (i > 100) {
            size_t cursor = 0;
            assert_ptr_equal(ts_map_next(map, &cursor, NULL, NULL), (void *)(uintptr_t)(i - 100));
            assert_ptr_equal(ts_map_remove_u64(map, i - 100), (void *)(uintptr_t)(i - 100));
        }
    }
    assert_int_equal(ts_map_count(map), 100);
    assert_ptr_equal(ts_map_get_u64(map, 1000000), (void *)(uintptr_t)1000000);
    assert_null(ts_map_get_u64(map, 1));
    ts_map_destroy(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_queue_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
