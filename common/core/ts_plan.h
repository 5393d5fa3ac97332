/*
 * A plan over devices: replicas (groups), their parallel configuration and phase, and the flows between them.
 * The message of the planner protocol (ts_msg_plan.h) carries the same over the slots of live workers.
 */
#ifndef TS_CORE_PLAN_H
#define TS_CORE_PLAN_H

#include "common/core/ts_cluster.h"
#include "common/core/ts_cost.h"
#include "common/core/ts_demand.h"
#include "common/core/ts_terms.h"

#define TS_TP_MAX     8
#define TS_STAGES_MAX 16

/* Devices of one node and one type that share each layer of the range (tensor parallel). */
struct ts_stage {
    uint32_t gpus[TS_TP_MAX]; /* indices into cluster->gpus */
    uint32_t tp;
    uint32_t layers;
};

struct ts_group {        /* one replica: its stages own all layers in order (pipeline parallel) */
    enum ts_phase phase; /* BOTH = colocated: requests are not split */
    struct ts_stage stages[TS_STAGES_MAX];
    uint32_t stage_count;
};

struct ts_flow {
    uint32_t prefill, decode; /* indices of groups; equal for a colocated one */
    uint32_t length_class;
    double rate;     /* requests/s */
    double attained; /* of those, requests/s within all deadlines */
    enum ts_cost_codec codec;
};

struct ts_plan {
    char algorithm[32];
    struct ts_group *groups;
    uint32_t group_count;
    struct ts_flow *flows;
    uint32_t flow_count;
    double objective; /* the evaluator's: plan_eval.h */
    double rate;      /* of all requests, at which it is judged: the demand's, or what goodput scales it to */
    double bound;     /* no plan of this problem is better; NAN = not computed */
    double attained_ttft, attained_tpot,
        attained_e2e;      /* shares of all requests, refused ones count as misses */
    double attained_all;   /* within all deadlines; NAN = what the flows add up to */
    double price_per_hour; /* of the devices used */
    char limit[160];       /* the binding resource, in words */
};

uint32_t ts_group_gpus(const struct ts_group *group); /* devices of all its stages */
/* Stages, layers and devices are the same, in the same order: what one holds in memory the other needs. */
bool ts_group_same_devices(const struct ts_group *a, const struct ts_group *b);

struct ts_plan *ts_plan_new(uint32_t groups, uint32_t flows); /* zeroed, counts set, bound NAN */
struct ts_plan *ts_plan_copy(const struct ts_plan *plan);
void ts_plan_destroy(struct ts_plan **plan);

/* Every device exists, lives and stands in one group at most; stages are of one node and type, tp is a power
 * of two that divides the heads; layers add up; each rank's weights fit; flows name groups of the right phase
 * and classes. An error names group and stage. */
enum ts_status ts_plan_check(const struct ts_plan *plan, const struct ts_cluster *cluster,
                             const struct ts_model *model, const struct ts_demand *demand,
                             struct ts_error *err);

#endif
