ts_pytest(process_by_hand test_by_hand.py LABELS process)
