ts_pytest(process_model_defaults test_model_defaults.py LABELS process TIMEOUT 300)
