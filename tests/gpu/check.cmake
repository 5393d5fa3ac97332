ts_pytest(test_gpu_check test_gpu_check.py LABELS gpu)
