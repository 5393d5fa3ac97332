ts_pytest(process_token_ids test_token_ids.py LABELS process TIMEOUT 300)
