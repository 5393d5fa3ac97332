/* tokenizer.json of unknown origin: refused, or good for encoding and decoding any text. What follows the
 * first NUL is the text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/text/ts_textstream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct ts_tokenizer *tok, const char *text, size_t bytes, unsigned flags)
{
    uint32_t *ids = NULL;
    size_t count = 0, joined = 0, whole_bytes = 0;
    char *whole = NULL;
    if (ts_tokenizer_encode(tok, text, bytes, flags, &ids, &count, NULL) != TS_OK)
        return;
    ts_tokenizer_decode(tok, ids, count, TS_DECODE_SKIP_SPECIAL | TS_DECODE_CONTINUE, &whole, &whole_bytes);
    const struct ts_textstream_params params = {.max_tokens = count ? (uint32_t)count : 1};
    struct ts_textstream *stream = ts_textstream_new(tok, &params);
    for (size_t i = 0; i < count; i++) {
        struct ts_text_event event;
        if (ids[i] >= ts_tokenizer_vocab_size(tok))
            abort();
        ts_textstream_push(stream, ids[i], &event);
        if (event.bytes > whole_bytes - joined || memcmp(event.text, whole + joined, event.bytes) != 0)
            abort(); /* streamed text is whole text */
        joined += event.bytes;
    }
    if (joined != whole_bytes)
        abort();
    ts_textstream_destroy(&stream);
    ts_free(whole);
    ts_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char sample[] = "Hello  world's \xC3\xA9\xE2\x82\xAC 123\n<s>\xFF ab";
    const char *json = (const char *)data;
    const uint8_t *end = memchr(data, 0, size);
    size_t json_bytes = end ? (size_t)(end - data) : size;
    struct ts_tokenizer *tok = NULL;
    struct ts_error err;
    if (ts_tokenizer_parse(json, json_bytes, "fuzz", &tok, &err) != TS_OK)
        return 0;
    for (unsigned flags = 0; flags < 4; flags++) {
        use(tok, sample, sizeof sample - 1, flags);
        if (end)
            use(tok, (const char *)end + 1, size - json_bytes - 1, flags);
    }
    ts_tokenizer_destroy(&tok);
    return 0;
}
