/*
 * Calls of a CUDA driver that are told to fail, and how often each function was called: for the driver of the
 * tests (emulated/) and for the one that stands before a real one (fault_driver.cc). Any thread may ask.
 *
 * What is to fail is a text, function:nth:result[:sticky][,...]: that call of the function, counted from 1,
 * returns that result; sticky: so does every later call of any function, as when a kernel has lost its
 * device. Names are those that the driver exports: cuMemAlloc_v2:3:2
 */
#ifndef TS_TESTS_GPU_DRIVER_FAULTS_H
#define TS_TESTS_GPU_DRIVER_FAULTS_H

#include <stdint.h>

#if defined(__cplusplus)
extern "C" {
#endif

/* Forgets faults and counts, and takes these. A text that cannot be read ends the program: a test that
 * injects nothing would pass. */
void driver_faults_set(const char *text);

/* Takes TS_FAULT, if TS_FAULT_IN is not given, is the program's name, or a word that it was started with,
 * such as the name of a service. With TS_FAULT_SINCE calls count and fail from when a file of that path is
 * there: how many a program has made until it serves is another number on each device. */
void driver_faults_from_environment(void);

/* Counts a call: the result that it must return now, 0 = it may go on. The name stays where it is. */
int driver_faults_next(const char *function);

uint32_t driver_faults_calls(const char *function);

#if defined(__cplusplus)
}
#endif

#endif
