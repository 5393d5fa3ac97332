/*
 * The files of the cost model: conf/devices/sheet.conf is read whole, conf/devices/measured.conf and
 * conf/stacks/measured.conf are written from a fit, byte for byte the same for the same inputs, and stacks
 * are read back. Figures are cut to three digits.
 */
#ifndef TSCTL_COST_FILES_H
#define TSCTL_COST_FILES_H

#include <stdio.h>

#include "common/run/ts_conf_tree.h"
#include "services/tsctl/tsctl_cost_fit.h"

struct cost_sheets {
    struct ts_catalogue *catalogue; /* of the same file, for names */
    struct ts_conf_tree *tree;      /* texts of entries point into it */
    struct cost_sheet *items;
    struct cost_sheet_entry *entries;
    size_t count;
};

enum ts_status cost_sheets_load(const char *conf_dir, struct cost_sheets *out, struct ts_error *err);
void cost_sheets_free(struct cost_sheets *sheets);

void cost_write_devices(FILE *out, const struct cost_sheets *sheets, const struct cost_fit *fit);
void cost_write_stacks(FILE *out, const struct cost_fit *fit);

/* Fills all COST_SOURCE_COUNT stacks from conf_dir/stacks/measured.conf; those that it does not name are
 * cost_stack_none(). */
enum ts_status cost_stacks_load(const char *conf_dir, struct cost_stack *stacks, struct ts_error *err);

#endif
