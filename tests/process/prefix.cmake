ts_pytest(process_prefix test_prefix.py LABELS process TIMEOUT 300)
