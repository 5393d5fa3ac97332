/* How a test asks the driver whose device is the CPU, which it and cuda_driver.c have loaded. Include
 * cmocka.h first. */
#ifndef TS_TESTS_GPU_EMULATED_FIXTURE_H
#define TS_TESTS_GPU_EMULATED_FIXTURE_H

#include <dlfcn.h>
#include <stdio.h>

#include "tests/gpu/emulated/emulated_driver.h"

static const struct emulated_driver *emulated;

/* At the beginning of main. */
static inline const struct emulated_driver *emulated_find(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    emulated = library ? dlsym(library, "ts_cuda_is_emulated") : NULL;
    if (!emulated)
        printf("run by ctest, which puts the driver of the tests in the way\n");
    return emulated;
}

static inline void emulated_nothing_left(void)
{
    for (int kind = 0; kind < EMULATED_KINDS; kind++)
        assert_int_equal(emulated->left((enum emulated_kind)kind), 0);
}

#endif
