/* A relay core r0 with its router (relay:1) and the mapped pool of one worker p0 (pool:1), and the lines of a
 * transfer of 20 tokens in two layers. */
#ifndef RELAY_FIXTURE_H
#define RELAY_FIXTURE_H

#include "core_fixture.h"
#include "services/relay/relay_core.h"

#define POOL                                                                                                 \
    "pool path=/p fingerprint=7 layers=2 layer_end=2 kv_heads=2 head_end=2 kv_blocks=8 head_dim=64 "         \
    "kv_dtype=3"
#define BEGIN(rid)                                                                                           \
    "pool:1 kv_begin rid=" rid " decode=d0 endpoint=tcp://d0 decode_incarnation=9 " I8 " token_count=20 "    \
    "blocks=4,6 generations=1,2 chain=77 "
#define CONNECT           "kv:1000 connect endpoint=tcp://d0\nkv:1000 hello role=relay id=r0"
#define OPEN(rid)         "kv:1000 kv_open rid=" rid
#define OVER(rid, reason) "relay:1 transfer rid=" rid " reason=" reason
#define FAILED(rid, reason)                                                                                  \
    OVER(rid, reason) "\npool:1 release rid=" rid " reason=" reason /* both hear of it */
#define FREED(rid)        "pool:1 kv_freed rid=" rid
#define READY(rid, layer) "pool:1 kv_ready layer_begin=" layer " layer_end=2 items=" rid ":0:20"
#define SEAL(rid)         "pool:1 kv_seal rid=" rid " prompt_ids=*20 produced=42 first=42:A"
#define ENCODE(job, layer)                                                                                   \
    "encode job=" job " pool=1 " I8                                                                          \
    " blocks=4,6 head_begin=0 head_count=2 token_begin=0 token_count=20 layer=" layer

/* What its worker is asked for instead, and answers. */
#define ASK(rid, job, layer)                                                                                 \
    "pool:1 kv_encode rid=" rid " job=" job " " I8                                                           \
    " head_begin=0 head_count=2 token_begin=0 token_count=20 layer=" layer

/* Begun and opened. */
#define OPENED                                                                                               \
    {1, BEGIN("1.1"), CONNECT},                                                                              \
    {                                                                                                        \
        2, "kv:1000 welcome", OPEN("1.1")                                                                    \
    }
/* Both layers are encoded before decode has granted anything. */
#define ENCODED                                                                                              \
    {3, READY("1.1", "0"), ENCODE("1", "0") "\n" ENCODE("2", "1")},                                          \
        {4, "encoded job=1 #5/40 digests=1,2 crc32c=91", ""},                                                \
    {                                                                                                        \
        4, "encoded job=2 #6/44 digests=3,4 crc32c=92", ""                                                   \
    }

struct relay_settings relay_test_settings(void); /* clocks that stand still */
struct core_fixture *relay_begin_alone(const struct relay_settings *settings);
struct core_fixture *relay_begin_with(const struct relay_settings *settings);
struct core_fixture *relay_begin(void);
/* The same with a worker that encodes where it is asked to; with `workers_encode` it always is. */
struct core_fixture *relay_begin_encoding(const struct relay_settings *settings);
void relay_end(struct core_fixture **f); /* no transfer may be left */

#define RELAY_CASE(begun, name, steps) CORE_CASE(begun, name, steps, relay_end)

#endif
