#include "tests/gpu/families_fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "gpu/cpu/cpu_level.h"

#define MAGIC      0x314C5354u /* "TSL1" */
#define TOKENS_MAX 256

static const char *const names[] = {"llama2-mha",   "llama31-rope",   "llama32-tied",       "llama-linear",
                                    "llama-yarn",   "llama-bf16",     "llama-bias-sharded", "tinyllama",
                                    "smollm",       "mistral-window", "mistral-nemo",       "qwen2-bias",
                                    "qwen2-window", "qwen25-tied",    "qwen3-norm"};

static void load(const char *name, struct family *f)
{
    char path[256];
    size_t bytes;
    snprintf(path, sizeof path, "models/%s/expected.bin", name);
    uint32_t *words = (uint32_t *)(void *)model_file(path, &bytes);
    assert_true(bytes > 16 && words[0] == MAGIC && words[1] <= TOKENS_MAX);
    *f =
        (struct family){.name = name, .token_count = words[1], .vocab = words[2], .position_count = words[3]};
    assert_int_equal(bytes, 4 * (4 + f->token_count + f->position_count * (1 + (size_t)f->vocab)));
    f->file = words;
    f->tokens = words + 4;
    f->positions = f->tokens + f->token_count;
    f->logits = (float *)(void *)(f->positions + f->position_count);
}

/* Folders with expected values that `names` forgets would never be tested. */
static void expect_all_named(void)
{
    DIR *dir = opendir(TS_TEST_DATA "/models");
    size_t found = 0;
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[1024];
        snprintf(path, sizeof path, "%s/models/%s/expected.bin", TS_TEST_DATA, entry->d_name);
        found += access(path, F_OK) == 0;
    }
    closedir(dir);
    assert_int_equal(found, TS_ARRAY_SIZE(names));
}

void families_each(void (*check)(const struct family *family))
{
    const char *level = getenv("TS_CPU_LEVEL");
    if (level && strcmp(cpu_level_pick()->name, level) != 0) {
        print_message("SKIP: no-kernel-feature %s\n", level);
        skip();
    }
    expect_all_named();
    for (size_t i = 0; i < TS_ARRAY_SIZE(names); i++) {
        struct family family;
        load(names[i], &family);
        check(&family);
        ts_free(family.file);
    }
}

struct ts_engine_row family_row(const struct family *family, uint32_t begin, uint32_t end)
{
    static uint32_t blocks[TOKENS_MAX / TS_KV_BLOCK_TOKENS];
    for (uint32_t i = 0; i < TS_ARRAY_SIZE(blocks); i++)
        blocks[i] = i;
    return (struct ts_engine_row){.position = begin,
                                  .token_count = end - begin,
                                  .tokens = family->tokens + begin,
                                  .blocks = blocks,
                                  .block_count = ts_kv_blocks_for(family->token_count)};
}
