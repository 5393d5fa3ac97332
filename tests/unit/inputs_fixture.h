/* Folders of settings for tests of common/inputs: one of our own making in /tmp, and the shipped one. */
#ifndef INPUTS_FIXTURE_H
#define INPUTS_FIXTURE_H

#include <stddef.h>

#include "common/inputs/ts_inputs.h"

/* The folder of the test's own making, for conf_dir: links, devices/two.conf, nothing else. */
extern char inputs_conf[];

int inputs_setup(void **state);
int inputs_teardown(void **state);
/* Writes TEXT to KIND/NAME below it; returns the path, valid until the next call. */
const char *inputs_write(const char *kind, const char *name, const char *text);
struct ts_catalogue *inputs_catalogue(void); /* of it */

/* Names of the shipped files of a kind, without ".conf". */
size_t inputs_shipped(const char *kind, char (*names)[64], size_t capacity);

void inputs_expect(const struct ts_error *err, const char *words);

#endif
