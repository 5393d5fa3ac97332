ts_pytest(process_refeed test_refeed.py LABELS process TIMEOUT 300)
