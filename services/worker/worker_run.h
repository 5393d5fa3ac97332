/*
 * What a worker does outside its core: owns the engine, the tokenizer, the text streams of running requests
 * and the restoring half of the codec. Performs TOKENISE, TEXT_OPEN, TEXT_CLOSE, BATCH, SCATTER and ENCODE;
 * completions come back as events. Used by ts-prefill, ts-decode and `tsctl engine`. Loop thread, except the
 * jobs.
 */
#ifndef WORKER_RUN_H
#define WORKER_RUN_H

#include "common/run/ts_service.h"
#include "common/text/ts_tokenizer.h"
#include "gpu/pool/ts_pool.h"
#include "gpu/ts_engine.h"

struct worker_run;

/* Opens the engine and, if the folder has one, the tokenizer. */
enum ts_status worker_run_open(const struct ts_engine_options *options, struct worker_run **out,
                               struct ts_error *err);
void worker_run_close(struct worker_run **run); /* waits for what runs */
const struct ts_engine_info *worker_run_info(const struct worker_run *run);
struct ts_pool *worker_run_pool(struct worker_run *run); /* the engine's */
/* NULL; or what became of the device, for which it stopped serving. */
const char *worker_run_fault(const struct worker_run *run);
struct ts_engine *worker_run_engine(struct worker_run *run); /* to be looked at before it serves */
bool worker_run_has_tokenizer(const struct worker_run *run);
struct ts_service_hooks worker_run_hooks(struct worker_run *run);

#endif
