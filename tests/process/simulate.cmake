ts_pytest(process_simulate test_simulate.py LABELS process TIMEOUT 600)
