ts_pytest(process_errors test_errors.py LABELS process TIMEOUT 300)
