# A driver whose device is the CPU (emulated/emulated_driver.h); ts_emulated (scripts/cmake/Cuda.cmake) has tests and programs run over it.
if(TS_CUDA_FOUND)
  add_library(emulated_driver MODULE emulated/emulated_device.c emulated/emulated_fault.c emulated/emulated_memory.c emulated/emulated_stream.c)
  target_link_libraries(emulated_driver PRIVATE ts_flags ts_kernels_host)
  set_target_properties(emulated_driver PROPERTIES PREFIX "" OUTPUT_NAME libcuda SUFFIX .so.1 LIBRARY_OUTPUT_DIRECTORY ${TS_EMULATED})
endif()
