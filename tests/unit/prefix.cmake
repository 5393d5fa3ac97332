# KV that a decode worker has already.
ts_test(test_worker_prefix SOURCES test_worker_prefix.c worker_fixture.c LINK ts_core_fixture ts_worker_core LABELS unit)
ts_test(test_relay_prefix SOURCES test_relay_prefix.c relay_fixture.c LINK ts_core_fixture ts_relay_core LABELS unit)
