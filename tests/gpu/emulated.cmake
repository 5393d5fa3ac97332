# A driver whose device is the CPU (emulated/emulated_driver.h); ts_emulated (scripts/cmake/Cuda.cmake) has tests and programs run over it.
# And one that stands before any driver and fails what it is told to (faults/fault_driver.cc).
if(TS_CUDA_FOUND)
  add_library(emulated_driver MODULE emulated/emulated_device.c emulated/emulated_enter.c emulated/emulated_memory.c emulated/emulated_queue.c
    emulated/emulated_stream.c faults/driver_faults.c)
  target_link_libraries(emulated_driver PRIVATE ts_flags ts_kernels_host)
  set_target_properties(emulated_driver PROPERTIES PREFIX "" OUTPUT_NAME libcuda SUFFIX .so.1 LIBRARY_OUTPUT_DIRECTORY ${TS_EMULATED})
  add_library(fault_driver MODULE faults/fault_driver.cc faults/driver_faults.c)
  target_link_libraries(fault_driver PRIVATE ts_flags ${CMAKE_DL_LIBS})
  set_target_properties(fault_driver PROPERTIES PREFIX "" OUTPUT_NAME libts-fault-driver SUFFIX .so LIBRARY_OUTPUT_DIRECTORY ${TS_FAULT_DRIVER})
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
  foreach(name test_cuda_driver test_cuda_faults)
    ts_emulated(${name})
    target_compile_definitions(${name} PRIVATE TS_FAULT_DRIVER="${TS_FAULT_DRIVER}/libts-fault-driver.so")
    add_dependencies(${name} fault_driver)
  endforeach()
  if(TS_CUDA_INCLUDE)
    target_include_directories(test_cuda_driver SYSTEM PRIVATE ${TS_CUDA_INCLUDE})
    target_compile_definitions(test_cuda_driver PRIVATE TS_CUDA_HEADER)
  endif()
else()
  ts_without_toolkit(test_cuda_emulated test_cuda_emulated_lazy test_cuda_driver test_cuda_faults)
endif()
