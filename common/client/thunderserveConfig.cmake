# find_package(thunderserve), then target_link_libraries(... thunderserve::client) or thunderserve::client_static.
include("${CMAKE_CURRENT_LIST_DIR}/thunderserveTargets.cmake")
