/* How test_cuda_driver steers fake_driver.c, which it loads as cuda_driver.c does. */
#ifndef TS_TESTS_GPU_FAKE_DRIVER_H
#define TS_TESTS_GPU_FAKE_DRIVER_H

struct fake_driver {
    const char *fails; /* this function of the driver returns `result`, if it is not NULL */
    int result, devices;
    int calls;
    int contexts, modules, streams, buffers; /* not given back */
};

struct fake_driver *fake_driver(void);

#endif
