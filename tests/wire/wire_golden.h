/*
 * Golden bytes: text files with one `name hex` line for each message, and the value that each stands for.
 * golden.txt holds what today's code writes; old.txt what some released version wrote: lines are added to it
 * at a release and never changed.
 */
#ifndef TESTS_WIRE_GOLDEN_H
#define TESTS_WIRE_GOLDEN_H

#include "tests/wire/wire_filler.h"

#define WIRE_GOLDEN TS_TEST_DATA "/wire/golden.txt"
#define WIRE_OLD    TS_TEST_DATA "/wire/old.txt"

struct wire_golden {
    enum ts_msg_kind kind;
    struct ts_bytes bytes;
};

/* Reads a file of golden bytes into the arena; stops the test when it cannot. Returns the number of lines. */
size_t wire_golden_load(const char *path, struct ts_arena *arena, struct wire_golden *out, size_t capacity);

/* The value behind the golden bytes of that kind. */
void wire_golden_value(enum ts_msg_kind kind, struct ts_arena *arena, struct ts_envelope *envelope,
                       struct ts_msg *msg);

#endif
