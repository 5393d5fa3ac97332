/* Feeds each file of the fuzzer's corpus to its entry point, which aborts where it finds a fault. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CORPUS TS_TEST_DATA "/../fuzz/corpus/fuzz_wire/"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void feed(const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, CORPUS "%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(bytes + 1);
    assert_int_equal(fread(data, 1, bytes, file), bytes);
    fclose(file);
    assert_int_equal(LLVMFuzzerTestOneInput(data, bytes), 0);
    free(data);
}

static void test_corpus(void **state)
{
    (void)state;
    size_t files = 0;
    struct dirent *entry;
    DIR *folder = opendir(CORPUS);
    assert_non_null(folder);
    while ((entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        feed(entry->d_name);
        files++;
    }
    closedir(folder);
    assert_true(files >= 54);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_corpus)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
