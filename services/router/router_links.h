/*
 * What relays have measured of the ways to decode workers: found by the ids of both, as reported last. A link
 * is forgotten with its relay or its worker; there are at most ROUTER_LINKS_MAX. Beside the measurement
 * stands what the cluster file says of the two hosts: one line is logged when a link stays far below it, and
 * one when it has recovered.
 *
 * Whoever chooses by speed takes `bytes_per_s` where it is known and not `at_least`, else
 * `expected_bytes_per_s`, else knows nothing.
 */
#ifndef ROUTER_LINKS_H
#define ROUTER_LINKS_H

#include "services/router/router_core.h"

#define ROUTER_LINKS_MAX 16384

struct router_link_info {
    double bytes_per_s;          /* of KV, as measured; 0 = not yet */
    bool at_least;               /* it carries that, and nothing has shown its limit yet */
    double expected_bytes_per_s; /* by the cluster file; 0 = it does not say */
    ts_time rtt, age;            /* 0 = not known; since it was measured */
    bool slow;                   /* far below what is expected, for LINK_SLOW_REPORTS reports */
};

/* False: nobody has reported that link, and the cluster file does not know its hosts. */
bool router_links_find(const struct router_core *core, const char *relay, const char *decode,
                       struct router_link_info *out);

#endif
