# Helpers of the build: a folder's CMakeLists.txt only lists its sources and what it links.
find_package(Threads REQUIRED)
if(TS_KERNELS_ONLY)
  message(STATUS "TS_KERNELS_ONLY: without services, engine and what else needs libraries")
else()
  find_package(PkgConfig REQUIRED)
endif()

add_library(ts_flags INTERFACE)
target_compile_options(ts_flags INTERFACE
  -Wall -Wextra -Wshadow $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes> $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes> -Wvla -Wundef
  $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions> $<$<COMPILE_LANGUAGE:CXX>:-fno-rtti> -fno-strict-aliasing
  -ffp-contract=off -fno-omit-frame-pointer -g)
target_compile_definitions(ts_flags INTERFACE _GNU_SOURCE)
target_include_directories(ts_flags INTERFACE ${PROJECT_SOURCE_DIR})
if(TS_WERROR)
  target_compile_options(ts_flags INTERFACE -Werror)
endif()
if(TS_SANITIZE)
  # The check of function types needs a runtime that C programs, which load kernels for the CPU as a module, do not have.
  target_compile_options(ts_flags INTERFACE -fsanitize=${TS_SANITIZE} -fno-sanitize-recover=all
    $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-fno-sanitize=function>)
  target_link_options(ts_flags INTERFACE -fsanitize=${TS_SANITIZE})
endif()
if(TS_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "TS_FUZZ needs clang: configure with -DCMAKE_C_COMPILER=clang")
  endif()
  target_compile_options(ts_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined)
  target_link_options(ts_flags INTERFACE -fsanitize=address,undefined)
endif()

# Tests are cmocka programs; kernels alone are tested without it too (tests/plain).
find_path(TS_CMOCKA_INCLUDE cmocka.h)
add_library(ts_cmocka INTERFACE)
if(TS_CMOCKA_INCLUDE OR NOT TS_KERNELS_ONLY)
  target_link_libraries(ts_cmocka INTERFACE cmocka)
else()
  target_include_directories(ts_cmocka SYSTEM INTERFACE ${PROJECT_SOURCE_DIR}/tests/plain)
endif()

# ts_present(OUT source...): the sources that exist. One that is listed and not yet written is a warning for developers, and an error
# with cmake -Werror=dev, as scripts/test and scripts/check configure; it is looked for again by the next build.
function(ts_present out)
  set(present)
  foreach(source ${ARGN})
    if(IS_ABSOLUTE "${source}" OR source MATCHES "\\$<" OR EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${source})
      list(APPEND present ${source})
    else()
      message(AUTHOR_WARNING "${CMAKE_CURRENT_SOURCE_DIR}/${source} is listed and does not exist")
      file(GLOB watched CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${source})
    endif()
  endforeach()
  if(NOT present)
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/nothing.c CONTENT "typedef int ts_nothing;\n")
    set(present ${PROJECT_BINARY_DIR}/nothing.c)
  endif()
  set(${out} ${present} PARENT_SCOPE)
endfunction()

# ts_left_out(OUT lib...): whether one of our libraries that is linked is not built: so with TS_KERNELS_ONLY.
function(ts_left_out out)
  set(${out} OFF PARENT_SCOPE)
  foreach(library ${ARGN})
    if(TS_KERNELS_ONLY AND library MATCHES "^ts_" AND NOT TARGET ${library})
      set(${out} ON PARENT_SCOPE)
    endif()
  endforeach()
endfunction()

# ts_library(NAME SOURCES a.c b.c LINK lib...)
function(ts_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK" ${ARGN})
  ts_present(sources ${A_SOURCES})
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC ts_flags ${A_LINK})
endfunction()

# ts_program(NAME SOURCES main.c LINK lib...)
function(ts_program name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK" ${ARGN})
  ts_left_out(left_out ${A_LINK})
  if(left_out)
    return()
  endif()
  ts_present(sources ${A_SOURCES})
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ts_flags ${A_LINK})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endfunction()

# ts_subdirectories(a b ...): adds those of the folders that have a CMakeLists.txt, in this order. With no name it adds nothing; a folder
# that gains a CMakeLists.txt later is found by the next build.
function(ts_subdirectories)
  file(GLOB lists CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*/CMakeLists.txt)
  foreach(folder ${ARGN})
    if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${folder}/CMakeLists.txt)
      add_subdirectory(${folder})
    endif()
  endforeach()
endfunction()

# ts_include_pieces(): includes every *.cmake of the current folder. Each piece of the product registers its tests in a file of
# its own, so that two changes seldom meet in one file.
function(ts_include_pieces)
  file(GLOB pieces CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cmake)
  foreach(piece ${pieces})
    include(${piece})
  endforeach()
endfunction()

function(ts_set_test_properties name timeout serial)
  if(NOT timeout)
    set(timeout 120)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout} LABELS "${ARGN}")
  if(serial)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

# ts_test(NAME SOURCES test.c LINK lib... [LABELS unit] [TIMEOUT seconds] [SERIAL]): a cmocka program under CTest. It finds test data
# by the macro TS_TEST_DATA. SERIAL: nothing else runs beside it.
function(ts_test name)
  cmake_parse_arguments(A "SERIAL" "TIMEOUT" "SOURCES;LINK;LABELS" ${ARGN})
  ts_left_out(left_out ${A_LINK})
  if(left_out)
    return()
  endif()
  ts_present(sources ${A_SOURCES})
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ts_flags ${A_LINK} ts_cmocka)
  target_compile_definitions(${name} PRIVATE TS_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests-bin)
  add_test(NAME ${name} COMMAND ${name})
  ts_set_test_properties(${name} "${A_TIMEOUT}" "${A_SERIAL}" ${A_LABELS})
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
endfunction()

# ts_pytest(NAME test_file.py [LABELS process] [TIMEOUT seconds] [SERIAL]): a pytest file under CTest, run by Debian's Python. It finds
# the build by TS_BUILD_DIR (programs are in its bin/) and the source tree by TS_SOURCE_DIR.
function(ts_pytest name file)
  cmake_parse_arguments(A "SERIAL" "TIMEOUT" "LABELS" ${ARGN})
  add_test(NAME ${name}
    COMMAND /usr/bin/python3 -B -m pytest -q -rs --tb=short -p no:cacheprovider ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  ts_set_test_properties(${name} "${A_TIMEOUT}" "${A_SERIAL}" ${A_LABELS})
  set_tests_properties(${name} PROPERTIES ENVIRONMENT
    "TS_BUILD_DIR=${PROJECT_BINARY_DIR};TS_SOURCE_DIR=${PROJECT_SOURCE_DIR};PYTHONDONTWRITEBYTECODE=1")
endfunction()

# ts_fuzz(NAME SOURCES fuzz.c LINK lib...): a libFuzzer target, built with -DTS_FUZZ=ON. The test of the same name replays the
# committed corpus in tests/fuzz/corpus/NAME.
function(ts_fuzz name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK" ${ARGN})
  ts_present(sources ${A_SOURCES})
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ts_flags ${A_LINK})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz-bin)
  add_test(NAME ${name}
    COMMAND ${name} -runs=0 -error_exitcode=1 -artifact_prefix=${PROJECT_BINARY_DIR}/ ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
  ts_set_test_properties(${name} 300 OFF fuzz)
endfunction()
