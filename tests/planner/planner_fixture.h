/*
 * Problems for tests of the planner: clusters made from data sheets, models, demands with deadlines, and a
 * seeded generator of random ones. Efficiencies are round numbers of the usual size and not fitted: what a
 * test claims must not hang on them. A fixture owns its cluster; its problem borrows from it, so a fixture
 * does not move once it is made. One thread.
 */
#ifndef PLANNER_FIXTURE_H
#define PLANNER_FIXTURE_H

#include "services/planner/plan_problem.h"

struct planner_fixture {
    struct ts_cluster *cluster;
    struct ts_model model;
    struct ts_demand demand;
    struct plan_problem problem; /* defaults over the three above */
};

/* "A40", "A6000", "A5000", "3090Ti", "A100", "4090", "L4", "H100"; an unknown name is a failed assertion. */
struct ts_device_type planner_fixture_device(const char *name);

struct ts_model planner_fixture_llama_30b(void); /* 52 heads: TP 1, 2, 4 */
struct ts_model planner_fixture_llama_8b(void);  /* grouped-query attention: TP 1, 2, 4, 8 */

/* SPEC names nodes between '|' and their devices between '+': "4xA40|4xA40|2xA5000+2x3090Ti". Every pair of
 * nodes is joined by `gbit` Gbit/s, which is each NIC's limit too. Sealed. */
struct ts_cluster *planner_fixture_cluster(const char *spec, double gbit);
struct ts_cluster *planner_fixture_paper_cloud(double gbit); /* 32 GPUs of 4 types in nodes of 4 and 8 */

enum planner_fixture_work {
    PLANNER_FIXTURE_CODING,      /* long prompts, short outputs */
    PLANNER_FIXTURE_CONVERSATION /* shorter prompts, long outputs */
};

/* `classes` (1..8) classes of equal rate, prompts and outputs log-normal around the means of the work;
 * deadlines: TTFT `scale` times 0.15 s + 0.4 ms a token of prompt, TPOT `scale` times 30 ms, end to end the
 * sum over the output. scale 0 = no deadlines. */
struct ts_demand planner_fixture_demand(enum planner_fixture_work work, uint32_t classes, double rate,
                                        double scale);

/* Takes the cluster. The model is LLaMA-30B, the demand of 4 classes with scale 5. */
void planner_fixture_init(struct planner_fixture *fixture, struct ts_cluster *cluster,
                          enum planner_fixture_work work, double rate);
/* gpus_min..gpus_max (up to 1024) devices of 1..8 types in nodes of 1, 2, 4 or 8, one node in five of two
 * types; links 1..100 Gbit/s, log-uniform; prices within 40 % of the table; either model; 2..6 classes; a
 * rate between what is easy and what is too much. Same seed, same problem. */
void planner_fixture_random(struct planner_fixture *fixture, uint64_t seed, uint32_t gpus_min,
                            uint32_t gpus_max);
void planner_fixture_fini(struct planner_fixture *fixture);

#endif
