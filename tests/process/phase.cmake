ts_pytest(process_phase test_phase.py LABELS process TIMEOUT 120)
