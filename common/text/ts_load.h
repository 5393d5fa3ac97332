/* Reading tokenizer.json: what its two loading files share. `path` is the way to an object, as
 * "pre_tokenizer.pretokenizers[1]". */
#ifndef TS_TEXT_LOAD_H
#define TS_TEXT_LOAD_H

#include "common/text/ts_tokenizer_impl.h"

#define TS_LOAD_PATH_BYTES 160

/* How tokens become text again; the decoder of the file, checked and put in order. */
struct ts_load_decoder {
    bool byte_level, metaspace, byte_fallback;
    struct ts_slice mark;                       /* metaspace */
    struct ts_norm_step replaces[TS_STEPS_MAX]; /* otherwise */
    size_t replace_count;
};

/* "path.key is <value>; supported: ..." */
enum ts_status ts_load_refuse(struct ts_error *err, const char *path, const char *key,
                              const struct ts_json *value, const char *supported);
/* Refuses a member whose key is not in the NULL-terminated list. */
enum ts_status ts_load_check_keys(const struct ts_json *object, const char *path, const char *const *known,
                                  struct ts_error *err);
/* object[key] as true or false; `fallback` where it is absent or null. */
enum ts_status ts_load_bool(const struct ts_json *object, const char *path, const char *key, bool fallback,
                            bool *out, struct ts_error *err);
struct ts_slice ts_load_slice(struct ts_tokenizer *tok, const char *text,
                              size_t bytes); /* a copy that lives as long as `tok` */

/* The parts that become steps. `value` may be NULL or null. */
enum ts_status ts_load_normalizer(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                  struct ts_error *err);
enum ts_status ts_load_pre_tokenizer(struct ts_tokenizer *tok, const struct ts_json *value, const char *path,
                                     struct ts_error *err);
enum ts_status ts_load_decoder(struct ts_tokenizer *tok, const struct ts_json *value,
                               struct ts_load_decoder *out, struct ts_error *err);

#endif
