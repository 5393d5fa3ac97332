/* The event heap: sorted by time, ties in the order of insertion, against a plain search for the minimum. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/base/ts_heap.h"
#include "common/base/ts_rng.h"

#define ITEMS 3000

static void test_against_search(void **state)
{
    (void)state;
    static struct {
        ts_time at;
        int present;
    } items[ITEMS];
    struct ts_heap heap;
    struct ts_rng rng;
    size_t pushed = 0, present = 0;
    ts_heap_init(&heap);
    ts_rng_init(&rng, 3);
    while (pushed < ITEMS || present > 0) {
        if (pushed < ITEMS && ts_rng_below(&rng, 5) < 3) {
            /* Few distinct times, negative ones among them: many ties. */
            items[pushed].at = (ts_time)ts_rng_below(&rng, 50) - 10;
            items[pushed].present = 1;
            ts_heap_push(&heap, items[pushed].at, &items[pushed]);
            pushed++;
            present++;
            continue;
        }
        size_t first = ITEMS;
        for (size_t i = 0; i < pushed; i++) {
            if (items[i].present && (first == ITEMS || items[i].at < items[first].at)) {
                first = i;
            }
        }
        ts_time at = 12345;
        if (first == ITEMS) {
            assert_null(ts_heap_pop(&heap, &at));
            assert_int_equal(at, 12345);
            assert_true(ts_heap_next(&heap) == TS_TIME_NEVER);
            continue;
        }
        assert_true(ts_heap_next(&heap) == items[first].at);
        assert_ptr_equal(ts_heap_pop(&heap, first % 2 ? &at : NULL), &items[first]);
        assert_true(first % 2 == 0 || at == items[first].at);
        items[first].present = 0;
        present--;
    }
    assert_int_equal(heap.count, 0);
    ts_heap_fini(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
