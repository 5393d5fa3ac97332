ts_pytest(process_install test_install.py LABELS process TIMEOUT 300)
