"""Devices that fail under workers and relays (TS_FAULT, tests/gpu/faults), over the driver whose device is the CPU: nothing hangs, and requests go on."""

from harness import same_tokens
from test_device import alone, conf_of, faults_in, load, serve

NO_MEMORY, LOST = 2, "700:sticky"


def test_relay_without_memory(tmp_path):
    """A piece for which its device has no room, neither at the start nor now, is encoded by the worker; the next one has what it needs."""
    requests = load(41, ["i4h", "none"])
    faults = ",".join(f"cuMemHostAlloc:{nth}:{NO_MEMORY}" for nth in range(1, 6))
    got, said = serve(requests, conf_of(tmp_path), env=faults_in("ts-relay", faults))
    same_tokens(got, alone(requests))
    assert said.count("event=piece_not_encoded") == 1 and "event=worker_encodes" not in said, said


def test_relay_loses_its_device(tmp_path):
    requests = load(42, ["i4h", "none"])
    got, said = serve(requests, conf_of(tmp_path), env=faults_in("ts-relay", f"cuLaunchKernelEx:2:{LOST}"))
    same_tokens(got, alone(requests))
    assert "event=worker_encodes" in said, said


def test_decode_loses_its_device(tmp_path):
    """The stream goes on at the other worker from its third token; the lost one says why and leaves."""
    requests = load(43, ["none"] * 3, output=(8, 8))
    got, said = serve(requests, conf_of(tmp_path), "--decode", 2, env=faults_in("decode0", f"cuGraphLaunch:3:{LOST}"))
    same_tokens(got, alone(requests))
    assert max(answer["attempts"] for answer in got) > 1, got
    assert "event=device_lost" in said and "the device was lost" in said, said


def test_prefill_loses_its_device(tmp_path):
    """While it waits for a layer: at its start fewer copies of weights are waited for than that."""
    requests = load(44, ["i4h"] * 10, output=(2, 2))
    got, said = serve(requests, conf_of(tmp_path), "--prefill", 2, env=faults_in("prefill0", f"cuEventSynchronize:20:{LOST}"))
    same_tokens(got, alone(requests))
    assert max(answer["attempts"] for answer in got) > 1, got
    assert "event=device_lost" in said, said
