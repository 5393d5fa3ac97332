/*
 * The flags of `tsctl plan`, and the plan that they ask for: what the verb itself and `explain` share. Exit
 * codes as everywhere in tsctl. One thread.
 */
#ifndef TSCTL_PLAN_MAKE_H
#define TSCTL_PLAN_MAKE_H

#include "common/run/ts_conf.h"
#include "services/tsctl/tsctl_plan_world.h"

struct tsctl_plan_flags {
    struct ts_conf *conf;
    struct tsctl_plan_inputs inputs;
    const char *algorithm, *load, *depth, *current, *out, *svg;
    double time_limit, budget;                       /* budget 0 = not given */
    double window_s, load_gb_per_s, flip_s, since_s; /* of adopt */
    uint64_t max_work;
    uint32_t points, trial;
    bool no_bound, min_cost, frontier, json, by_class, progress;
};

/* 0 = go on; -1 = it was served (--help); otherwise the exit code, and the reason has been printed. */
int tsctl_plan_flags_load(int argc, char **argv, const char *name, struct tsctl_plan_flags *out,
                          struct ts_conf_strings *arguments, struct ts_error *err);
void tsctl_plan_flags_free(struct tsctl_plan_flags *flags);
/* 0 = nothing needed is missing, and `algorithm` is the one named; otherwise as above. */
int tsctl_plan_flags_check(const struct tsctl_plan_flags *flags, const struct plan_algorithm **algorithm,
                           struct ts_error *err);
/* 0 = `world` and `search->plan` are the caller's; otherwise the exit code, and `err` says why. */
int tsctl_plan_make(const struct tsctl_plan_flags *flags, struct tsctl_plan_world *world,
                    struct tsctl_plan_search *search, struct ts_error *err);

/* Where plans are tried: what this one attains by trials. What the program thinks of it stays in its
 * objective and flows. */
void tsctl_plan_promise(const struct tsctl_plan_world *world, struct ts_plan *plan);

int tsctl_plan_main(int argc, char **argv);    /* tsctl plan --cluster ... */
int tsctl_plan_explain(int argc, char **argv); /* tsctl plan explain: tsctl_plan_explain.c */
int tsctl_plan_adopt(int argc, char **argv);   /* tsctl plan adopt: tsctl_plan_adopt.c */

#endif
