# A request between owners that cut the model differently: several receivers, several senders.
ts_test(test_relay_parts SOURCES test_relay_parts.c relay_fixture.c LINK ts_core_fixture ts_relay_core LABELS unit)
ts_test(test_worker_parts SOURCES test_worker_parts.c worker_fixture.c LINK ts_core_fixture ts_worker_core LABELS unit)
