/*
 * A trace of requests: when each arrived, with how many prompt and output tokens. Read from a CSV in the form
 * of the Azure LLM inference traces (TIMESTAMP,ContextTokens,GeneratedTokens; the header may be missing; a
 * time is a date-time "2023-11-16 18:17:03.9799600" or a number of seconds), or, where the name ends in
 * ".jsonl", from objects in the form of the Mooncake traces, one a line ({"timestamp": ms, "input_length": n,
 * "output_length": n, "hash_ids": [..]}; other keys and the hashes, which name shared prefixes, are not
 * looked at). Lines may end in CR LF. Rows are kept by time. The caller owns a trace; one thread.
 */
#ifndef TS_TRACE_H
#define TS_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "common/core/ts_demand.h"

#define TS_TRACE_ROWS_MAX 20000000

struct ts_trace_row {
    double at_s; /* after the first */
    uint32_t prompt_tokens, output_tokens;
};

struct ts_trace {
    struct ts_trace_row *rows;
    size_t count;
};

enum ts_status ts_trace_load(const char *path, struct ts_trace *out, struct ts_error *err);
void ts_trace_fini(struct ts_trace *trace);

/*
 * The trace as length classes: `prompt_bands` bands of like prompt length with equally many requests, each
 * cut into `output_bands` by output length (product <= TS_CLASSES_MAX; bands that stay empty are left out).
 * A class knows the range of prompts of its band; ranges cover all lengths. By default nothing is cut by
 * output: a router knows the prompt of a request and not how long its output will be. Rates are requests over
 * the trace's span. Rates, means and mean squares are exact, so the tokens of all classes add up to the
 * trace's.
 *
 * `burst` is the index of dispersion of counts in windows of one second (variance over mean; 1 = Poisson).
 * For a renewal process it tends to the squared coefficient of variation of the gaps. Taking that from the
 * gaps themselves would let a few long silences decide: a single gap of 217 s gives the code trace 173
 * instead of 13, although nothing waits longer for it.
 */
enum ts_status ts_trace_demand(const struct ts_trace *trace, uint32_t prompt_bands, uint32_t output_bands,
                               struct ts_demand *out, struct ts_error *err);

/* What a trace CSV is cut into where nobody asks for more. */
#define TS_TRACE_PROMPT_BANDS 8
#define TS_TRACE_OUTPUT_BANDS 1

#endif
