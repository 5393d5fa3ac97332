/*
 * Money: what to rent. `tsctl plan --budget`, `--min-cost` and `--frontier` ask
 * services/planner/money/plan_money.h, with all devices of the cluster file as offers, and print the purchase
 * with its plan, or all purchases that no other one beats. One thread.
 */
#ifndef TSCTL_PLAN_MONEY_H
#define TSCTL_PLAN_MONEY_H

#include "services/planner/money/plan_money.h"
#include "services/tsctl/tsctl_plan_make.h"

/* Whether the flags ask for it. */
bool tsctl_plan_money_asked(const struct tsctl_plan_flags *flags);
/* Exit code; `err` says why. */
int tsctl_plan_money(struct tsctl_plan_flags *flags, struct ts_error *err);

/* Rate (or share) against price. `world_doc`: any document over the offers. tsctl_plan_svg_frontier.c */
void tsctl_plan_svg_frontier(const struct tsctl_plan_doc *world_doc, const struct plan_money_point *points,
                             uint32_t count, FILE *to);
/* "2x A40, 4x A6000" of all replicas together. */
const char *tsctl_plan_bought_words(const struct ts_cluster *cluster, const struct ts_plan *plan,
                                    char out[TSCTL_PLAN_WORDS]);

#endif
