ts_pytest(process_plan test_plan.py LABELS process TIMEOUT 600)
