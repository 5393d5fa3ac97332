ts_pytest(process_colocated test_colocated.py LABELS process TIMEOUT 120)
