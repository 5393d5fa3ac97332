# libthunderserve, static and shared, for programs outside this tree. One object holds the client and what it needs of our
# libraries; of its symbols only ts_client_* stay visible, so that nothing of ours can meet a name of the program it is linked into.
# ZeroMQ and protobuf-c stay libraries of the system.
set(parts ts_run ts_proto ts_core ts_base)
set(archives)
foreach(part ${parts})
  list(APPEND archives $<TARGET_FILE:${part}>)
endforeach()
set(object ${CMAKE_CURRENT_BINARY_DIR}/thunderserve.o)
add_custom_command(
  OUTPUT ${object}
  COMMAND ${CMAKE_LINKER} -r -o ${object}.all --whole-archive $<TARGET_FILE:ts_client> --no-whole-archive
          --start-group ${archives} --end-group
  COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=ts_client_* ${object}.all ${object}
  DEPENDS ts_client ${parts}
  COMMENT "thunderserve.o"
  VERBATIM)
set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
add_custom_target(thunderserve_object DEPENDS ${object})

set(TS_CLIENT_INCLUDE ${CMAKE_CURRENT_BINARY_DIR}/include)
configure_file(ts_client.h ${TS_CLIENT_INCLUDE}/thunderserve/ts_client.h COPYONLY)

add_library(thunderserve SHARED ${object})
add_library(thunderserve_static STATIC ${object})
foreach(library thunderserve thunderserve_static)
  add_dependencies(${library} thunderserve_object)
  set_target_properties(${library} PROPERTIES LINKER_LANGUAGE C OUTPUT_NAME thunderserve)
  target_include_directories(${library} INTERFACE $<BUILD_INTERFACE:${TS_CLIENT_INCLUDE}> $<INSTALL_INTERFACE:include>)
  target_link_libraries(${library} PRIVATE zmq protobuf-c m pthread)
endforeach()
set_target_properties(thunderserve PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} EXPORT_NAME client)
set_target_properties(thunderserve_static PROPERTIES EXPORT_NAME client_static)
if(TS_SANITIZE)
  target_link_options(thunderserve PRIVATE -fsanitize=${TS_SANITIZE})
endif()

foreach(example generate stream)
  add_executable(example_${example} examples/${example}.c)
  target_link_libraries(example_${example} PRIVATE ts_flags thunderserve)
  set_target_properties(example_${example} PROPERTIES
    OUTPUT_NAME ${example} RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
endforeach()

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/thunderserve)
file(RELATIVE_PATH TS_PREFIX_FROM_PC /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(thunderserve.pc.in thunderserve.pc @ONLY)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/thunderserveConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(TARGETS thunderserve thunderserve_static EXPORT thunderserveTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT thunderserveTargets NAMESPACE thunderserve:: DESTINATION ${package_dir})
install(FILES thunderserveConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/thunderserveConfigVersion.cmake DESTINATION ${package_dir})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/thunderserve.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ts_client.h DESTINATION include/thunderserve)
install(FILES examples/generate.c examples/stream.c DESTINATION ${CMAKE_INSTALL_DATADIR}/thunderserve/examples)
