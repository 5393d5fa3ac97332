ts_pytest(process_install test_install.py LABELS process TIMEOUT 300)
ts_pytest(process_clients test_clients.py LABELS process TIMEOUT 300)
