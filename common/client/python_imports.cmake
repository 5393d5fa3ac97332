# protoc writes `import ts_common_pb2 as ...`, which would need the package's inside on the search path.
foreach(file ${FILES})
  file(READ ${file} text)
  string(REGEX REPLACE "\nimport (ts_[a-z_]+_pb2) as" "\nfrom . import \\1 as" text "${text}")
  file(WRITE ${file} "${text}")
endforeach()
