/* The program behind ts-prefill and ts-decode: they differ in the phase they start with. */
#ifndef WORKER_PROGRAM_H
#define WORKER_PROGRAM_H

#include "common/core/ts_msg.h"

int worker_program(const char *service, enum ts_phase phase, int argc, char **argv);

#endif
