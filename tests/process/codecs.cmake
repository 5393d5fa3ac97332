ts_pytest(process_codecs test_codecs.py)
