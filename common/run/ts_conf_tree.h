/*
 * A strict reader of libconfig files that are data and not settings of a program (those: ts_conf.h): device
 * catalogues, clusters, models, workloads. A caller describes the keys of a group by a table of fields and
 * has a struct filled from it. Unknown keys (the nearest known one is named), wrong types, numbers out of
 * range or not finite, and missing keys are errors; each names file, line, key, value and remedy.
 *
 * A node points into its tree and is valid until ts_conf_tree_destroy. A node that is absent (`setting` NULL)
 * counts 0 items. One thread at a time per tree.
 */
#ifndef TS_RUN_CONF_TREE_H
#define TS_RUN_CONF_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"

struct ts_conf_tree;

struct ts_conf_node {
    const struct ts_conf_tree *tree;
    const void *setting; /* libconfig's; NULL = absent */
};

enum ts_field_type {
    TS_FIELD_TEXT,  /* char[size]; neither empty nor cut */
    TS_FIELD_F64,   /* double; value * scale */
    TS_FIELD_U32,   /* uint32_t; whole numbers */
    TS_FIELD_BOOL,  /* bool */
    TS_FIELD_TEXTS, /* struct ts_conf_node: one text, or a list of texts (ts_conf_node_text) */
    TS_FIELD_GROUP, /* struct ts_conf_node: { ... } */
    TS_FIELD_GROUPS /* struct ts_conf_node: ( { ... }, { ... } ), at least one when needed */
};

struct ts_field {
    const char *name;
    enum ts_field_type type;
    size_t offset;
    size_t size;     /* of a text, with its NUL */
    double min, max; /* of a number as written in the file */
    double scale;    /* 0 = 1: from the file's unit to the struct's */
    bool needed;     /* a key that is absent is an error; otherwise it leaves the struct as it was */
};

enum ts_status ts_conf_tree_load(const char *path, struct ts_conf_tree **out, struct ts_error *err);
/* `name` is what errors call the text. */
enum ts_status ts_conf_tree_parse(const char *text, const char *name, struct ts_conf_tree **out,
                                  struct ts_error *err);
void ts_conf_tree_destroy(struct ts_conf_tree **tree);

struct ts_conf_node ts_conf_tree_root(const struct ts_conf_tree *tree);
/* Checks and reads all keys of a group. */
enum ts_status ts_conf_node_fill(struct ts_conf_node group, const struct ts_field *fields, size_t count,
                                 void *into, struct ts_error *err);

uint32_t ts_conf_node_count(struct ts_conf_node list);
struct ts_conf_node ts_conf_node_at(struct ts_conf_node list, uint32_t index);
const char *ts_conf_node_text(struct ts_conf_node texts, uint32_t index); /* of TS_FIELD_TEXTS */
bool ts_conf_node_has(struct ts_conf_node group, const char *key);

/* For what a table cannot say: "FILE:LINE: KEY = VALUE: words". KEY may be NULL (words about the group as a
 * whole) or absent in the file (no value then). */
enum ts_status ts_conf_node_error(struct ts_conf_node group, const char *key, struct ts_error *err,
                                  const char *format, ...) TS_PRINTF(4, 5);

#endif
