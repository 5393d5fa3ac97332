ts_fuzz(fuzz_conf SOURCES fuzz_conf.c LINK ts_router_conf ts_run)
