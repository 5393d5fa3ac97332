/*
 * tsctl simulate validate: measured runs of servers on one device, from a file in the form of
 * tests/data/profiles/serving_dev.csv, each simulated by one colocated replica of the real cores on that
 * device, as vLLM batches. A row is a closed loop: `concurrency` requests at once and no more in all.
 *
 * Each is simulated twice. `at once`: all requests start together, as the file describes the load. But by
 * Little's law (requests/s times mean time of one) most rows had far fewer of them under way: the clients did
 * not start together. `spread`: they start evenly over such a time that the run lasts as long as the row says
 * (req_per_min); the tokens/s then follow from that and are no prediction, latencies are. Nothing is fitted
 * to the file. One thread.
 */
#ifndef TSCTL_VALIDATE_H
#define TSCTL_VALIDATE_H

#include "common/base/ts_error.h"

#include <stdbool.h>
#include <stddef.h>

enum validate_figure {
    VALIDATE_TOKENS, /* output tokens/s over the run */
    VALIDATE_TTFT_P50,
    VALIDATE_TTFT_MEAN,
    VALIDATE_TTFT_P99,
    VALIDATE_ITL_P50, /* of a request: its time over its tokens, TTFT included, as llmperf has it */
    VALIDATE_ITL_MEAN,
    VALIDATE_ITL_P99,
    VALIDATE_E2E_P50,
    VALIDATE_E2E_MEAN,
    VALIDATE_E2E_P99,
    VALIDATE_FIGURES
};

struct validate_row {
    unsigned line;
    char gpu[64], site[32], model[96], dtype[16]; /* as in the file */
    double measured[VALIDATE_FIGURES];            /* NAN = not stated */
    double simulated[VALIDATE_FIGURES];           /* at once */
    double spread[VALIDATE_FIGURES];
    double run_s, spread_s; /* how long the run took, NAN = not stated; over which requests were started */
    double under_way;       /* requests, mean of the measured run by Little's law; NAN = not stated */
    char skipped[200];      /* why it was not simulated; empty = it was */
};

struct validate_table {
    struct validate_row *rows;
    size_t count, capacity;
    char **unknown;
    size_t unknown_count, unknown_capacity;
};

const char *validate_figure_name(enum validate_figure figure);      /* its column */
void validate_print(const struct validate_table *table, bool json); /* tsctl_validate_print.c */

int tsctl_validate(int argc, char **argv);

#endif
