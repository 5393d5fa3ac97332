/*
 * CRC-32C (Castagnoli, RFC 3720 appendix B.4). `crc` is 0 for the first piece and the last result for the
 * next one. Goes as fast as memory is read where the processor multiplies polynomials (PCLMULQDQ, better
 * VPCLMULQDQ with AVX-512): such products fold many bytes into 16 with the same remainder (V. Gopal et al.,
 * Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction, Intel 2009). Below that the
 * SSE4.2 instruction, 8 bytes at a time, then a table; all give the same value. Pure, any thread.
 */
#ifndef TS_BASE_CRC32C_H
#define TS_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t ts_crc32c(uint32_t crc, const void *data, size_t size);

/* For tests: the table, and with no more than table (0), instruction (1), products of 128 (2) or 512 bits. */
#define TS_CRC32C_LEVELS 4
uint32_t ts_crc32c_table(uint32_t crc, const void *data, size_t size);
uint32_t ts_crc32c_at(unsigned level, uint32_t crc, const void *data, size_t size);

#endif
