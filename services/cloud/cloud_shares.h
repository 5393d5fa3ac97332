/*
 * The shares of a plan message from the flows of a plan, over the groups that are there. A flow's share is
 * its part of the rates of its class's flows; a class whose flows are all gone goes the ways of all others.
 * Flows of one pair by several codecs are one share with the codec that carries most.
 *
 * A message has room for TS_LIST_MAX shares. A plan with more is folded into one class, and if that does not
 * do, thinned to a matrix that sends every group as much as before (the north-west corner rule): at most one
 * share for each group, colocated groups keeping theirs. Plain data.
 */
#ifndef CLOUD_SHARES_H
#define CLOUD_SHARES_H

#include "common/core/ts_msg.h"
#include "common/core/ts_plan.h"

struct cloud_shares {
    struct ts_plan_share *items; /* owned */
    uint32_t count;
    bool folded;
    double served; /* requests/s within deadlines, of the flows that are there */
};

/* `there`: [group]. */
void cloud_shares_make(const struct ts_plan *plan, uint32_t classes, const bool *there,
                       struct cloud_shares *out);
void cloud_shares_fini(struct cloud_shares *shares);

#endif
