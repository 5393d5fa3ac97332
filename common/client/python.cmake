# The Python package as it is imported: sources, and message types made by protoc, in build/.../python.
find_program(PROTOC protoc REQUIRED)
set(TS_PYTHON_DIR lib/python3/dist-packages CACHE STRING "Where the Python package is installed, below the prefix")
set(python_out ${PROJECT_BINARY_DIR}/python)
set(protos ts_common ts_control ts_request ts_kv ts_plan ts_envelope)
set(made)
set(proto_files)
foreach(proto ${protos})
  list(APPEND made ${python_out}/thunderserve/_wire/${proto}_pb2.py)
  list(APPEND proto_files ${PROJECT_SOURCE_DIR}/proto/${proto}.proto)
endforeach()
add_custom_command(
  OUTPUT ${made}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${python_out}/thunderserve/_wire
  COMMAND ${PROTOC} --proto_path=${PROJECT_SOURCE_DIR}/proto --python_out=${python_out}/thunderserve/_wire ${proto_files}
  COMMAND ${CMAKE_COMMAND} "-DFILES=${made}" -P ${CMAKE_CURRENT_SOURCE_DIR}/python_imports.cmake
  DEPENDS ${proto_files} python_imports.cmake
  COMMENT "protoc for Python"
  VERBATIM)
set(copied)
foreach(source __init__.py _client.py _wire/__init__.py)
  set(copy ${python_out}/thunderserve/${source})
  add_custom_command(
    OUTPUT ${copy}
    COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_CURRENT_SOURCE_DIR}/python/thunderserve/${source} ${copy}
    DEPENDS python/thunderserve/${source}
    VERBATIM)
  list(APPEND copied ${copy})
endforeach()
add_custom_target(thunderserve_python ALL DEPENDS ${made} ${copied})
install(DIRECTORY ${python_out}/thunderserve DESTINATION ${TS_PYTHON_DIR} PATTERN __pycache__ EXCLUDE)
install(FILES python/examples/stream.py DESTINATION share/thunderserve/examples)
