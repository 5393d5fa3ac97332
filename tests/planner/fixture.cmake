ts_library(ts_planner_fixture SOURCES planner_fixture.c LINK ts_planner_core ts_core ts_base m)
