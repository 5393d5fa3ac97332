/*
 * JSON: reading documents (model folders, safetensors headers) and building answers of command-line programs.
 * The only file that includes jansson.h.
 *
 * Reading accepts any value pointer, NULL included, and answers NULL, false or 0 where the shape is not the
 * one asked for, so that a lookup chain needs one check at its end. The `read` functions add words for a
 * person. Integers are 64-bit; a document with a larger one is read with all numbers as doubles. Duplicate
 * keys, NUL in a key, text after the value, nesting beyond 2048 and files above TS_JSON_BYTES_MAX are
 * refused.
 *
 * A document owns its values: a pointer from a getter is valid until ts_json_destroy() of the root. One
 * thread at a time.
 */
#ifndef TS_TEXT_JSON_H
#define TS_TEXT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

/* The largest tokenizer.json in common use has 33 MB; the bound keeps a wrong file from taking the machine's
 * memory. */
#define TS_JSON_BYTES_MAX ((size_t)96 << 20)

struct ts_json;

enum ts_json_type {
    TS_JSON_NONE, /* of a NULL pointer */
    TS_JSON_NULL,
    TS_JSON_BOOL,
    TS_JSON_INTEGER,
    TS_JSON_NUMBER, /* not an integer */
    TS_JSON_STRING,
    TS_JSON_ARRAY,
    TS_JSON_OBJECT
};

enum ts_status ts_json_load(const char *path, struct ts_json **out, struct ts_error *err);
/* `name` is what error texts call the document; `text` is borrowed and needs no terminator. */
enum ts_status ts_json_parse(const char *text, size_t bytes, const char *name, struct ts_json **out,
                             struct ts_error *err);
void ts_json_destroy(struct ts_json **root);

enum ts_json_type ts_json_type(const struct ts_json *value);
const char *ts_json_type_name(enum ts_json_type type);
bool ts_json_is_null(const struct ts_json *value); /* the JSON value null, or a NULL pointer */

size_t ts_json_count(const struct ts_json *value); /* members of an object or array, else 0 */
const struct ts_json *ts_json_get(const struct ts_json *object, const char *key);
const struct ts_json *ts_json_at(const struct ts_json *array, size_t index);
/* Members in the order of the file: start with *cursor = NULL; returns NULL at the end. Keys are
 * NUL-terminated; `key_bytes` may be NULL. */
const struct ts_json *ts_json_next(const struct ts_json *object, void **cursor, const char **key,
                                   size_t *key_bytes);

const char *ts_json_string(const struct ts_json *value,
                           size_t *bytes); /* NULL if not a string; `bytes` may be NULL */
bool ts_json_integer(const struct ts_json *value,
                     int64_t *out); /* also a number without fraction, up to 2^53 */
bool ts_json_number(const struct ts_json *value, double *out); /* integers too */
bool ts_json_bool(const struct ts_json *value, bool *out);

/*
 * object[key] with a check. TS_ENOTFOUND: the key is absent or null (`out` untouched, so a caller with a
 * default ignores this one). TS_EINVAL: another type or out of range. `err` names key and value either way.
 */
enum ts_status ts_json_read_integer(const struct ts_json *object, const char *key, int64_t min, int64_t max,
                                    int64_t *out, struct ts_error *err);
enum ts_status ts_json_read_number(const struct ts_json *object, const char *key, double min, double max,
                                   double *out, struct ts_error *err);
enum ts_status ts_json_read_bool(const struct ts_json *object, const char *key, bool *out,
                                 struct ts_error *err);
enum ts_status ts_json_read_string(const struct ts_json *object, const char *key, const char **out,
                                   size_t *bytes, struct ts_error *err);

/* The value as compact JSON, cut to fit, for messages. Returns `out`. */
const char *ts_json_describe(const struct ts_json *value, char *out, size_t size);

/*
 * Building. `container` is an object with a key, or an array with key NULL. Ill-formed UTF-8 becomes U+FFFD;
 * a number that is not finite becomes null. ts_json_put takes *child; keys are expected to be new.
 */
struct ts_json *ts_json_new_object(void);
struct ts_json *ts_json_new_array(void);
void ts_json_put(struct ts_json *container, const char *key, struct ts_json **child);
void ts_json_put_string(struct ts_json *container, const char *key, const char *text, size_t bytes);
void ts_json_put_integer(struct ts_json *container, const char *key, int64_t value);
void ts_json_put_number(struct ts_json *container, const char *key, double value);
void ts_json_put_bool(struct ts_json *container, const char *key, bool value);
void ts_json_put_null(struct ts_json *container, const char *key);

/* One line, or indented by two; NUL-terminated; the caller owns it (ts_free). */
char *ts_json_dump(const struct ts_json *value, bool indented);

#endif
