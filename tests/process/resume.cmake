ts_pytest(process_resume test_resume.py LABELS process TIMEOUT 300)
