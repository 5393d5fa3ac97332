/* Self-profiling: coefficients that are found again, an engine that is measured, and what of it is kept. */
#include "gpu/quality/ts_measure.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "tests/gpu/engine_fixture.h"
#include "tests/gpu/model_fixture.h"

#define BLOCKS 64

static const struct ts_measure_room room = {.batch = {128, 16}, .budget = 400 * TS_MS};

static struct ts_engine *open_demo(void)
{
    return model_open("demo", (struct ts_shard){0}, 128, 16, BLOCKS);
}

static void is_sound(const struct ts_measured *m)
{
    struct ts_device_type device = {.memory_bytes = 0};
    assert_true(ts_cost_measured(m, &device));
    assert_true(m->error >= 0);
}

/* An H100 with the shape of an 8B model: what it says of batches that were not measured is what it is. */
static void test_fit(void **state)
{
    const struct ts_measured truth = {.memory_bytes = 80e9,
                                      .product_flops = 6e14,
                                      .attention_flops = 2.5e14,
                                      .weight_bytes_per_s = 2.6e12,
                                      .context_bytes_per_s = 1.9e12,
                                      .layer_s = 12e-6,
                                      .tokens_half = 40};
    const struct ts_engine_info info = {.model = {.layers = 32,
                                                  .hidden = 4096,
                                                  .intermediate = 14336,
                                                  .heads = 32,
                                                  .kv_heads = 8,
                                                  .head_dim = 128,
                                                  .vocab = 128256,
                                                  .weight_dtype = TS_DTYPE_BF16,
                                                  .kv_dtype = TS_DTYPE_BF16},
                                        .shard = {.layer_end = 32, .head_end = 8}};
    struct ts_measure_point points[] = {{false, 1, 16, 0},   {false, 1, 64, 0},   {false, 1, 256, 0},
                                        {false, 1, 1024, 0}, {false, 1, 8192, 0}, {true, 1, 15, 0},
                                        {true, 4, 15, 0},    {true, 16, 15, 0},   {true, 64, 15, 0},
                                        {true, 256, 15, 0},  {true, 1, 1024, 0},  {true, 16, 1024, 0},
                                        {true, 64, 1024, 0}, {true, 256, 1024, 0}};
    const struct ts_measure_point others[] = {{false, 1, 512, 0}, {false, 4, 2048, 0}, {false, 1, 4096, 0},
                                              {true, 8, 512, 0},  {true, 32, 2048, 0}, {true, 128, 300, 0}};
    const uint32_t count = sizeof points / sizeof *points;
    struct ts_measured found = {.memory_bytes = 80e9, .upload_bytes_per_s = 5e10};
    (void)state;
    for (uint32_t i = 0; i < count; i++)
        points[i].seconds = ts_measure_predict(&info, &truth, &points[i]);
    ts_measure_fit(&info, points, count, &found);
    assert_true(found.error < 0.02);
    assert_true(found.memory_bytes == 80e9 && found.upload_bytes_per_s == 5e10);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        double want = ts_measure_predict(&info, &truth, &others[i]);
        double is = ts_measure_predict(&info, &found, &others[i]);
        if (fabs(is / want - 1) > 0.05)
            fail_msg("point %zu: %g s, not %g", i, is, want);
    }
}

static void test_engine(void **state)
{
    struct ts_engine *engine = open_demo();
    struct ts_measured m;
    struct ts_error err = {0};
    (void)state;
    assert_int_equal(ts_measure(engine, room, &m, &err), TS_OK);
    is_sound(&m);
    assert_true(m.upload_bytes_per_s == 0 && m.memory_bytes > 1e8);
    const struct ts_engine_info *info = ts_engine_info(engine);
    const struct ts_measure_point step = {true, 1, 15, 0}, prompt = {false, 1, 128, 0};
    assert_true(ts_measure_predict(info, &m, &step) < ts_measure_predict(info, &m, &prompt));
    ts_engine_close(&engine);
}

static void test_no_room(void **state)
{
    struct ts_engine *engine = open_demo();
    struct ts_measured m;
    struct ts_error err = {0};
    struct ts_measure_room none = room;
    (void)state;
    none.batch.batch_tokens = 8;
    assert_int_equal(ts_measure(engine, none, &m, &err), TS_EUNSUPPORTED);
    ts_engine_close(&engine);
}

/* The only file of the folder. */
static void path_in(const char *folder, char *out, size_t bytes)
{
    char command[256];
    snprintf(command, sizeof command, "ls %s/measured-*", folder);
    FILE *names = popen(command, "r");
    assert_non_null(names);
    assert_non_null(fgets(out, (int)bytes, names));
    out[strcspn(out, "\n")] = '\0';
    assert_int_equal(pclose(names), 0);
}

static enum ts_measure_from measured(struct ts_engine *engine, const char *folder, const char *settings,
                                     struct ts_measured *m)
{
    enum ts_measure_from from;
    struct ts_error err = {0};
    assert_int_equal(ts_measure_cached(engine, room, folder, settings, m, &from, &err), TS_OK);
    is_sound(m);
    return from;
}

static bool cached(struct ts_engine *engine, const char *folder, const char *settings, struct ts_measured *m)
{
    return measured(engine, folder, settings, m) == TS_MEASURE_CACHE;
}

/* One byte of the file becomes another one. */
static void damage(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int was = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(was == '7' ? '8' : '7', file);
    assert_int_equal(fclose(file), 0);
}

static void test_cache(void **state)
{
    char folder[] = "/tmp/measure-XXXXXX", inner[64], path[256];
    struct ts_engine *engine = open_demo();
    struct ts_measured first, again;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(inner, sizeof inner, "%s/in", folder);
    assert_false(cached(engine, inner, "a", &first));
    assert_true(cached(engine, inner, "a", &again));
    assert_memory_equal(&first, &again, sizeof first);
    path_in(inner, path, sizeof path);
    static const long places[] = {0, 20, -30, -2};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        damage(path, places[i]);
        assert_false(cached(engine, inner, "a", &again));
        assert_true(cached(engine, inner, "a", &again));
    }
    assert_int_equal(truncate(path, 100), 0);
    assert_false(cached(engine, inner, "a", &again));
    assert_int_equal(measured(engine, inner, "b", &again), TS_MEASURE_NOW); /* other settings */
    assert_int_equal(measured(engine, "", "a", &again), TS_MEASURE_NOW);    /* nothing is kept */
    assert_int_equal(measured(engine, "/proc/none", "a", &again), TS_MEASURE_LOST);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    ts_engine_close(&engine);
}

struct other {
    const char *kept, *path;
    int turn;
};

/* Another worker of the host, which has its turn, ends it with a result, and lets go. */
static void *other_worker(void *context)
{
    const struct other *o = context;
    const struct timespec while_it_measures = {.tv_nsec = 50 * TS_MS};
    nanosleep(&while_it_measures, NULL);
    assert_int_equal(rename(o->kept, o->path), 0);
    close(o->turn);
    return NULL;
}

/* Who comes while another one measures waits for it, and takes what it has kept. */
static void test_turns(void **state)
{
    char folder[] = "/tmp/measure-XXXXXX", path[256], kept[300], lock[64], command[128];
    struct ts_engine *engine = open_demo();
    struct ts_measured first, again;
    pthread_t thread;
    (void)state;
    assert_non_null(mkdtemp(folder));
    assert_false(cached(engine, folder, "a", &first));
    path_in(folder, path, sizeof path);
    snprintf(kept, sizeof kept, "%s.kept", path);
    snprintf(lock, sizeof lock, "%s/measuring-cpu", folder);
    assert_int_equal(rename(path, kept), 0);
    struct other o = {kept, path, open(lock, O_RDWR)};
    assert_true(o.turn >= 0);
    assert_int_equal(flock(o.turn, LOCK_EX | LOCK_NB), 0); /* nobody has kept it */
    assert_int_equal(pthread_create(&thread, NULL, other_worker, &o), 0);
    assert_true(cached(engine, folder, "a", &again));
    assert_memory_equal(&first, &again, sizeof first);
    assert_int_equal(pthread_join(thread, NULL), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    ts_engine_close(&engine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fit), cmocka_unit_test(test_engine),
                                       cmocka_unit_test(test_no_room), cmocka_unit_test(test_cache),
                                       cmocka_unit_test(test_turns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
