ts_pytest(process_quality test_quality.py LABELS process TIMEOUT 300)
