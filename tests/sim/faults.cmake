# Transfers over a faulty network: 1,000 in each run, 10,000 where tests may be slow.
ts_test(test_transfer_faults SOURCES test_transfer_faults.c faulty.c faulty_kv.c faulty_router.c
        LINK ts_relay_core ts_worker_core ts_codec ts_run ts_proto ts_core ts_base LABELS sim TIMEOUT 300)
add_test(NAME transfer_faults_10000 COMMAND test_transfer_faults 10000)
set_tests_properties(transfer_faults_10000 PROPERTIES LABELS "sim;slow" TIMEOUT 300)
# The same cores where both sides are cut into several workers.
ts_test(test_transfer_parts SOURCES test_transfer_parts.c parted.c faulty_kv.c
        LINK ts_relay_core ts_worker_core ts_codec ts_run ts_proto ts_core ts_base LABELS sim)
