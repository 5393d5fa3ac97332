# Over the driver whose device is the CPU (tests/gpu/emulated).
if(TS_CUDA_FOUND)
  foreach(piece device device_faults)
    ts_pytest(process_${piece} test_${piece}.py TIMEOUT 600)
    ts_emulated(process_${piece})
  endforeach()
else()
  ts_without_toolkit(process_device process_device_faults)
endif()
