# A socket that remembers as few peers as the test needs to see who is forgotten.
ts_test(test_net_peers SOURCES test_net_peers.c ${PROJECT_SOURCE_DIR}/common/run/ts_net.c LINK ts_run LABELS unit)
target_compile_definitions(test_net_peers PRIVATE NET_PEERS_MAX=4)
