#include "inputs_fixture.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

char inputs_conf[] = "/tmp/thunderserve-inputs-XXXXXX";

const char *__lsan_default_suppressions(void); /* NOLINT: the sanitizer's name */

/* libconfig 1.5 loses the text of a string that no closing quote follows. */
const char *__lsan_default_suppressions(void) /* NOLINT */
{
    return "leak:libconfig";
}

const char *inputs_write(const char *kind, const char *name, const char *text)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", inputs_conf, kind);
    (void)mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s/%s", inputs_conf, kind, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
    return path;
}

int inputs_setup(void **state)
{
    (void)state;
    if (!mkdtemp(inputs_conf))
        return -1;
    inputs_write("links", "all.conf",
                 "links = ( { name = \"PCIe4\"; aliases = \"pcie 4.0\"; gb_per_s = 32; latency_us = 10; },\n"
                 "          { name = \"NVLink\"; gb_per_s = 600; directions = 2; latency_us = 5; },\n"
                 "          { name = \"40Gbit\"; gb_per_s = 5; latency_us = 50; },\n"
                 "          { name = \"5Gbit\"; gb_per_s = 0.625; latency_us = 100; },\n"
                 "          { name = \"none\"; gb_per_s = 0; latency_us = 0; } );\n");
    inputs_write(
        "devices", "two.conf",
        "devices = ( { name = \"A40\"; aliases = ( \"NVIDIA A40\" ); memory_gb = 48; memory_gb_per_s = 696;\n"
        "              tflops = 149.7; price_per_hour = 0.403; peer = \"pcie4\";\n"
        "              fit: { flops_efficiency = 0.5; layer_us = 30; step_us = 1000; }; },\n"
        "            { name = \"3090Ti\"; memory_gb = 24; memory_gb_per_s = 1008; tflops = 40;\n"
        "              price_per_hour = 0.307; peer = \"PCIe4\"; } );\n"
        "links = ( { name = \"nvlink\"; gb_per_s = 230; latency_us = 4; } );\n");
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

int inputs_teardown(void **state)
{
    (void)state;
    return nftw(inputs_conf, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

struct ts_catalogue *inputs_catalogue(void)
{
    struct ts_catalogue *catalogue = NULL;
    struct ts_error err = {0};
    if (ts_catalogue_load(inputs_conf, "two", &catalogue, &err) != TS_OK)
        fail_msg("%s", err.text);
    return catalogue;
}

size_t inputs_shipped(const char *kind, char (*names)[64], size_t capacity)
{
    char folder[256];
    size_t count = 0;
    snprintf(folder, sizeof folder, "%s/%s", TS_CONF_DIR, kind);
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t bytes = strlen(entry->d_name);
        if (bytes <= 5 || strcmp(entry->d_name + bytes - 5, ".conf") != 0)
            continue;
        assert_true(count < capacity);
        snprintf(names[count++], 64, "%.*s", (int)(bytes - 5), entry->d_name);
    }
    closedir(dir);
    return count;
}

void inputs_expect(const struct ts_error *err, const char *words)
{
    if (!strstr(err->text, words) || strchr(err->text, '\n'))
        fail_msg("expected an error of one line with \"%s\", got \"%s\"", words, err->text);
}
