"""A prompt goes in, text streams out, through five real processes; the tokens are those of one process without sockets."""

import json
import os
import subprocess

import pytest
from harness import CONF, DEMO, ROOT, TSCTL, Cluster, Streams, engine, random_requests, run, same_tokens, wait_for

MODELS = ROOT / "tests" / "data" / "models"
VOCAB = json.load(open(os.path.join(DEMO, "config.json")))["vocab_size"]
PROMPT = "First Citizen:"


def test_text_equals_one_process():
    flags = ["--prompt", PROMPT, "--max-tokens", 40, "--temperature", 0, "--seed", 1]
    with Cluster("--codec", "none") as cluster:
        got = cluster.generate(*flags)
        cluster.settle()
    want = json.loads(run("engine", "--model", DEMO, "--json", *flags).stdout)
    assert got["tokens"] == want["tokens"] and len(got["tokens"]) > 0
    assert got["text"] == want["text"]
    assert got["codec"] == "none" and got["kv_bytes_raw"] > 0
    assert (got["prefill"], got["relay"], got["decode"]) == ("prefill0", "relay0", "decode0")


def test_i4_size_and_reference():
    request = random_requests(3, 1, VOCAB, prompt=(512, 512), output=(24, 24))[0]
    flags = ["--tokens", ",".join(map(str, request["tokens"])), "--max-tokens", 24, "--temperature", 0, "--seed", 1, "--ignore-eos"]
    with Cluster("--codec", "i4") as cluster:
        got = cluster.generate(*flags)
    want = engine([request], "--codec", "i4")[0]
    assert got["tokens"] == want["tokens"]
    print(f"KV bytes: {got['kv_bytes_sent']} sent of {got['kv_bytes_raw']} raw, {got['kv_bytes_sent'] / got['kv_bytes_raw']:.4f}")
    assert got["kv_bytes_sent"] <= 0.29 * got["kv_bytes_raw"], (got["kv_bytes_sent"], got["kv_bytes_raw"])


@pytest.mark.parametrize("folder", sorted(p.name for p in MODELS.iterdir() if (p / "config.json").exists()))
def test_every_family_equals_one_process(folder):
    model = MODELS / folder
    vocab = json.loads((model / "config.json").read_text())["vocab_size"]
    requests = [{**r, "temperature": 0.0} for r in random_requests(7, 4, vocab, prompt=(3, 90), output=(20, 20))]
    with Cluster("--codec", "none", "--model", model) as cluster:
        got = Streams(cluster.router, requests).results()
        cluster.settle()
    same_tokens(got, engine(requests, model=model))


def test_relay_sends_while_prefill_still_runs(tmp_path):
    request = random_requests(4, 1, VOCAB, prompt=(1500, 1500), output=(8, 8))[0]
    with Cluster("--codec", "i4", "--record", tmp_path / "rec") as cluster:
        got = Streams(cluster.router, [request]).results()[0]
    assert got["finish_reason"] == "length"
    steps = run("replay", "--print", tmp_path / "rec" / "relay0.rec").stdout.splitlines()
    chunks = [i for i, step in enumerate(steps) if "> send=" in step and "kv_chunk={" in step]
    sealed = next(i for i, step in enumerate(steps) if " < message=" in step and "kv_seal={" in step)
    layers = json.load(open(os.path.join(DEMO, "config.json")))["num_hidden_layers"]
    # 1500 tokens are three prefill steps: all but a part of the last one is on its way before the worker says that it has finished.
    assert sum(i < sealed for i in chunks) >= 2 * layers, f"{chunks} around {sealed}"


def test_a_new_planner_takes_over(tmp_path):
    with Cluster("--codec", "none") as cluster:
        before = cluster.status()
        cluster.kill("planner0")
        streams = Streams(cluster.router, random_requests(8, 40, VOCAB, output=(100, 150)))
        assert all(g["finish_reason"] == "length" for g in streams.results())
        planner = subprocess.Popen([os.path.join(os.path.dirname(TSCTL), "ts-planner"), "--config", CONF, "--id", "planner9",
                                    "--router", cluster.router], cwd=ROOT)
        try:
            after = wait_for(lambda: next((s for s in [cluster.status()] if s["term"] > before["term"] and s["plan"] > 0), None))
            assert "planner9" in [s["id"] for s in after["services"] if s["ready"]]
            assert cluster.generate("--prompt", PROMPT, "--max-tokens", 4, "--ignore-eos")["finish_reason"] == "length"
        finally:
            planner.terminate()
            assert planner.wait(20) == 0


def test_modelled_engine_serves_the_same_contract():
    with Cluster("--engine", "modelled") as cluster:
        got = cluster.generate("--tokens", "1,2,3", "--max-tokens", 12, "--ignore-eos")
        cluster.settle()
    assert len(got["tokens"]) == 12 and got["finish_reason"] == "length" and got["kv_bytes_sent"] > 0


def test_many_streams_at_once():
    requests = random_requests(11, 100, VOCAB)
    with Cluster("--codec", "none", "--prefill", 2, "--decode", 2) as cluster:
        streams = Streams(cluster.router, requests)
        got = streams.results()
        status = cluster.settle()
    assert status["accepted"] == len(requests) and status["refused"] == 0
    same_tokens(got, engine(requests))


def test_logprobs_and_stop():
    flags = ["--prompt", PROMPT, "--max-tokens", 30, "--temperature", 0, "--seed", 1, "--logprobs", 3]
    with Cluster("--codec", "none") as cluster:
        got = cluster.generate(*flags)
        stop = got["text"][5:8]
        cut = cluster.generate(*flags, "--stop", stop)
    want = json.loads(run("engine", "--model", DEMO, "--json", *flags).stdout)
    assert got["logprobs"] == want["logprobs"] and len(got["logprobs"][0]["top"]) == 3
    assert cut["finish_reason"] == "stop" and stop not in cut["text"] and got["text"].startswith(cut["text"])


def test_status_lists_all_five_services():
    with Cluster() as cluster:
        status = cluster.status()
        kinds = sorted(s["service"] for s in status["services"])
        assert kinds == ["decode", "planner", "prefill", "relay", "router"]
        for s in status["services"]:
            assert s["pid"] == cluster.pid(s["id"]) and s["ready"] and len(s["incarnation"]) == 16
            assert s["kv_blocks_used"] == 0 and s["in_flight"] == 0


def test_cancel_ends_the_stream():
    with Cluster() as cluster:
        process = subprocess.Popen(
            [TSCTL, "generate", "--router", cluster.router, "--json", "--prompt", PROMPT, "--max-tokens", "1900", "--ignore-eos",
             "--client", "c1", "--request-id", "r1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        while cluster.status()["running"] == 0:
            assert process.poll() is None
        run("cancel", "--router", cluster.router, "--client", "c1", "--request-id", "r1")
        out, _ = process.communicate(timeout=60)
        assert json.loads(out)["finish_reason"] == "cancelled"
        cluster.settle()


def test_deadline_ends_the_stream():
    with Cluster() as cluster:
        got = cluster.generate("--prompt", PROMPT, "--max-tokens", 1900, "--ignore-eos", "--deadline-ms", 300)
        assert got["finish_reason"] == "deadline"
        cluster.settle()


def test_prompt_longer_than_the_context_is_refused_clearly():
    with Cluster() as cluster:
        done = run("generate", "--router", cluster.router, "--json", "--tokens", ",".join(["5"] * 3000), check=False)
        assert done.returncode == 1
        result = json.loads(done.stdout)
        assert result["reason"] == "prompt_too_long" and "3000" in result["error"]


def test_configuration_is_checked():
    for service in ["router", "planner", "prefill", "relay", "decode"]:
        done = subprocess.run([os.path.join(os.path.dirname(TSCTL), f"ts-{service}"), "--config", CONF, "--check-conf"],
                              capture_output=True, text=True, cwd=ROOT, timeout=20)
        assert done.returncode == 0, done.stderr
