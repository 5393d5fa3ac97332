/* A router core with one prefill worker p0 (worker:1), its relay r0 (relay:1), one decode worker d0
 * (worker:2) and a client (client:9). */
#ifndef ROUTER_FIXTURE_H
#define ROUTER_FIXTURE_H

#include "core_fixture.h"
#include "services/router/router_core.h"

#define ROUTER 500 /* incarnation: epoch, and rid.router */

#define HELLO_R0 "relay:1 hello role=relay id=r0"
#define WORKER(id, role, more)                                                                               \
    "hello role=worker id=" id " profile.phase=" role                                                        \
    " profile.phases=3 profile.model=m profile.fingerprint=7 "                                               \
    "profile.kv_endpoint=tcp://" id " " more
#define HELLO_P0 "worker:1 " WORKER("p0", "prefill", "profile.relay=r0")
#define HELLO_D0 "worker:2 " WORKER("d0", "decode", "")
#define HELLO_D1 "worker:3 " WORKER("d1", "decode", "")
#define HELLO_P1 "worker:4 " WORKER("p1", "prefill", "profile.relay=r0")

#define GENERATE(id) GENERATE_OF("c", id)
#define GENERATE_OF(client, id)                                                                              \
    "generate client=" client " request_id=" id " digest=1 prompt_kind=tokens sampling.temperature=1 "       \
    "sampling.top_p=1 sampling.repetition_penalty=1 sampling.max_tokens=4 "                                  \
    "sampling.given=31 "

struct router_settings router_test_settings(void); /* the defaults with clocks that stand still */
struct core_fixture *router_begin(const struct router_settings *settings);
struct core_fixture *router_begin_cluster(
    const struct router_settings *settings); /* r0, p0 and d0 are there */
struct router_core *router_of(const struct core_fixture *f);
void router_end(struct core_fixture **f);

#define ROUTER_CASE(begun, name, steps) CORE_CASE(begun, name, steps, router_end)

#endif
