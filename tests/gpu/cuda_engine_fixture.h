/*
 * The CUDA engine against the CPU engine over tiny random models: one list of tests for any device, the
 * emulated one and a real one.
 */
#ifndef TS_TESTS_CUDA_ENGINE_FIXTURE_H
#define TS_TESTS_CUDA_ENGINE_FIXTURE_H

#include "gpu/engine/ts_engine_impl.h"

/* How the tests that follow open an engine on their device; options->device is not set. */
typedef enum ts_status (*cuda_engine_opener)(const struct ts_engine_options *options, struct ts_engine **out,
                                             struct ts_error *err);
void cuda_engine_use(cuda_engine_opener open);

/* cmocka tests. */
void cuda_engine_families(void **state);  /* teacher-forced logits of every family: KL and best token */
void cuda_engine_biases(void **state);    /* of o and of the MLP, from a stored model */
void cuda_engine_chunks(void **state);    /* a prompt in pieces is the prompt at once */
void cuda_engine_graphs(void **state);    /* decode by graph is decode by launches, bit for bit */
void cuda_engine_padding(void **state);   /* padded rows leave the pool alone */
void cuda_engine_shards(void **state);    /* stages one behind the other; keys of a shard of heads */
void cuda_engine_int8(void **state);      /* near the model in 16 bits */
void cuda_engine_invariant(void **state); /* a row does not depend on its neighbours, bit for bit */
void cuda_engine_samples(void **state);   /* tokens are those that the host draws from the same logits */
void cuda_engine_layers(void **state);    /* events in their order */
void cuda_engine_random(void **state);    /* weights made on the device, from config.json alone */
void cuda_engine_refusals(void **state);  /* options and models that it does not take */

#define CUDA_ENGINE_TESTS                                                                                    \
    cmocka_unit_test(cuda_engine_families), cmocka_unit_test(cuda_engine_biases),                            \
        cmocka_unit_test(cuda_engine_chunks), cmocka_unit_test(cuda_engine_graphs),                          \
        cmocka_unit_test(cuda_engine_padding), cmocka_unit_test(cuda_engine_shards),                         \
        cmocka_unit_test(cuda_engine_int8), cmocka_unit_test(cuda_engine_invariant),                         \
        cmocka_unit_test(cuda_engine_samples), cmocka_unit_test(cuda_engine_layers),                         \
        cmocka_unit_test(cuda_engine_random), cmocka_unit_test(cuda_engine_refusals)

#endif
