ts_pytest(process_stream test_stream.py)
ts_pytest(process_kill test_kill.py LABELS process slow TIMEOUT 1500 SERIAL)
ts_pytest(process_load test_load.py LABELS process slow TIMEOUT 1500 SERIAL)
