/*
 * What became of each request, one record each, the same whether a simulation or a real run made it: what the
 * client saw, its deadlines, and the router's trace (struct ts_trace). A table is an array, with the names of
 * services kept once; a record is added in some hundred nanoseconds and takes about 120 bytes. Written and
 * read as CSV (columns: README.md). One thread.
 */
#ifndef TSCTL_RECORD_H
#define TSCTL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/ts_error.h"
#include "common/base/ts_map.h"
#include "common/core/ts_terms.h"

/* Times are seconds. Spans after `at_s` are floats: a ten-millionth of a span is below all noise. */
struct tsctl_record {
    uint64_t number; /* of the request, from 0 */
    double at_s;     /* sent, after the start of the run */
    uint64_t kv_bytes_raw, kv_bytes_sent;
    uint32_t prompt_tokens, output_tokens; /* output: received */
    uint32_t attempts;
    uint16_t prefill, relay, decode, codec;          /* indices into names; 0 = none */
    uint8_t finish, reason;                          /* enum ts_finish, ts_reason */
    float ttft_s, tpot_s, gap01_s, max_gap_s, e2e_s; /* at the client; negative = not defined */
    float want_ttft_s, want_tpot_s, want_e2e_s;      /* deadlines at SLO scale 1; 0 = none */
    /* After the router accepted it; negative = did not happen. */
    float assigned_s, prefill_begin_s, prefill_end_s, first_token_s, kv_open_s, kv_commit_s, decode_begin_s,
        end_s;
};

struct tsctl_records {
    struct tsctl_record *items;
    size_t count, capacity;
    char **names; /* [0] is "" */
    size_t name_count, name_capacity;
    struct ts_map *index; /* name -> its index plus one */
};

void tsctl_records_init(struct tsctl_records *records);
void tsctl_records_fini(struct tsctl_records *records);
struct tsctl_record *tsctl_records_add(struct tsctl_records *records); /* zeroed; valid until the next one */
/* The numbers of these words; 0 = none for one that is not known. */
uint8_t tsctl_record_finish(const char *name);
uint8_t tsctl_record_reason(const char *name);
uint16_t tsctl_records_name(struct tsctl_records *records, const char *name, size_t bytes);
void tsctl_records_sort(struct tsctl_records *records); /* by time sent, then by number */

double tsctl_records_end(const struct tsctl_records *records); /* when the last token of all came */

static inline bool tsctl_record_completed(const struct tsctl_record *r)
{
    return r->finish == TS_FINISH_STOP || r->finish == TS_FINISH_LENGTH;
}

/* The header line and one line for each. */
enum ts_status tsctl_records_save(const struct tsctl_records *records, const char *path,
                                  struct ts_error *err);
/* Adds the rows of a file. A bad row is named by its line; unknown columns are errors, absent ones are unset.
 */
enum ts_status tsctl_records_load(struct tsctl_records *records, const char *path, struct ts_error *err);

#endif
