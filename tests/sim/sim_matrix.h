/*
 * How often each kind of fault met a request in each state: the record at the router, its tasks at the
 * workers, its transfer at the relay. A request is met if the fault's target serves it at that instant. Plain
 * data.
 */
#ifndef SIM_MATRIX_H
#define SIM_MATRIX_H

#include <stdint.h>

#include "tests/sim/sim_script.h"

#define SIM_STATES(X)                                                                                        \
    X(queued)                                                                                                \
    X(retry)                                                                                                 \
    X(assigned)                                                                                              \
    X(streaming)                                                                                             \
    X(kv_there)                                                                                              \
    X(c_tokenising)                                                                                          \
    X(c_waiting)                                                                                             \
    X(c_prefilling)                                                                                          \
    X(c_ready)                                                                                               \
    X(p_tokenising)                                                                                          \
    X(p_waiting)                                                                                             \
    X(p_prefilling)                                                                                          \
    X(p_sealed)                                                                                              \
    X(p_dying)                                                                                               \
    X(d_assigned)                                                                                            \
    X(d_grant_wait)                                                                                          \
    X(d_receiving)                                                                                           \
    X(d_suspended)                                                                                           \
    X(d_ready)                                                                                               \
    X(d_finished)                                                                                            \
    X(d_dying)                                                                                               \
    X(t_opening)                                                                                             \
    X(t_wait_grant)                                                                                          \
    X(t_streaming)                                                                                           \
    X(t_flushing)                                                                                            \
    X(t_retained)                                                                                            \
    X(t_over)

enum sim_state {
#define SIM_STATE_ENUM(name) SIM_AT_##name,
    SIM_STATES(SIM_STATE_ENUM)
#undef SIM_STATE_ENUM
        SIM_STATE_COUNT
};

struct sim_matrix {
    uint64_t happened[SIM_FAULT_KIND_COUNT];
    uint64_t met[SIM_FAULT_KIND_COUNT][SIM_STATE_COUNT];
};

extern const char *const sim_state_names[SIM_STATE_COUNT];

#endif
