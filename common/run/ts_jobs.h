/*
 * A few threads for work that must not block the loop: tokenising, encoding, restoring KV. Jobs start in the
 * order of submission; finished ones are taken by the loop thread when `fd` is readable. The caller embeds
 * struct ts_job first in its own struct and owns the memory throughout; the pool only links it.
 */
#ifndef TS_RUN_JOBS_H
#define TS_RUN_JOBS_H

#include <stddef.h>

struct ts_job {
    void (*run)(struct ts_job *job); /* on a pool thread */
    struct ts_job *next;
};

struct ts_jobs;

struct ts_jobs *ts_jobs_new(int threads);
void ts_jobs_destroy(struct ts_jobs **jobs); /* all jobs must have been taken; null-safe */
void ts_jobs_submit(struct ts_jobs *jobs, struct ts_job *job);
struct ts_job *ts_jobs_take(struct ts_jobs *jobs); /* a finished job, or NULL */
int ts_jobs_fd(const struct ts_jobs *jobs);
/* Waits until all submitted jobs have finished (they still have to be taken). */
void ts_jobs_settle(struct ts_jobs *jobs);

#endif
