/*
 * A plan as people and scripts see it: one document that says what was asked, what the cluster is made of and
 * what the plan does with it. It is written as JSON and read back from it without any other file, so a table,
 * a picture and a comparison can be made from a file alone; what needs links or efficiencies (an evaluation)
 * loads the inputs again by the names that the document keeps (tsctl_plan_world.h).
 *
 * A document borrows what it is made of when a verb fills it, and owns it when it was read: see
 * tsctl_plan_doc_destroy. One thread.
 */
#ifndef TSCTL_PLAN_H
#define TSCTL_PLAN_H

#include <stdio.h>

#include "common/core/ts_plan.h"
#include "common/text/ts_json.h"

/* What a plan is made from: the flags of the same names. Strings are never NULL. */
struct tsctl_plan_inputs {
    const char *cluster, *devices, *model, *workload, *slo;
    const char *conf_dir;          /* empty: as tsctl_conf_dir finds it */
    const char *objective, *codec; /* attainment|goodput, auto|none|i4 */
    double attainment;
    double rate;      /* requests/s; 0 = as the workload says */
    double link_gbit; /* negative = as the cluster says */
    double scale_lengths;
    bool no_colocate;
    uint32_t max_stages;
    double effort; /* 0 = 1 */
    uint64_t seed;
};

struct tsctl_plan_doc {
    struct tsctl_plan_inputs inputs;
    const struct ts_cluster *cluster; /* of a document that was read: nodes, types and devices alone */
    const struct ts_model *model;
    const struct ts_demand *demand;
    const struct ts_plan *plan;
    uint64_t work; /* of the search, as algorithms count it */
    bool finished; /* false: it was stopped before its end */
    void *owned;   /* of a document that was read */
};

/* --- JSON: tsctl_plan_json.c, tsctl_plan_read.c --- */

struct ts_json *tsctl_plan_json(const struct tsctl_plan_doc *doc); /* the caller owns it */
enum ts_status tsctl_plan_read(const char *path, struct tsctl_plan_doc **out, struct ts_error *err);
enum ts_status tsctl_plan_parse(const struct ts_json *json, struct tsctl_plan_doc **out,
                                struct ts_error *err);
void tsctl_plan_doc_destroy(struct tsctl_plan_doc **doc); /* of a document that was read */
/* The same device in another description of the cluster: node by name, device by type and place in its node;
 * to->gpu_count when there is none. */
uint32_t tsctl_plan_same_gpu(const struct ts_cluster *from, uint32_t gpu, const struct ts_cluster *to);
/* The document's plan over the devices of another description of the cluster. A replica with a device that is
 * gone or dead is left out, with its flows; `lost` (may be NULL) counts those. */
enum ts_status tsctl_plan_bind(const struct tsctl_plan_doc *doc, const struct ts_cluster *cluster,
                               struct ts_plan **out, uint32_t *lost, struct ts_error *err);

/* --- What the plan says, derived: tsctl_plan_doc.c --- */

double tsctl_plan_gap(const struct ts_plan *plan);            /* share of the bound; NAN without one */
double tsctl_plan_attained(const struct tsctl_plan_doc *doc); /* share of requests within all deadlines */
uint32_t tsctl_plan_place(const struct ts_cluster *cluster, uint32_t gpu); /* index in its node */
const struct ts_device_type *tsctl_plan_type(const struct ts_cluster *cluster, uint32_t gpu);

uint32_t tsctl_plan_group_tp(const struct ts_group *group);               /* the largest of its stages */
double tsctl_plan_group_rate(const struct ts_plan *plan, uint32_t group); /* requests/s */
double tsctl_plan_group_price(const struct tsctl_plan_doc *doc, uint32_t group);
/* Weights that one device of the stage holds. */
double tsctl_plan_stage_bytes(const struct ts_model *model, const struct ts_group *group, uint32_t stage);
const char *tsctl_plan_phase_name(enum ts_phase phase); /* "prefill", "decode", "both" */
char tsctl_plan_phase_letter(enum ts_phase phase);      /* P, D, C (colocated) */

/* KV bytes of one request on the wire; `crossing`: of those, between different nodes. */
double tsctl_plan_flow_bytes(const struct tsctl_plan_doc *doc, const struct ts_flow *flow, bool crossing);
double tsctl_plan_crossing_bytes(const struct tsctl_plan_doc *doc); /* mean over all served requests */

#define TSCTL_PLAN_WORDS 200
/* "2x A5000, 2x 3090Ti"; with `nodes` "2x A5000 in n1, 2x 3090Ti in n3". Cut to fit. Returns `out`. */
const char *tsctl_plan_gpus_words(const struct tsctl_plan_doc *doc, const struct ts_group *group, bool nodes,
                                  char out[TSCTL_PLAN_WORDS]);
/* The same with nodes, shortened to counts where it is long: "8x A6000, 6x A40 in 3 nodes". */
const char *tsctl_plan_gpus_brief(const struct tsctl_plan_doc *doc, const struct ts_group *group,
                                  char out[TSCTL_PLAN_WORDS]);
const char *tsctl_plan_layers_words(const struct ts_group *group, char out[TSCTL_PLAN_WORDS]); /* "32+28" */
/* "TP2 PP2"; stages of different TP as "TP4+2 PP2". */
const char *tsctl_plan_shape_words(const struct ts_group *group, char out[TSCTL_PLAN_WORDS]);

/* --- For people --- */

void tsctl_plan_table(const struct tsctl_plan_doc *doc, bool by_class, FILE *to); /* tsctl_plan_table.c */
void tsctl_plan_svg(const struct tsctl_plan_doc *doc, FILE *to);                  /* tsctl_plan_svg.c */

/* A file to be written, and its end, in words if it fails. */
FILE *tsctl_plan_open(const char *path, struct ts_error *err);
enum ts_status tsctl_plan_close(FILE *file, const char *path, struct ts_error *err);
/* To a file, or with path NULL to stdout. Takes the JSON. */
enum ts_status tsctl_plan_write_json(struct ts_json **json, const char *path, struct ts_error *err);
enum ts_status tsctl_plan_write_svg(const struct tsctl_plan_doc *doc, const char *path, struct ts_error *err);

/* tsctl_plan_diff.c: from `a` to `b`. The JSON is the caller's. */
struct ts_json *tsctl_plan_diff(const struct tsctl_plan_doc *a, const struct tsctl_plan_doc *b);
void tsctl_plan_diff_table(const struct tsctl_plan_doc *a, const struct tsctl_plan_doc *b, FILE *to);

#endif
