/*
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4). `crc` is 0 for the first piece and the last result for the
 * next one. Uses the SSE4.2 instruction where the processor has it, a table otherwise; both give the same
 * value.
 */
#ifndef TS_BASE_CRC32C_H
#define TS_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t ts_crc32c(uint32_t crc, const void *data, size_t size);
uint32_t ts_crc32c_table(uint32_t crc, const void *data, size_t size); /* the portable twin, for tests */

#endif
