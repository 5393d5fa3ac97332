ts_pytest(process_readmes test_readmes.py LABELS process)
