"""tsctl simulate and tsctl report: the same bytes for the same seed, records that say what the report says, a
load that one can compute by hand, and clear words for what is wrong."""

import csv
import json
import os
import subprocess

import pytest

TSCTL = os.path.join(os.environ["TS_BUILD_DIR"], "bin", "tsctl")
SOURCE = os.environ["TS_SOURCE_DIR"]
SMALL = ["--cluster", "one-gpu", "--model", "llama-3-8b", "--workload", "even"]
SPLIT = ["--cluster", "two-nodes", "--model", "llama-3-8b", "--workload", "azure-conv", "--rate", "2"]


def tsctl(*words, code=0):
    done = subprocess.run([TSCTL, *words], cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def simulate(*words):
    return json.loads(tsctl("simulate", *words, "--json"))


def test_same_seed_same_bytes(tmp_path):
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv", "c.csv")]
    words = ["simulate", *SPLIT, "--requests", "300", "--noise", "0.1", "--json"]
    first = tsctl(*words, "--csv", files[0])
    assert tsctl(*words, "--csv", files[1]) == first
    texts = [open(name).read() for name in files[:2]]
    assert texts[0] == texts[1]
    assert tsctl(*words, "--csv", files[2], "--seed", "2") != first


def test_reports_say_why_requests_were_not_served(tmp_path):
    path, plan = tmp_path / "trace.jsonl", str(tmp_path / "plan.json")
    lines = [json.dumps({"timestamp": 1000 * i, "input_length": p, "output_length": 5}) + "\n" for i, p in enumerate((100, 1 << 20, 100, 1 << 20))]
    path.write_text("".join(lines))  # the context of simulations ends at 1 << 20
    tsctl("plan", *SMALL, "--slo", "scale-5", "--no-bound", "--out", plan)  # one for such prompts would be refused itself
    words = ["--plan", plan, "--workload", str(path)]
    run = simulate(*words)
    assert run["requests"] == 4 and run["completed"] == 2 and run["refused"] + run["failed"] == 2
    assert run["reasons"] == {"prompt_too_long": 1, "overloaded": 1}  # by the worker; by the router, which knows by then what such prompts take
    shown = tsctl("simulate", *words)
    assert "prompt_too_long: 1\n" in shown and "overloaded: 1\n" in shown
    path.write_text("".join(lines).replace(str(1 << 20), str((1 << 20) + 1)))
    assert "request 1 has a prompt of 1048577 tokens; at most 1048576 can be sent" in tsctl("simulate", *words, code=1)


def test_records_say_what_the_report_says(tmp_path):
    path = str(tmp_path / "run.csv")
    run = simulate(*SPLIT, "--requests", "400", "--csv", path)
    again = json.loads(tsctl("report", path, "--slo-scale", "5", "--gpus", str(run["gpus"]), "--price",
                             str(run["price_per_hour"]), "--json"))
    rows = list(csv.DictReader(open(path)))
    assert len(rows) == run["requests"] == again["requests"] == 400
    assert run["attainment"] == again["attainment"] and run["slo"] == again["slo"]
    for key in ("completed", "refused", "failed", "reasons"):
        assert run[key] == again[key]
    for key in ("requests_per_s", "output_tokens_per_s", "goodput_per_s", "goodput_per_gpu", "goodput_per_dollar"):
        assert run[key] == pytest.approx(again[key], rel=1e-6)
    for part, value in run["time"].items():
        assert value["mean_ms"] == pytest.approx(again["time"][part]["mean_ms"], abs=1e-3)
    assert sum(value["mean_ms"] for value in run["time"].values()) == pytest.approx(run["latency_ms"]["e2e"]["mean"],
                                                                                   rel=1e-4)
    late = sum(float(row["ttft_ms"] or 1e9) > 2 * float(row["want_ttft_ms"]) for row in rows)
    shares = {point["scale"]: point for point in run["attainment"]}
    assert shares[2]["ttft"]["share"] == pytest.approx(1 - late / 400)
    assert shares[2]["ttft"]["low"] <= shares[2]["ttft"]["share"] <= shares[2]["ttft"]["high"]
    last = [run["attainment"][-1][key]["share"] for key in ("ttft", "tpot", "e2e", "all")]
    assert last[3] <= min(last[:3])


def test_light_load_is_served_in_its_own_time(tmp_path):
    """One request at a time: no queue, and the times of the reference, for it is the reference."""
    run = simulate(*SMALL, "--rate", "0.05", "--requests", "50", "--scales", "0.5,1.5,3")
    assert run["completed"] == 50
    assert run["time"]["router_queue"]["mean_ms"] < 1 and run["time"]["prefill_queue"]["mean_ms"] < 5
    assert run["attainment"][0]["ttft"]["share"] == 0
    assert run["attainment"][2]["all"]["share"] > 0.95
    assert run["requests_per_s"] == pytest.approx(0.05, rel=0.4)
    assert len(run["replicas"]) == 1 and 0 < run["replicas"][0]["busy"] < 0.5
    assert run["replicas"][0]["output_tokens_per_s"] == pytest.approx(run["output_tokens_per_s"], rel=0.1)


def test_promise(tmp_path):
    """What a plan promises by trials is what its simulation brings, near the limit of the cluster and where a program in equilibrium is far off."""
    for workload, algorithm, rate in (("conv", "colocated", "8.2"), ("code", "hexgen", "7.99"), ("code", "distserve", "7"), ("conv", "thunder", "4")):
        path = str(tmp_path / f"{workload}-{algorithm}.json")
        same = ["--cluster", "paper-inhouse", "--model", "llama-30b", "--slo", "scale-5", "--rate", rate]
        plan = json.loads(tsctl("plan", *same, "--workload", f"tests/data/workloads/azure-{workload}-poisson.conf", "--algorithm", algorithm, "--no-bound", "--json", "--out", path))
        run = simulate(*same, "--workload", f"tests/data/traces/AzureLLMInferenceTrace_{workload}.csv", "--poisson", "--shuffle", "--requests", "1500", "--plan", path)
        seen = next(point for point in run["attainment"] if point["scale"] == 5)["all"]["share"]
        assert abs(plan["attained"]["all"] - seen) < 0.08, (workload, algorithm, plan["attained"], seen)


def test_plan_from_a_file(tmp_path):
    plan = str(tmp_path / "plan.json")
    tsctl("plan", *SPLIT, "--slo", "scale-5", "--no-bound", "--out", plan)
    made = simulate(*SPLIT, "--requests", "200")
    read = simulate("--plan", plan, "--requests", "200")
    assert made["attainment"] == read["attainment"] and made["latency_ms"] == read["latency_ms"]
    harder = simulate("--plan", plan, "--rate", "8", "--requests", "200")
    assert harder["latency_ms"]["e2e"]["mean"] > read["latency_ms"]["e2e"]["mean"]
    error = tsctl("simulate", "--plan", plan, "--cluster", "one-gpu", code=1)
    assert "--plan" in error and "one-gpu" in error


def test_invariants_change_nothing_but_the_digest():
    words = ["--cluster", "one-gpu", "--model", "llama-3-8b", "--workload", "azure-conv", "--rate", "2", "--requests", "60"]
    plain = simulate(*words)
    checked = simulate(*words, "--invariants")
    assert len(checked.pop("digest")) == 16
    assert plain == checked


def test_traces_and_timeline():
    trace = os.path.join(SOURCE, "tests", "data", "traces", "mooncake-form.jsonl")
    run = simulate("--cluster", "two-nodes", "--model", "llama-3-8b", "--workload", trace, "--rate", "1", "--timeline-s",
                   "5", "--slo", "none")
    assert run["requests"] == 240
    assert run["slo"]["all"]["share"] == pytest.approx(run["completed"] / 240)
    line = run["timeline"]
    assert line["step_s"] == 5 and len(line["replicas"]) == len(run["replicas"])
    for replica in line["replicas"]:
        assert len(replica["busy"]) == len(replica["kv"]) == len(replica["phase"]) > 10
        assert all(0 <= value <= 1 for value in replica["busy"] + replica["kv"])


def test_planner_in_the_loop():
    run = simulate(*SPLIT, "--requests", "200", "--planner")
    assert run["planner"] and run["completed"] == 200
    assert run["latency_ms"] != simulate(*SPLIT, "--requests", "200")["latency_ms"]


def test_wrong_words():
    assert "--cluster is missing" in tsctl("simulate", code=2)
    assert "unknown" in tsctl("simulate", *SMALL, "--algorithm", "magic", code=2)
    assert "rising" in tsctl("simulate", *SMALL, "--scales", "2,1", code=1)
    assert "cannot read" in tsctl("report", "/nowhere.csv", code=1)
    assert "no trace" in tsctl("simulate", *SMALL, "--skip-s", "5", code=1)


SERVING = ("gpu,site,parallel_clients,model,dtype,timestamp,usd_per_hour,mean_in,mean_out,concurrency,completed,error_rate,out_tok_per_s,req_per_min,"
           "ttft_p50,ttft_mean,ttft_p99,itl_p50,itl_mean,itl_p99,e2e_p50,e2e_mean,e2e_p99\n")


def serving(gpu, model, dtype, per_min="360"):
    return f"{gpu},here,0,{model},{dtype},now,1,550,150,64,64,0,1000,{per_min},0.5,0.6,1.5,0.02,0.02,0.03,3,3,4\n"


def test_validate_states_errors_of_each_row(tmp_path):
    path = tmp_path / "serving.csv"
    path.write_text(SERVING + serving("A100 SXM", "unsloth/Meta-Llama-3.1-8B-Instruct", "BF16") +
                    serving("A100 SXM", "neuralmagic/Meta-Llama-3.1-8B-Instruct-FP8", "FP8") +
                    serving("L4", "Qwen/Qwen2.5-Coder-14B-Instruct", "BF16") +
                    serving("A100 SXM", "unsloth/Meta-Llama-3.1-8B-Instruct", "BF16", per_min=""))
    doc = json.loads(tsctl("simulate", "validate", str(path), "--json"))
    sixteen, eight, large, alone = doc["rows"]
    assert sixteen["line"] == 2 and sixteen["measured"]["e2e_p50"] == 3
    assert sixteen["measured_under_way"] == pytest.approx(18)
    for key, error in (("simulated", "error"), ("simulated_spread", "error_spread")):
        for figure, value in sixteen[key].items():
            assert sixteen[error][figure] == pytest.approx(value / sixteen["measured"][figure] - 1)
    assert eight["simulated"]["itl_p50"] < sixteen["simulated"]["itl_p50"]
    assert sixteen["simulated_spread"]["e2e_mean"] < sixteen["simulated"]["e2e_mean"]
    # 64 requests in 64 / 6 s, the spread tells.
    assert sixteen["simulated_spread"]["out_tok_per_s"] == pytest.approx(64 * 150 / (64 / 6), rel=0.05)
    assert "skipped" in large and "simulated" not in large
    assert alone["simulated"] == alone["simulated_spread"] == sixteen["simulated"]
    groups = {(group["gpu"], group["dtype"]): group for group in doc["groups"]}
    assert groups["A100 SXM", "BF16"]["n"] == 2 and groups["all", "all"]["n"] == 3
    assert groups["A100 SXM", "FP8"]["median"]["e2e_p50"] == pytest.approx(abs(eight["error"]["e2e_p50"]))


def test_validate_lists_unknown_names(tmp_path):
    path = tmp_path / "serving.csv"
    path.write_text(SERVING + serving("A100 SXM", "unsloth/Meta-Llama-3.1-8B-Instruct", "BF16") + serving("B9000", "Some/Model-1T", "BF16"))
    error = tsctl("simulate", "validate", str(path), "--json", code=3)
    assert 'unknown: gpu "B9000"' in error and 'unknown: model "Some/Model-1T"' in error
    path.write_text(SERVING + serving("A100 SXM", "unsloth/Meta-Llama-3.1-8B-Instruct", "BF16", per_min="many"))
    assert ':2: req_per_min = "many"' in tsctl("simulate", "validate", str(path), code=1)
    path.write_text("gpu,model\nA100,x\n")
    assert "not the columns" in tsctl("simulate", "validate", str(path), code=1)
