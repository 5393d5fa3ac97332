# The engine on CUDA devices: on the CPU's emulation, and on a device where there is one.
ts_test(kernel_weights SOURCES kernel_weights.c LINK ts_kernels_host ts_cpu m LABELS gpu TIMEOUT 120)
ts_test(kernel_engine SOURCES kernel_engine.c cuda_engine_fixture.c families_fixture.c model_fixture.c
        LINK ts_engine ts_kernels_host ts_random_model m LABELS gpu TIMEOUT 600)
ts_test(test_cuda_engine SOURCES test_cuda_engine.c cuda_engine_fixture.c families_fixture.c model_fixture.c
        LINK ts_engine ts_random_model m LABELS gpu TIMEOUT 300)
if(TS_CUDA_FOUND)
  ts_test(test_cuda_engine_faults SOURCES test_cuda_engine_faults.c LINK ts_engine ts_random_model ${CMAKE_DL_LIBS} LABELS gpu TIMEOUT 300)
  ts_emulated(test_cuda_engine_faults TS_CUDA_OVERLAP=on)
else()
  ts_without_toolkit(test_cuda_engine_faults)
endif()
