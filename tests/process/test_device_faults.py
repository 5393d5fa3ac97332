"""Devices that fail under workers and relays, and workers that are killed (devices.py), over the driver whose device is the CPU: nothing hangs, and
requests go on."""

from devices import (alone, conf_of, decode_loses_its_device, faults_in, load, prefill_is_killed, prefill_loses_its_device, relay_loses_its_device,
                     same_bits, serve)

NO_MEMORY = 2


def test_relay_without_memory(tmp_path):
    """A piece for which its device has no room, neither at the start nor now, is encoded by the worker; the next one has what it needs."""
    requests = load(41, ["i4h", "none"])
    faults = ",".join(f"cuMemHostAlloc:{nth}:{NO_MEMORY}" for nth in range(1, 6))
    got, said = serve(requests, conf_of(tmp_path), env=faults_in("ts-relay", faults))
    same_bits(got, alone(requests))
    assert said.count("event=piece_not_encoded") == 1 and "event=worker_encodes" not in said, said


def test_relay_loses_its_device(tmp_path):
    relay_loses_its_device(tmp_path)


def test_decode_loses_its_device(tmp_path):
    decode_loses_its_device(tmp_path)


def test_prefill_loses_its_device(tmp_path):
    prefill_loses_its_device(tmp_path)


def test_prefill_is_killed(tmp_path):
    prefill_is_killed(tmp_path, output=12)
