#include "common/run/ts_conf_tree.h"

#include <libconfig.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/ts_mem.h"
#include "common/run/ts_conf_text.h"

#define VALUE_BYTES 80

struct ts_conf_tree {
    config_t config;
    char *name;
};

static const config_setting_t *setting_of(struct ts_conf_node node)
{
    return node.setting;
}

enum ts_status ts_conf_tree_parse(const char *text, const char *name, struct ts_conf_tree **out,
                                  struct ts_error *err)
{
    struct ts_conf_tree *tree = ts_xcalloc(1, sizeof *tree);
    tree->name = ts_xstrdup(name);
    config_init(&tree->config);
    if (config_read_string(&tree->config, text)) {
        *out = tree;
        return TS_OK;
    }
    ts_error_set(err, TS_EINVAL, "%s:%d: %s; a file is made of key = value; { } is a group, ( , ) a list",
                 name, config_error_line(&tree->config), config_error_text(&tree->config));
    ts_conf_tree_destroy(&tree);
    return TS_EINVAL;
}

enum ts_status ts_conf_tree_load(const char *path, struct ts_conf_tree **out, struct ts_error *err)
{
    char *text;
    enum ts_status status = ts_conf_text_read(path, &text, err);
    if (status != TS_OK)
        return status;
    status = ts_conf_tree_parse(text, path, out, err);
    ts_free(text);
    return status;
}

void ts_conf_tree_destroy(struct ts_conf_tree **tree)
{
    if (!*tree)
        return;
    config_destroy(&(*tree)->config);
    ts_free((*tree)->name);
    ts_free(*tree);
    *tree = NULL;
}

struct ts_conf_node ts_conf_tree_root(const struct ts_conf_tree *tree)
{
    return (struct ts_conf_node){tree, config_root_setting(&tree->config)};
}

/* A value as the file has it, cut to fit. */
static const char *describe(const config_setting_t *setting, char out[VALUE_BYTES])
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        snprintf(out, VALUE_BYTES, "%lld", config_setting_get_int64(setting));
        break;
    case CONFIG_TYPE_FLOAT:
        snprintf(out, VALUE_BYTES, "%.12g", config_setting_get_float(setting));
        break;
    case CONFIG_TYPE_BOOL:
        snprintf(out, VALUE_BYTES, "%s", config_setting_get_bool(setting) ? "true" : "false");
        break;
    case CONFIG_TYPE_STRING:
        if (snprintf(out, VALUE_BYTES, "\"%s\"", config_setting_get_string(setting)) >= VALUE_BYTES)
            memcpy(out + VALUE_BYTES - 5, "...\"", 5);
        break;
    default:
        snprintf(out, VALUE_BYTES, "%s", config_setting_is_group(setting) ? "{ ... }" : "( ... )");
    }
    return out;
}

enum ts_status ts_conf_node_error(struct ts_conf_node group, const char *key, struct ts_error *err,
                                  const char *format, ...)
{
    char words[400], value[VALUE_BYTES];
    va_list list;
    va_start(list, format);
    vsnprintf(words, sizeof words, format, list);
    va_end(list);
    const config_setting_t *at = setting_of(group), *member = key && config_setting_is_group(at)
                                                                  ? config_setting_get_member(at, key)
                                                                  : NULL;
    unsigned line = config_setting_source_line(member ? member : at);
    if (member)
        return ts_error_set(err, TS_EINVAL, "%s:%u: %s = %s: %s", group.tree->name, line, key,
                            describe(member, value), words);
    return ts_error_set(err, TS_EINVAL, "%s:%u: %s%s%s", group.tree->name, line ? line : 1, key ? key : "",
                        key ? ": " : "", words);
}

static const struct ts_field *find_field(const struct ts_field *fields, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    }
    return NULL;
}

static enum ts_status unknown_key(struct ts_conf_node group, const config_setting_t *member,
                                  const struct ts_field *fields, size_t count, struct ts_error *err)
{
    const char *name = config_setting_name(member);
    struct ts_nearest nearest = ts_nearest_to(name);
    for (size_t i = 0; i < count; i++)
        ts_nearest_offer(&nearest, fields[i].name);
    if (nearest.best)
        return ts_conf_node_error(group, name, err, "unknown key; did you mean %s?", nearest.best);
    char known[300];
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", fields[i].name);
    return ts_conf_node_error(group, name, err, "unknown key; keys are %s", known);
}

static bool is_list(const config_setting_t *setting)
{
    return config_setting_is_list(setting) || config_setting_is_array(setting);
}

static enum ts_status fill_number(struct ts_conf_node group, const struct ts_field *field,
                                  const config_setting_t *member, void *slot, struct ts_error *err)
{
    int type = config_setting_type(member);
    bool whole = type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64;
    double value = whole                       ? (double)config_setting_get_int64(member)
                   : type == CONFIG_TYPE_FLOAT ? config_setting_get_float(member)
                                               : NAN;
    bool typed = whole || (type == CONFIG_TYPE_FLOAT && field->type == TS_FIELD_F64);
    if (!typed || !isfinite(value) || value < field->min || value > field->max)
        return ts_conf_node_error(group, field->name, err, "expected a %snumber from %.12g to %.12g",
                                  field->type == TS_FIELD_U32 ? "whole " : "", field->min, field->max);
    if (field->type == TS_FIELD_U32)
        *(uint32_t *)slot = (uint32_t)value;
    else
        *(double *)slot = value * (field->scale != 0 ? field->scale : 1);
    return TS_OK;
}

static enum ts_status fill_text(struct ts_conf_node group, const struct ts_field *field,
                                const config_setting_t *member, char *slot, struct ts_error *err)
{
    const char *text = config_setting_get_string(member);
    if (!text || !*text || strlen(text) >= field->size)
        return ts_conf_node_error(group, field->name, err, "expected a text in quotes of 1 to %zu bytes",
                                  field->size - 1);
    snprintf(slot, field->size, "%s", text);
    return TS_OK;
}

static bool all_texts(const config_setting_t *member)
{
    if (!is_list(member))
        return config_setting_type(member) == CONFIG_TYPE_STRING;
    for (int i = 0; i < config_setting_length(member); i++) {
        const char *text = config_setting_get_string_elem(member, i);
        if (!text || !*text)
            return false;
    }
    return true;
}

static bool all_groups(const config_setting_t *member, bool needed)
{
    if (!config_setting_is_list(member) || (needed && config_setting_length(member) == 0))
        return false;
    for (int i = 0; i < config_setting_length(member); i++) {
        if (!config_setting_is_group(config_setting_get_elem(member, (unsigned)i)))
            return false;
    }
    return true;
}

static enum ts_status fill_node(struct ts_conf_node group, const struct ts_field *field,
                                const config_setting_t *member, struct ts_conf_node *slot,
                                struct ts_error *err)
{
    if (field->type == TS_FIELD_TEXTS && !all_texts(member))
        return ts_conf_node_error(group, field->name, err, "expected a text in quotes, or a list of texts");
    if (field->type == TS_FIELD_GROUP && !config_setting_is_group(member))
        return ts_conf_node_error(group, field->name, err, "expected a group { key = value; }");
    if (field->type == TS_FIELD_GROUPS && !all_groups(member, field->needed))
        return ts_conf_node_error(group, field->name, err, "expected a list of groups ( { ... }, { ... } )");
    *slot = (struct ts_conf_node){group.tree, member};
    return TS_OK;
}

static enum ts_status fill_field(struct ts_conf_node group, const struct ts_field *field,
                                 const config_setting_t *member, void *into, struct ts_error *err)
{
    void *slot = (char *)into + field->offset;
    switch (field->type) {
    case TS_FIELD_TEXT:
        return fill_text(group, field, member, slot, err);
    case TS_FIELD_F64:
    case TS_FIELD_U32:
        return fill_number(group, field, member, slot, err);
    case TS_FIELD_BOOL:
        if (config_setting_type(member) != CONFIG_TYPE_BOOL)
            return ts_conf_node_error(group, field->name, err, "expected true or false");
        *(bool *)slot = config_setting_get_bool(member) != 0;
        return TS_OK;
    default:
        return fill_node(group, field, member, slot, err);
    }
}

enum ts_status ts_conf_node_fill(struct ts_conf_node group, const struct ts_field *fields, size_t count,
                                 void *into, struct ts_error *err)
{
    const config_setting_t *setting = setting_of(group);
    for (int i = 0; i < config_setting_length(setting); i++) {
        const config_setting_t *member = config_setting_get_elem(setting, (unsigned)i);
        const struct ts_field *field = find_field(fields, count, config_setting_name(member));
        enum ts_status status = field ? fill_field(group, field, member, into, err)
                                      : unknown_key(group, member, fields, count, err);
        if (status != TS_OK)
            return status;
    }
    for (size_t i = 0; i < count; i++) {
        if (fields[i].needed && !config_setting_get_member(setting, fields[i].name))
            return ts_conf_node_error(group, NULL, err, "the key %s is missing", fields[i].name);
    }
    return TS_OK;
}

uint32_t ts_conf_node_count(struct ts_conf_node list)
{
    if (!list.setting)
        return 0;
    return is_list(list.setting) ? (uint32_t)config_setting_length(list.setting) : 1;
}

struct ts_conf_node ts_conf_node_at(struct ts_conf_node list, uint32_t index)
{
    return (struct ts_conf_node){list.tree, config_setting_get_elem(list.setting, index)};
}

const char *ts_conf_node_text(struct ts_conf_node texts, uint32_t index)
{
    return is_list(texts.setting) ? config_setting_get_string_elem(texts.setting, (int)index)
                                  : config_setting_get_string(texts.setting);
}

bool ts_conf_node_has(struct ts_conf_node group, const char *key)
{
    return config_setting_get_member(group.setting, key) != NULL;
}
