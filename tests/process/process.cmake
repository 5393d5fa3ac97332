ts_pytest(process_stream test_stream.py)
