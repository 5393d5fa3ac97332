ts_test(test_cost SOURCES test_cost.c LINK ts_core m LABELS unit)
ts_pytest(planner_cost_fit test_cost_fit.py LABELS process slow TIMEOUT 600)
ts_pytest(planner_cost_eval test_cost_eval.py LABELS process TIMEOUT 300)
ts_test(test_cost_catalogue SOURCES test_cost_catalogue.c LINK ts_inputs ts_core m LABELS unit)
