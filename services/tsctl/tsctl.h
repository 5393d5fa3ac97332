/*
 * tsctl: the program for people. Each verb is one function in one file, listed in tsctl_main.c. Results go to
 * stdout (one JSON document with
 * --json), everything else to stderr. Exit code 0 = done, 1 = it failed (one line says why), 2 = wrong usage.
 */
#ifndef TSCTL_H
#define TSCTL_H

#include "common/client/ts_client.h"
#include "common/core/ts_sampling.h"
#include "common/run/ts_conf.h"
#include "common/text/ts_json.h"

int tsctl_up(int argc, char **argv);
int tsctl_generate(int argc, char **argv);
int tsctl_engine(int argc, char **argv);
int tsctl_status(int argc, char **argv);
int tsctl_cancel(int argc, char **argv);
int tsctl_drain(int argc, char **argv);
int tsctl_phase(int argc, char **argv);
int tsctl_why(int argc, char **argv);
int tsctl_links(int argc, char **argv);
int tsctl_metrics(int argc, char **argv);
int tsctl_codec(int argc, char **argv);
int tsctl_quality(int argc, char **argv);
int tsctl_random_model(int argc, char **argv);
int tsctl_replay(int argc, char **argv);
int tsctl_cost(int argc, char **argv);
int tsctl_plan(int argc, char **argv);
int tsctl_workload(int argc, char **argv);
int tsctl_simulate_local(int argc, char **argv);
int tsctl_report(int argc, char **argv);
int tsctl_simulate(int argc, char **argv);

/* The folder of catalogues where no flag names one: ./conf, else the nearest "conf" above the program's own
 * folder. The caller owns the text (ts_free). */
char *tsctl_conf_dir(void);

/* Prints "tsctl VERB: TEXT" on stderr and returns `code`. */
int tsctl_fail(const char *verb, int code, const char *text);

/* What both `generate` and `engine` ask for. */
struct tsctl_request {
    struct ts_conf *conf;
    struct ts_conf_strings routers, stop;
    const char *model, *prompt, *tokens, *codec, *request_id, *client, *device, *modelled_conf;
    uint32_t max_tokens, min_tokens, top_k, logprobs, deadline_ms, reattach_ms, threads, give_up_ms;
    double temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    uint32_t given; /* mask of enum ts_sampling_given: the others are the model's */
    uint64_t seed;
    bool ignore_eos, json, progress;
    double at_ms; /* of a line of --requests: when it is sent, after the start */
    const char *requests, *csv;
    uint32_t *ids; /* parsed --tokens */
    size_t id_count;
    struct ts_client_request request; /* the same, as the client library wants it */
};

/* Returns 0 to go on; otherwise *code is the exit code. */
int tsctl_request_parse(const char *verb, int argc, char **argv, struct tsctl_request *out, int *code);
void tsctl_request_free(struct tsctl_request *request);

/* The lines of --requests FILE: JSON objects whose keys (prompt or tokens, max_tokens, min_tokens,
 * temperature, top_k, top_p, min_p, repetition_penalty, seed, ignore_eos, logprobs, codec, request_id)
 * override the flags. */
struct tsctl_batch {
    struct tsctl_request *items; /* strings point into docs; not for tsctl_request_free */
    struct ts_json **docs;
    size_t count, capacity, doc_capacity;
};

enum ts_status tsctl_batch_load(const struct tsctl_request *base, struct tsctl_batch *out,
                                struct ts_error *err);
void tsctl_batch_free(struct tsctl_batch *batch);

void tsctl_print_json(const struct ts_client_result *result);
void tsctl_print_summary(const struct ts_client_result *result); /* stderr */

#endif
