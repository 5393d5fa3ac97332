ts_pytest(process_codec_files test_codec_files.py LABELS process TIMEOUT 300)
