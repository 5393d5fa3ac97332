"""Clusters whose engines compute on a device: what they must do, on a GPU and over the driver whose device is the CPU. Tests (test_device*.py) and
scripts/gpu-check (scripts/python/gpu_faults.py) run the same trials; each asserts, and ends within seconds."""

import os
import pathlib
import subprocess

from harness import BUILD, MODELS, ROOT, Cluster, Streams, engine, random_requests, same_tokens, vocab_of, wait_for

MODEL = MODELS / "llama-bf16"
DEVICE = ("--engine", "cuda:0", "--model", MODEL)
LOST = "700:sticky"
# Silence is noticed sooner than by default.
QUICK = {"TS_HEARTBEAT_MS": "200", "TS_TIMEOUT_MS": "1500"}


def conf_of(folder, **groups):
    """Settings by service: conf_of(path, relay={"encode": '"worker"'})."""
    quick = {"kv_codec": '"i4h"', "kv_cache_mib": 8}  # not measured, and little to clear
    conf = folder / "device.conf"
    text = ""
    for group in ("prefill", "decode", *(name for name in groups if name not in ("prefill", "decode"))):
        values = {**(quick if group in ("prefill", "decode") else {}), **groups.get(group, {})}
        text += f"{group} = {{ {' '.join(f'{k} = {v};' for k, v in values.items())} }};\n"
    conf.write_text(text)
    return conf


def faults_in(service, text, since=""):
    """Calls of the driver that fail in the service of that program or word (relay0 is a word of its workers too), "" = in all; counted from when the file `since` is there."""
    driver = BUILD / "fault-driver" / "libts-fault-driver.so"
    return {"TS_CUDA_DRIVER": str(driver), "TS_FAULT_IN": service, "TS_FAULT": text, "TS_FAULT_SINCE": str(since)}


def load(seed, codecs, prompt=(1, 60), output=(3, 6)):
    """With log-probabilities of the best tokens, whose bits tell more than tokens do."""
    requests = random_requests(seed, len(codecs), vocab_of(MODEL), prompt=prompt, output=output)
    return [{**request, "codec": codec, "logprobs": 4} for request, codec in zip(requests, codecs)]


def alone(requests):
    """What one process computes on the same device, where each prompt's KV passes the same codec."""
    return engine(requests, "--device", "cuda:0", model=MODEL)


def one_by_one(cluster, requests):
    """What shares a batch may change the last bit of a sum."""
    return [Streams(cluster.router, [request]).results()[0] for request in requests]


def serve(requests, conf, *flags, env=None):
    """Also returns what the services said."""
    with Cluster(*DEVICE, *flags, conf=conf, env=env) as cluster:
        got = one_by_one(cluster, requests)
        cluster.settle()
        return got, cluster.log()


def ready_in(cluster):
    return {s["id"] for s in cluster.status()["services"] if s["ready"]}


def same_bits(got, want):
    """Tokens, and all log-probabilities to the last bit."""
    same_tokens(got, want)
    for i, (g, w) in enumerate(zip(got, want)):
        assert g["logprobs"] and g["logprobs"] == w["logprobs"], f"stream {i}: {first_other(g['logprobs'], w['logprobs'])}"


def first_other(got, want):
    for i, (g, w) in enumerate(zip(got, want)):
        if g != w:
            return f"token {i}: {g}, not {w}"
    return f"{len(got)} log-probabilities, not {len(want)}"


# --- a device is lost ------------------------------------------------------------------------------------


def invariant(folder, **decode):
    """Bits that depend on nothing but the request: not on what shares a batch, nor on where a stream begins again. No KV is kept for the next one."""
    same = {"batch_invariant": "true"}
    return conf_of(folder, prefill=same, decode={**same, "prefix_percent": 0, **decode})


def lose(folder, service, call, requests, *flags):
    """Serves the requests twice, and the second time that service's device is lost, at the call "function:nth" from then on. Every stream must end
    as the first time. Returns the answers, who is ready after, and what the services said."""
    since = folder / "since"
    with Cluster(*DEVICE, *flags, conf=invariant(folder), env={**QUICK, **faults_in(service, f"{call}:{LOST}", since)}) as cluster:
        want = one_by_one(cluster, requests)
        since.touch()
        got = one_by_one(cluster, requests)
        cluster.settle()
        ready, said = ready_in(cluster), cluster.log()
    same_bits(got, want)
    return got, ready, said


def left_the_pool(service, got, ready, said):
    assert service not in ready and f"{service[:-1]}1" in ready, (ready, said)
    assert max(answer["attempts"] for answer in got) > 1, got
    assert "event=device_lost" in said and "the device was lost" in said and "(700)" in said, said


def decode_loses_its_device(folder):
    """The stream goes on at the other worker from its third token; the lost one says why and leaves."""
    left_the_pool("decode0", *lose(folder, "decode0", "cuGraphLaunch:3", load(43, ["none"] * 2, output=(8, 8)), "--decode", 2))


def prefill_loses_its_device(folder):
    """While it waits for a layer of its first prompt."""
    left_the_pool("prefill0", *lose(folder, "prefill0", "cuEventSynchronize:2", load(44, ["i4h"] * 4, output=(2, 2)), "--prefill", 2))


def relay_loses_its_device(folder):
    """It says why, and serves on: workers encode for it."""
    got, ready, said = lose(folder, "ts-relay", "cuLaunchKernelEx:2", load(42, ["i4h", "none"]))
    assert "relay0" in ready and "event=worker_encodes" in said and "(700)" in said, said


# --- a worker is killed ----------------------------------------------------------------------------------


def prefill_is_killed(folder, output):
    """kill -9 of a prefill worker whose pool the relay has mapped, while requests run: they go on at the other one, the relay lives, and it
    serves the worker that is started again, when that is the only one."""
    conf = invariant(folder, max_num_seqs=2)
    requests = load(45, ["none", "i4h"] * 4, output=(output, output))
    with Cluster(*DEVICE, "--prefill", 2, conf=conf, env=QUICK) as cluster:
        want = Streams(cluster.router, requests).results()
        words = pathlib.Path(f"/proc/{cluster.pid('prefill0')}/cmdline").read_text().split("\0")[:-1]
        streams = Streams(cluster.router, requests)
        streams.wait_running(1)
        cluster.kill("prefill0")
        assert streams.running() > 0, "all was over before the worker was killed"
        same_bits(streams.results(), want)
        assert all(answer["kv_bytes_sent"] > 0 for answer in want)
        restarted = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **QUICK}, stderr=cluster.errors)
        try:
            wait_for(lambda: ready_in(cluster) >= {"prefill0", "prefill1"})
            cluster.kill("prefill1")
            got = Streams(cluster.router, requests[:2]).results()
            same_bits(got, want[:2])
            assert {answer["prefill"] for answer in got} == {"prefill0"} and "relay0" in ready_in(cluster), (got, cluster.log())
            cluster.settle()
        finally:
            restarted.terminate()
            assert restarted.wait(30) == 0, cluster.log()
