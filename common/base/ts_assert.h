/*
 * TS_ASSERT guards against faults of the programmer, in release builds too. It must never be reachable by
 * input of a peer, a file or a person: those get a status.
 */
#ifndef TS_BASE_ASSERT_H
#define TS_BASE_ASSERT_H

#define TS_ASSERT(cond) ((cond) ? (void)0 : ts_assert_failed(#cond, __FILE__, __LINE__))

#define TS_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

_Noreturn void ts_assert_failed(const char *cond, const char *file, int line);

#endif
