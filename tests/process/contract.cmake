ts_pytest(process_contract test_contract.py LABELS process TIMEOUT 300)
