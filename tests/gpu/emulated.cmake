# A driver whose device is the CPU (emulated/emulated_driver.h); ts_emulated (scripts/cmake/Cuda.cmake) has tests and programs run over it.
if(TS_CUDA_FOUND)
  add_library(emulated_driver MODULE emulated/emulated_device.c emulated/emulated_fault.c emulated/emulated_memory.c emulated/emulated_queue.c
    emulated/emulated_stream.c)
  target_link_libraries(emulated_driver PRIVATE ts_flags ts_kernels_host)
  set_target_properties(emulated_driver PROPERTIES PREFIX "" OUTPUT_NAME libcuda SUFFIX .so.1 LIBRARY_OUTPUT_DIRECTORY ${TS_EMULATED})
endif()

# On a GPU, and over that driver.
ts_test(test_cuda_device SOURCES test_cuda_device.c cuda_child.c LINK ts_cuda LABELS gpu TIMEOUT 120)
if(TS_CUDA_FOUND)
  foreach(lazy 0 1)
    string(REPLACE 0 "" name test_cuda_emulated${lazy})
    string(REPLACE 1 _lazy name ${name})
    add_test(NAME ${name} COMMAND test_cuda_device)
    ts_set_test_properties(${name} 300 OFF gpu)
    ts_emulated(${name} TS_EMULATED_LAZY=${lazy})
  endforeach()
  add_dependencies(test_cuda_device emulated_driver)

  # Opening, results and refusals; every call of the driver fails in turn.
  ts_test(test_cuda_driver SOURCES test_cuda_driver.c cuda_child.c kernel_fixture.c LINK ts_cuda LABELS gpu TIMEOUT 300)
  ts_test(test_cuda_faults SOURCES test_cuda_faults.c cuda_child.c LINK ts_cuda LABELS gpu TIMEOUT 300)
  ts_emulated(test_cuda_driver)
  ts_emulated(test_cuda_faults)
  if(TS_CUDA_INCLUDE)
    target_include_directories(test_cuda_driver SYSTEM PRIVATE ${TS_CUDA_INCLUDE})
    target_compile_definitions(test_cuda_driver PRIVATE TS_CUDA_HEADER)
  endif()
else()
  ts_without_toolkit(test_cuda_emulated test_cuda_emulated_lazy test_cuda_driver test_cuda_faults)
endif()
