/* Small tokenizer.json documents for the tests of common/text. */
#ifndef TS_TESTS_TEXT_FIXTURE_H
#define TS_TESTS_TEXT_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_clock.h"
#include "common/text/ts_tokenizer.h"

#define FIXTURE_BYTE_LEVEL                                                                                   \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define FIXTURE_SPM_DECODER                                                                                  \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},"  \
    "\"content\":\" \"},"                                                                                    \
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "                    \
    "\",\"start\":1,\"stop\":0}]}"
#define FIXTURE_SPM_NORMALIZER                                                                               \
    "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},"           \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]}"

struct fixture {               /* JSON members left NULL are null */
    bool byte_alphabet;        /* ids 0 to 255 are the bytes of a byte-level vocabulary */
    bool byte_tokens;          /* ids 0 to 255 are <0x00> to <0xFF> */
    const char *const *tokens; /* NULL-terminated; the ids that follow */
    const char *const *merges; /* "left right", NULL-terminated */
    const char *model_extra;   /* more members of the model, each with a comma behind */
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder, *added;
};

char *fixture_json(const struct fixture *fixture); /* ts_free */
struct ts_tokenizer *fixture_open(const struct fixture *fixture);

/* Fails the test unless encoding `text` gives `ids`, which end with TS_TOKEN_NONE. */
void fixture_expect(const struct ts_tokenizer *tok, const char *text, size_t bytes, unsigned flags,
                    const uint32_t *ids);
#define EXPECT_IDS(tok, text, flags, ...)                                                                    \
    fixture_expect(tok, text, sizeof(text) - 1, flags, (const uint32_t[]){__VA_ARGS__, TS_TOKEN_NONE})

/* Processor time of this process, since the machine may be busy; and what a bound is multiplied by where a
 * sanitizer slows it down. */
ts_time fixture_cpu_now(void);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FIXTURE_SLOWDOWN 10
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define FIXTURE_SLOWDOWN 10
#endif
#endif
#ifndef FIXTURE_SLOWDOWN
#define FIXTURE_SLOWDOWN 1
#endif

void fixture_expect_text(const struct ts_tokenizer *tok, const uint32_t *ids, size_t count, unsigned flags,
                         const char *text);
#define EXPECT_TEXT(tok, text, flags, ...)                                                                   \
    fixture_expect_text(tok, (const uint32_t[]){__VA_ARGS__},                                                \
                        sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), flags, text)

#endif
