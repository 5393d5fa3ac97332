ts_pytest(process_workload test_workload.py LABELS process)
