# Who encodes: relays, or workers for them.
ts_test(test_relay_encode SOURCES test_relay_encode.c relay_fixture.c LINK ts_core_fixture ts_relay_core LABELS unit)
ts_test(test_worker_encode SOURCES test_worker_encode.c worker_fixture.c LINK ts_core_fixture ts_worker_core LABELS unit)
