ts_library(ts_sim_world SOURCES sim_world.c LINK ts_cloud ts_core ts_base)
ts_test(test_sim_seeds SOURCES test_sim_seeds.c LINK ts_sim_world LABELS sim TIMEOUT 300)
ts_test(test_sim_breaks SOURCES test_sim_breaks.c LINK ts_sim_world LABELS sim TIMEOUT 300)
