ts_pytest(process_planners test_planners.py LABELS process TIMEOUT 300)
