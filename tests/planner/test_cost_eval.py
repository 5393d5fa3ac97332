"""`tsctl cost eval`: every name that the profiles mention gets an answer, unknown names are listed, malformed files are named."""

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(os.environ["TS_SOURCE_DIR"])
TSCTL = str(pathlib.Path(os.environ["TS_BUILD_DIR"]) / "bin/tsctl")
PROFILES = ROOT / "tests/data/profiles"


def tsctl(*arguments):
    return subprocess.run([TSCTL, "cost", *map(str, arguments), "--conf-dir", ROOT / "conf"], capture_output=True, text=True)


def evaluate(path):
    run = tsctl("eval", path, "--json")
    return run, json.loads(run.stdout) if run.stdout else None


def write(folder, name, lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


MEASURED = "gpu,model,tp,phase,batch,tokens,measured_ms,scope,interp,source"
SPLITWISE = "model,hardware,tensor_parallel,prompt_size,batch_size,token_size,n,prompt_ms,prompt_min,prompt_max,token_ms,token_min,token_max,e2e_ms"
NETWORK = "node,collective,workers,workers_per_node,bytes,measured_ms,source"


@pytest.mark.parametrize("name", ["measured_dev.csv", "splitwise_dev.csv", "network_dev.csv"])
def test_own_profiles(name):
    run, groups = evaluate(PROFILES / name)
    assert run.returncode == 0, run.stderr
    rows = len((PROFILES / name).read_text(encoding="utf-8").splitlines()) - 1
    assert sum(group["n"] for group in groups) == rows * (2 if name.startswith("splitwise") else 1)
    for group in groups:
        assert set(group) == {"gpu", "model", "phase", "n", "median", "p90"}
        assert 0 <= group["median"] <= group["p90"]
        if group["phase"] in ("linear", "prefill", "decode"):
            assert group["median"] < 0.25, group
    assert "median" in tsctl("eval", PROFILES / name).stdout


def test_names_without_rows_here(tmp_path):
    gpus = ["A40", "A100-80G", "A100-40G", "A30", "H100", "H200", "L40S", "L40", "L4", "T4", "V100-16G", "V100", "RTX3090", "RTX 3090"]
    models = ["CodeLlama-34b", "LLaMA-30B", "OPT-13B", "Llama-2-7b", "Qwen-72B", "internlm-20b", "phi-2", "Qwen-2-7B", "Meta-Llama-3-8B",
              "llama1_30b", "llama2_70b"]
    lines = [MEASURED]
    for gpu in gpus:
        for model in models:
            lines += [f"{gpu},{model},1,linear,1,64,1.0,linear,0,vidur", f"{gpu},{model},2,prefill,2,512,1.0,layer,0,aiconfigurator",
                      f"{gpu},{model},4,decode,8,870,1.0,layer,0,helix"]
    run, groups = evaluate(write(tmp_path, "measured.csv", lines))
    assert run.returncode == 0, run.stderr
    assert len(groups) == 3 * len(gpus) * len(models)
    splitwise = [f"{model},{gpu},8,512,1,128,5,{ms},1,1,20.0,1,1,1" for model in ("bloom-176b", "llama2-70b")
                 for gpu, ms in (("h100-80gb", 100.0), ("h100-80gb-pcap", 100.0), ("a100-80gb", 100.0))]
    run, groups = evaluate(write(tmp_path, "splitwise.csv", [SPLITWISE, *splitwise]))
    assert run.returncode == 0 and len(groups) == 12, run.stderr
    nodes = ["h100_dgx", "h100_pairwise_nvlink", "H100 dgx", "RTX3090", "H100 sxm custom", "L40S pcie nccl", "a100_pairwise_nvlink"]
    network = [f"{node},{what},4,{per_node},65536,0.1,vidur" for node in nodes for what in ("all_reduce", "send_recv") for per_node in (2, 4)]
    run, groups = evaluate(write(tmp_path, "network.csv", [NETWORK, *network]))
    assert run.returncode == 0 and len(groups) == 2 * len(nodes), run.stderr


def test_unknown_names_are_listed(tmp_path):
    path = write(tmp_path, "x.csv", [MEASURED, "A40,Llama-2-7b,1,linear,1,1,1.0,linear,0,vidur", "Z9000,Llama-2-7b,1,linear,1,1,1.0,linear,0,vidur",
                                     "A40,Nonesuch-1B,1,linear,1,1,1.0,linear,0,vidur"])
    run, groups = evaluate(path)
    assert run.returncode == 3
    assert 'gpu "Z9000"' in run.stderr and 'model "Nonesuch-1B"' in run.stderr
    assert [group["gpu"] for group in groups] == ["A40"]


GOOD = "A40,Llama-2-7b,1,linear,1,1,1.0,linear,0,vidur"


@pytest.mark.parametrize("lines, words", [
    ([], "is empty"),
    (["a,b,c", "1,2,3"], ":1: these are not the columns"),
    ([MEASURED, GOOD, "A40,Llama-2-7b,1,linear"], ":3: 4 cells"),
    ([MEASURED, GOOD.replace(",1.0,", ",nan,")], ':2: measured_ms = "nan"'),
    ([MEASURED, GOOD.replace(",1.0,", ",-1,")], ':2: measured_ms = "-1"'),
    ([MEASURED, GOOD.replace(",1.0,", ",1e400,")], ":2: measured_ms"),
    ([MEASURED, GOOD.replace("b,1,linear", "b,1.5,linear")], ':2: tp = "1.5": expected a whole number'),
    ([MEASURED, GOOD.replace("b,1,linear", "b,0,linear")], ':2: tp = "0"'),
    ([MEASURED, GOOD.replace("b,1,linear", "b,1,training")], ':2: phase = "training"'),
    ([MEASURED, "A40" + "x" * 9000], "is not a row"),
    ([NETWORK, "A40 x,all_to_all,2,2,8,1.0,vidur"], ':2: collective = "all_to_all"'),
    ([NETWORK, "A40 x,all_reduce,1,1,8,1.0,vidur"], ":2: workers = 1"),
    ([SPLITWISE, "llama2-70b,a100-80gb,8,512,1,128,5,,1,1,20.0,1,1,1"], ':2: prompt_ms = ""'),
])
def test_malformed_files(tmp_path, lines, words):
    run, groups = evaluate(write(tmp_path, "bad.csv", lines) if lines else write(tmp_path, "bad.csv", [""]))
    assert run.returncode == 1 and groups is None
    assert words in run.stderr


def test_usage(tmp_path):
    assert tsctl("eval").returncode == 2
    assert tsctl("guess").returncode == 2
    assert tsctl("eval", tmp_path / "absent.csv").returncode == 1
    assert tsctl("eval", PROFILES / "serving_dev.csv").returncode == 1


def test_request_on_each_device():
    answer = json.loads(tsctl("request", "--model", "llama-30b", "--devices", "paper", "--reference", "A100", "--json").stdout)
    devices = {d["device"]: d for d in answer["devices"]}
    assert {name: d["tp"] for name, d in devices.items()} == {"A100": 1, "A40": 2, "A6000": 2, "A5000": 4, "3090Ti": 4}
    for d in devices.values():
        one, many = d["batches"][0], d["batches"][4]
        assert (one["batch"], many["batch"]) == (1, 16)
        assert many["prefill_s"] > 10 * one["prefill_s"]  # bound by compute: no gain
        assert many["step_s"] < 2 * one["step_s"]  # bound by memory: nearly free
        assert one["decode_dollars"] == pytest.approx(15 * one["step_s"] * d["price_per_hour"] / 3600)
        assert [b["fits"] for b in d["batches"]] == sorted((b["fits"] for b in d["batches"]), reverse=True)
    assert answer["kv_bytes"] == 512 * 60 * 2 * 6656 * 2
    links = {(link["link"], link["codec"]): link for link in answer["links"]}
    assert links["5Gbit", "none"]["transfer_s"] == pytest.approx(answer["kv_bytes"] / 0.625e9 + 100e-6)
    assert all(0 < link["visible_s"] <= link["transfer_s"] for link in links.values())
    failed = tsctl("request", "--links", "carrier-pigeon", "--json")
    assert failed.returncode == 1 and "carrier-pigeon" in failed.stderr
