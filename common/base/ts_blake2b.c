#include "common/base/ts_blake2b.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#define ROUNDS       12
#define DIGEST_BYTES 8

static const uint64_t iv[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                               0xa54ff53a5f1d36f1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f,
                               0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

/* Which word of the block enters where; rounds 10 and 11 repeat 0 and 1. */
static const uint8_t order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return x >> bits | x << (64 - bits);
}

static void mix(uint64_t v[16], unsigned lane, unsigned shift, uint64_t x, uint64_t y)
{
    uint64_t *a = &v[lane], *b = &v[4 + (lane + shift) % 4], *c = &v[8 + (lane + 2 * shift) % 4],
             *d = &v[12 + (lane + 3 * shift) % 4];
    *a += *b + x;
    *d = rotate(*d ^ *a, 32);
    *c += *d;
    *b = rotate(*b ^ *c, 24);
    *a += *b + y;
    *d = rotate(*d ^ *a, 16);
    *c += *d;
    *b = rotate(*b ^ *c, 63);
}

static void compress(struct ts_blake2b *b, bool last)
{
    uint64_t v[16], words[16];
    memcpy(words, b->block, sizeof words);
    memcpy(v, b->state, sizeof b->state);
    memcpy(v + 8, iv, sizeof iv);
    v[12] ^= b->total;
    v[14] ^= last ? UINT64_MAX : 0;
    for (unsigned i = 0; i < 16; i++)
        words[i] = le64toh(words[i]);
    for (unsigned round = 0; round < ROUNDS; round++) {
        const uint8_t *o = order[round % 10];
        for (unsigned i = 0; i < 4; i++)
            mix(v, i, 0, words[o[2 * i]], words[o[2 * i + 1]]);
        for (unsigned i = 0; i < 4; i++)
            mix(v, i, 1, words[o[8 + 2 * i]], words[o[8 + 2 * i + 1]]);
    }
    for (unsigned i = 0; i < 8; i++)
        b->state[i] ^= v[i] ^ v[8 + i];
}

void ts_blake2b_init(struct ts_blake2b *b)
{
    *b = (struct ts_blake2b){.used = 0};
    memcpy(b->state, iv, sizeof iv);
    b->state[0] ^= 0x01010000 | DIGEST_BYTES;
}

void ts_blake2b_add(struct ts_blake2b *b, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    while (bytes > 0) {
        if (b->used == sizeof b->block) { /* more follows, so this block is not the last */
            b->total += b->used;
            compress(b, false);
            b->used = 0;
        }
        size_t room = sizeof b->block - b->used, n = bytes < room ? bytes : room;
        memcpy(b->block + b->used, from, n);
        b->used += n;
        from += n;
        bytes -= n;
    }
}

uint64_t ts_blake2b_end(struct ts_blake2b *b)
{
    memset(b->block + b->used, 0, sizeof b->block - b->used);
    b->total += b->used;
    compress(b, true);
    return b->state[0];
}
