ts_pytest(process_encode test_encode.py)
