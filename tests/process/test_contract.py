"""The commands others script against: services/tsctl/README.md. Keys, kinds of values and exit codes."""

import contextlib
import csv
import json
import os
import subprocess
import time

import pytest

from harness import DEMO, ROOT, TSCTL, Cluster, requests_file, run, wait_for

RESULT = {
    "request_id": str, "tokens": list, "text": str, "logprobs": list, "finish_reason": str, "ttft_ms": float, "tpot_ms": float,
    "max_gap_ms": float, "kv_bytes_raw": int, "kv_bytes_sent": int, "codec": str, "prefill": str, "relay": str, "decode": str,
}
SERVICE = {"service": str, "id": str, "pid": int, "incarnation": str, "phase": str, "in_flight": int, "kv_blocks_used": int}
FLAGS = ["--tokens", "1,2,3", "--max-tokens", 6, "--temperature", 0, "--seed", 3, "--logprobs", 2, "--ignore-eos"]


def has(document, keys):
    for key, kind in keys.items():
        assert isinstance(document[key], kind), (key, document[key])


def gone(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


def test_up_generate_status_and_end():
    with Cluster("--codec", "none", "--prefill", 2) as cluster:
        assert cluster.router.startswith("tcp://127.0.0.1:")
        assert sorted(s["service"] for s in cluster.services.values()) == ["decode", "planner", "prefill", "prefill", "relay", "router"]
        got = cluster.generate(*FLAGS)
        has(got, RESULT)
        for s in cluster.status()["services"]:
            has(s, SERVICE)
            assert s["pid"] == cluster.pid(s["id"])
        pids = [s["pid"] for s in cluster.services.values()]
        assert cluster.stop() == 0
        wait_for(lambda: all(map(gone, pids)))
    want = json.loads(run("engine", "--model", DEMO, "--json", *FLAGS).stdout)
    has(want, RESULT)
    assert set(want) == set(got)
    assert all(got[key] == want[key] for key in ("tokens", "text", "logprobs", "finish_reason", "codec"))
    assert [len(p["top"]) for p in got["logprobs"]] == [2] * 6


def test_requests_are_sent_at_their_time():
    lines = [{"tokens": [1, 2, 3], "max_tokens": 2, "ignore_eos": True, "request_id": f"r{at}", "at_ms": at} for at in (900, 0, 450)]
    path = requests_file(lines)
    with Cluster("--engine", "modelled") as cluster:
        began = time.monotonic()
        done = run("generate", "--router", cluster.router, "--requests", path, "--progress", "--csv", path + ".csv")
        took = time.monotonic() - began
    rows, report = list(csv.DictReader(open(path + ".csv"))), json.loads(run("report", path + ".csv", "--json").stdout)
    os.unlink(path)
    os.unlink(path + ".csv")
    assert [row["request"] for row in rows] == ["1", "2", "0"]  # by time sent
    assert all(at <= float(row["at_s"]) < at + 5 for at, row in zip((0, 0.45, 0.9), rows))
    assert all(0 <= float(row["prefill_begin_ms"]) <= float(row["prefill_end_ms"]) <= float(row["end_ms"]) for row in rows)
    assert all(float(row["ttft_ms"]) <= float(row["e2e_ms"]) and row["output_tokens"] == "2" and row["prefill"] for row in rows)
    assert report["completed"] == 3 and report["latency_ms"]["ttft"]["max"] == pytest.approx(max(float(row["ttft_ms"]) for row in rows), abs=1e-3)
    assert [json.loads(line)["request_id"] for line in done.stdout.splitlines()] == ["r900", "r0", "r450"]  # as in the file
    assert 0.9 <= took < 30
    assert all(json.loads(line)["finish_reason"] == "length" for line in done.stdout.splitlines())
    seen = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"streams": 3, "first": 1, "ended": 1} in seen and {"streams": 3, "first": 2, "ended": 2} in seen  # one after the other


@contextlib.contextmanager
def long_request(cluster, request_id):
    process = subprocess.Popen(
        [TSCTL, "generate", "--router", cluster.router, "--json", "--prompt", "First Citizen:", "--max-tokens", "2000", "--ignore-eos",
         "--client", "c1", "--request-id", request_id],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_status_shows_the_load_of_a_busy_worker():
    with Cluster() as cluster, long_request(cluster, "r1") as process:
        def busy():
            assert process.poll() is None, "the request ended before a status showed it"
            decode = next(s for s in cluster.status()["services"] if s["service"] == "decode")
            return decode if decode["in_flight"] == 1 and decode["kv_blocks_used"] > 0 else None
        assert wait_for(busy)["phase"] == "decode"
        run("cancel", "--router", cluster.router, "--client", "c1", "--request-id", "r1")
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and json.loads(out)["finish_reason"] == "cancelled"
        cluster.settle()
        # Cancelling what has ended is no error; what nobody knows is.
        run("cancel", "--router", cluster.router, "--client", "c1", "--request-id", "r1")
        done = run("cancel", "--router", cluster.router, "--client", "c1", "--request-id", "r2", check=False)
        assert done.returncode == 1 and "does not know this request" in done.stderr
        # Nor is a service drained that nobody knows.
        done = run("drain", "--router", cluster.router, "--service", "prefill9", check=False)
        assert done.returncode == 1 and "knows no such service" in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("up", "--help"), ("engine", "--model", DEMO, "--prompt", "x", "--max-tokens", "2", "--device", "cpu"), ("cost", "request")])
def test_results_that_cannot_be_written_are_a_failure(arguments):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([TSCTL, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1 and "stdout took only a part" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("generate",), ("cancel",), ("drain",), ("codec", "swap", "x"), ("engine", "--temprature", "1")])
def test_wrong_usage_is_2(arguments):
    assert run(*arguments, check=False).returncode == 2


@pytest.mark.parametrize("arguments", [
    ("codec", "encode", "--head-dim", "64", "/dev/null"), ("codec", "decode", "/nowhere"), ("engine", "--model", "/nowhere", "--prompt", "x"),
    ("status", "--router", "tcp://127.0.0.1:9", "--timeout-ms", "200"), ("replay", "/nowhere"),
])
def test_failure_is_1(arguments):
    done = run(*arguments, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
