#include "common/text/ts_json.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_assert.h"
#include "common/base/ts_mem.h"
#include "common/text/ts_utf8.h"

/* `struct ts_json` is never defined: its pointers are jansson's, which count references in the object and so
 * are not const. */
static json_t *raw(const struct ts_json *value)
{
    union {
        const struct ts_json *ours;
        json_t *theirs;
    } view = {.ours = value};
    return view.theirs;
}

static struct ts_json *own(json_t *value)
{
    return (struct ts_json *)value;
}

static enum ts_status load_bytes(const char *path, char **text, size_t *bytes, struct ts_error *err)
{
    enum ts_status status = TS_OK;
    size_t used = 0, capacity = 0;
    char *buffer = NULL;
    FILE *file = fopen(path, "rb");
    if (!file)
        return ts_error_set(err, errno == ENOENT ? TS_ENOTFOUND : TS_EIO, "cannot open %s: %s", path,
                            strerror(errno));
    for (;;) {
        ts_array_reserve((void **)&buffer, &capacity, used + 65536, 1);
        size_t got = fread(buffer + used, 1, capacity - used, file);
        used += got;
        if (got == 0)
            break;
        if (used > TS_JSON_BYTES_MAX) {
            status = ts_error_set(err, TS_ELIMIT, "%s is larger than the %zu bytes allowed for a JSON file",
                                  path, TS_JSON_BYTES_MAX);
            goto out;
        }
    }
    if (ferror(file)) {
        status = ts_error_set(err, TS_EIO, "cannot read %s: %s", path, strerror(errno));
        goto out;
    }
    *text = buffer;
    *bytes = used;
    buffer = NULL;
out:
    ts_free(buffer);
    fclose(file);
    return status;
}

enum ts_status ts_json_load(const char *path, struct ts_json **out, struct ts_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    enum ts_status status = load_bytes(path, &text, &bytes, err);
    if (status == TS_OK)
        status = ts_json_parse(text, bytes, path, out, err);
    ts_free(text);
    return status;
}

enum ts_status ts_json_parse(const char *text, size_t bytes, const char *name, struct ts_json **out,
                             struct ts_error *err)
{
    if (bytes > TS_JSON_BYTES_MAX)
        return ts_error_set(err, TS_ELIMIT, "%s has %zu bytes of JSON, more than the %zu allowed", name,
                            bytes, TS_JSON_BYTES_MAX);
    json_error_t why = {0};
    size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY;
    json_t *root = json_loadb(text, bytes, flags, &why);
    /* Python writes "no limit" as an integer of 31 digits; as a double it is harmless. */
    if (!root && json_error_code(&why) == json_error_numeric_overflow)
        root = json_loadb(text, bytes, flags | JSON_DECODE_INT_AS_REAL, &why);
    if (!root)
        return ts_error_set(err, TS_EINVAL, "%s line %d column %d: not valid JSON: %s", name, why.line,
                            why.column, why.text);
    *out = own(root);
    return TS_OK;
}

void ts_json_destroy(struct ts_json **root)
{
    if (*root)
        json_decref(raw(*root));
    *root = NULL;
}

enum ts_json_type ts_json_type(const struct ts_json *value)
{
    if (!value)
        return TS_JSON_NONE;
    switch (json_typeof(raw(value))) {
    case JSON_OBJECT:
        return TS_JSON_OBJECT;
    case JSON_ARRAY:
        return TS_JSON_ARRAY;
    case JSON_STRING:
        return TS_JSON_STRING;
    case JSON_INTEGER:
        return TS_JSON_INTEGER;
    case JSON_REAL:
        return TS_JSON_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE:
        return TS_JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return TS_JSON_NULL;
}

const char *ts_json_type_name(enum ts_json_type type)
{
    static const char *const names[] = {"nothing",  "null",     "a boolean", "an integer",
                                        "a number", "a string", "an array",  "an object"};
    return names[type];
}

bool ts_json_is_null(const struct ts_json *value)
{
    return !value || json_is_null(raw(value));
}

size_t ts_json_count(const struct ts_json *value)
{
    switch (ts_json_type(value)) {
    case TS_JSON_ARRAY:
        return json_array_size(raw(value));
    case TS_JSON_OBJECT:
        return json_object_size(raw(value));
    default:
        return 0;
    }
}

const struct ts_json *ts_json_get(const struct ts_json *object, const char *key)
{
    return own(json_object_get(raw(object), key));
}

const struct ts_json *ts_json_at(const struct ts_json *array, size_t index)
{
    return own(json_array_get(raw(array), index));
}

const struct ts_json *ts_json_next(const struct ts_json *object, void **cursor, const char **key,
                                   size_t *key_bytes)
{
    if (ts_json_type(object) != TS_JSON_OBJECT)
        return NULL;
    void *iter = *cursor ? json_object_iter_next(raw(object), *cursor) : json_object_iter(raw(object));
    *cursor = iter;
    if (!iter)
        return NULL;
    *key = json_object_iter_key(iter);
    if (key_bytes)
        *key_bytes = json_object_iter_key_len(iter);
    return own(json_object_iter_value(iter));
}

const char *ts_json_string(const struct ts_json *value, size_t *bytes)
{
    if (ts_json_type(value) != TS_JSON_STRING)
        return NULL;
    if (bytes)
        *bytes = json_string_length(raw(value));
    return json_string_value(raw(value));
}

bool ts_json_integer(const struct ts_json *value, int64_t *out)
{
    switch (ts_json_type(value)) {
    case TS_JSON_INTEGER:
        *out = json_integer_value(raw(value));
        return true;
    case TS_JSON_NUMBER: {
        double number = json_real_value(raw(value));
        if (fabs(number) > 9007199254740992.0 || number != floor(number))
            return false;
        *out = (int64_t)number;
        return true;
    }
    default:
        return false;
    }
}

bool ts_json_number(const struct ts_json *value, double *out)
{
    if (!json_is_number(raw(value)))
        return false;
    *out = json_number_value(raw(value));
    return true;
}

bool ts_json_bool(const struct ts_json *value, bool *out)
{
    if (ts_json_type(value) != TS_JSON_BOOL)
        return false;
    *out = json_is_true(raw(value));
    return true;
}

/* Checks presence; the words are the same for every type. */
static enum ts_status find(const struct ts_json *object, const char *key, const struct ts_json **out,
                           struct ts_error *err)
{
    *out = ts_json_get(object, key);
    if (ts_json_is_null(*out))
        return ts_error_set(err, TS_ENOTFOUND, "key \"%s\" is missing", key);
    return TS_OK;
}

static enum ts_status wrong(const struct ts_json *value, const char *key, const char *expected,
                            struct ts_error *err)
{
    char shown[96];
    return ts_error_set(err, TS_EINVAL, "key \"%s\" is %s; expected %s", key,
                        ts_json_describe(value, shown, sizeof shown), expected);
}

enum ts_status ts_json_read_integer(const struct ts_json *object, const char *key, int64_t min, int64_t max,
                                    int64_t *out, struct ts_error *err)
{
    const struct ts_json *value;
    int64_t number;
    enum ts_status status = find(object, key, &value, err);
    if (status != TS_OK)
        return status;
    if (!ts_json_integer(value, &number) || number < min || number > max) {
        char expected[96];
        snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)min, (long long)max);
        return wrong(value, key, expected, err);
    }
    *out = number;
    return TS_OK;
}

enum ts_status ts_json_read_number(const struct ts_json *object, const char *key, double min, double max,
                                   double *out, struct ts_error *err)
{
    const struct ts_json *value;
    double number;
    enum ts_status status = find(object, key, &value, err);
    if (status != TS_OK)
        return status;
    if (!ts_json_number(value, &number) || !(number >= min && number <= max)) {
        char expected[96];
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
        return wrong(value, key, expected, err);
    }
    *out = number;
    return TS_OK;
}

enum ts_status ts_json_read_bool(const struct ts_json *object, const char *key, bool *out,
                                 struct ts_error *err)
{
    const struct ts_json *value;
    enum ts_status status = find(object, key, &value, err);
    if (status != TS_OK)
        return status;
    return ts_json_bool(value, out) ? TS_OK : wrong(value, key, "true or false", err);
}

enum ts_status ts_json_read_string(const struct ts_json *object, const char *key, const char **out,
                                   size_t *bytes, struct ts_error *err)
{
    const struct ts_json *value;
    enum ts_status status = find(object, key, &value, err);
    if (status != TS_OK)
        return status;
    const char *text = ts_json_string(value, bytes);
    if (!text)
        return wrong(value, key, "a string", err);
    *out = text;
    return TS_OK;
}

struct cut_text {
    char *out;
    size_t used, size;
    bool cut;
};

static int cut_append(const char *text, size_t bytes, void *context)
{
    struct cut_text *to = context;
    size_t room = to->size - to->used;
    to->cut |= bytes > room;
    if (bytes > room)
        bytes = room;
    memcpy(to->out + to->used, text, bytes);
    to->used += bytes;
    return to->cut ? -1 : 0; /* stops the dump: the rest would be thrown away */
}

const char *ts_json_describe(const struct ts_json *value, char *out, size_t size)
{
    TS_ASSERT(size >= 8);
    struct cut_text to = {.out = out, .size = size - 4};
    if (value)
        json_dump_callback(raw(value), cut_append, &to, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    strcpy(out + to.used, to.cut ? "..." : "");
    return out;
}

struct ts_json *ts_json_new_object(void)
{
    json_t *value = json_object();
    TS_ASSERT(value);
    return own(value);
}

struct ts_json *ts_json_new_array(void)
{
    json_t *value = json_array();
    TS_ASSERT(value);
    return own(value);
}

/* jansson fails here only when memory is out or the container is of the wrong type: both end the process. */
static void put(struct ts_json *container, const char *key, json_t *value)
{
    TS_ASSERT(value);
    int failed = key ? json_object_set_new_nocheck(raw(container), key, value)
                     : json_array_append_new(raw(container), value);
    TS_ASSERT(!failed);
}

void ts_json_put(struct ts_json *container, const char *key, struct ts_json **child)
{
    put(container, key, raw(*child));
    *child = NULL;
}

void ts_json_put_string(struct ts_json *container, const char *key, const char *text, size_t bytes)
{
    char *clean = ts_utf8_lossy(text, bytes, &bytes);
    put(container, key, json_stringn_nocheck(clean, bytes));
    ts_free(clean);
}

void ts_json_put_integer(struct ts_json *container, const char *key, int64_t value)
{
    put(container, key, json_integer(value));
}

void ts_json_put_number(struct ts_json *container, const char *key, double value)
{
    put(container, key, isfinite(value) ? json_real(value) : json_null());
}

void ts_json_put_bool(struct ts_json *container, const char *key, bool value)
{
    put(container, key, json_boolean(value));
}

void ts_json_put_null(struct ts_json *container, const char *key)
{
    put(container, key, json_null());
}

struct grow_text {
    char *text;
    size_t used, capacity;
};

static int grow_append(const char *text, size_t bytes, void *context)
{
    struct grow_text *to = context;
    ts_array_reserve((void **)&to->text, &to->capacity, to->used + bytes + 1, 1);
    memcpy(to->text + to->used, text, bytes);
    to->used += bytes;
    return 0;
}

char *ts_json_dump(const struct ts_json *value, bool indented)
{
    struct grow_text to = {0};
    int failed =
        json_dump_callback(raw(value), grow_append, &to, JSON_ENCODE_ANY | (indented ? JSON_INDENT(2) : 0));
    TS_ASSERT(!failed);
    to.text[to.used] = '\0';
    return to.text;
}
