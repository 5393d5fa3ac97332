ts_program(ts-delay-line SOURCES ts_delay_line.c LINK ts_base)
ts_pytest(process_delay_line test_delay_line.py LABELS process)
ts_pytest(process_shaped test_shaped.py LABELS process TIMEOUT 300 SERIAL)
ts_pytest(process_relay_bench test_relay_bench.py LABELS process SERIAL)
