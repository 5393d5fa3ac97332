# Kernels for GPUs. TS_CUDA: `on` needs the toolkit's compiler, `off` does not look for it, `auto` takes it when it is there. Nothing of
# the toolkit is linked: kernels are compiled to images that lie in the library as data, the driver is loaded at run time.
set(TS_CUDA auto CACHE STRING "Compile the kernels for GPUs: auto, on or off")
set(TS_CUDA_ARCHS 80 86 89 90 CACHE STRING "Compute capabilities; PTX of the last one is for later devices")
set_property(CACHE TS_CUDA PROPERTY STRINGS auto on off)
string(TOLOWER "${TS_CUDA}" ts_cuda_wish)
if(NOT ts_cuda_wish MATCHES "^(auto|on|off)$")
  message(FATAL_ERROR "TS_CUDA is auto, on or off, not ${TS_CUDA}")
endif()
if(NOT ts_cuda_wish STREQUAL off)
  find_program(TS_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
endif()
if(ts_cuda_wish STREQUAL on AND NOT TS_NVCC)
  message(FATAL_ERROR "TS_CUDA=on, and no nvcc is in PATH, CUDA_HOME or /usr/local/cuda: install the CUDA toolkit, or TS_CUDA=auto")
endif()
set(TS_CUDA_REPORTS "" CACHE INTERNAL "what ptxas said of all images")
set(TS_CUDA_FOUND OFF CACHE INTERNAL "whether kernels are compiled for GPUs")
if(TS_NVCC AND NOT ts_cuda_wish STREQUAL off)
  set(TS_CUDA_FOUND ON CACHE INTERNAL "whether kernels are compiled for GPUs")
  get_filename_component(ts_nvcc_real ${TS_NVCC} REALPATH)
  find_path(TS_CUDA_INCLUDE cuda.h HINTS ${ts_nvcc_real}/../../include ${ts_nvcc_real}/../../targets/${CMAKE_SYSTEM_PROCESSOR}-linux/include)
  message(STATUS "CUDA kernels: ${TS_NVCC}, for sm_${TS_CUDA_ARCHS}")
else()
  message(STATUS "CUDA kernels: not compiled for GPUs (TS_CUDA=${TS_CUDA})")
endif()

# Arithmetic is exact unless an image is FAST: no contraction, divisions and subnormals as IEEE 754 has them (gpu/codec/README.md).
set(TS_NVCC_FLAGS -std=c++17 -O3 -Xptxas -v -Werror all-warnings)
set(TS_NVCC_EXACT -fmad=false -prec-div=true -prec-sqrt=true -ftz=false)

# ts_cuda_image(NAME SOURCE file.cu OUT variable [FAST]): NAME.image.c in the build, an array cuda_image_NAME; and what ptxas says of
# registers and spills in NAME.ptxas, which test kernel_registers reads.
function(ts_cuda_image name)
  cmake_parse_arguments(A "FAST" "SOURCE;OUT" "" ${ARGN})
  set(at ${CMAKE_CURRENT_BINARY_DIR}/${name})
  set(archs)
  if(NOT A_FAST)
    set(archs ${TS_NVCC_EXACT})
  endif()
  foreach(arch ${TS_CUDA_ARCHS})
    list(APPEND archs -gencode arch=compute_${arch},code=sm_${arch})
    set(last ${arch})
  endforeach()
  list(APPEND archs -gencode arch=compute_${last},code=compute_${last})
  get_filename_component(bin ${TS_NVCC} DIRECTORY)
  add_custom_command(
    OUTPUT ${at}.image.c ${at}.ptxas
    COMMAND ${CMAKE_COMMAND} -DAT=${at} -DNAME=cuda_image_${name} -DBIN2C=${bin}/bin2c -P ${PROJECT_SOURCE_DIR}/scripts/cmake/Nvcc.cmake --
      ${TS_NVCC} -fatbin -ccbin ${CMAKE_CXX_COMPILER} ${TS_NVCC_FLAGS} ${archs} -I ${PROJECT_SOURCE_DIR} -MD -MF ${at}.d -MT ${at}.image.c
      ${CMAKE_CURRENT_SOURCE_DIR}/${A_SOURCE} -o ${at}.fatbin
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${A_SOURCE} ${PROJECT_SOURCE_DIR}/scripts/cmake/Nvcc.cmake
    DEPFILE ${at}.d
    COMMENT "nvcc ${A_SOURCE}"
    VERBATIM)
  set(${A_OUT} ${at}.image.c PARENT_SCOPE)
  set(TS_CUDA_REPORTS "${TS_CUDA_REPORTS};${at}.ptxas" CACHE INTERNAL "what ptxas said of all images")
endfunction()

# ts_emulated(TEST [VARIABLE=value...]): a test that was registered finds the driver of the tests, whose device is the CPU
# (tests/gpu/emulated). Only where kernels are compiled for GPUs, too. A test that is left out (TS_KERNELS_ONLY) stays so.
set(TS_EMULATED ${PROJECT_BINARY_DIR}/emulated-driver CACHE INTERNAL "where the driver of the tests lies")
set(TS_FAULT_DRIVER ${PROJECT_BINARY_DIR}/fault-driver CACHE INTERNAL "where the driver lies that fails what TS_FAULT names")
function(ts_emulated name)
  if(NOT TEST ${name})
    return()
  endif()
  set(changes LD_LIBRARY_PATH=set:${TS_EMULATED})
  foreach(variable ${ARGN})
    string(REPLACE "=" "=set:" variable ${variable})
    list(APPEND changes ${variable})
  endforeach()
  set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT_MODIFICATION ${changes})
  if(TARGET ${name})
    add_dependencies(${name} emulated_driver)
  endif()
endfunction()

# ts_without_toolkit(TEST...): tests that need the toolkit's compiler skip where it is not, so that the list of tests is the same.
function(ts_without_toolkit)
  foreach(name ${ARGN})
    add_test(NAME ${name} COMMAND sh -c "echo 'SKIP: no-gpu the kernels are not compiled for GPUs (TS_CUDA)'; exit 77")
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
    ts_set_test_properties(${name} 60 OFF gpu)
  endforeach()
endfunction()
