ts_pytest(process_links test_links.py LABELS process TIMEOUT 120 SERIAL)
