"""Workers whose KV pools lie on a device, over the driver whose device is the CPU: the relay encodes from them by CUDA IPC, or their worker does for it."""

from devices import alone, conf_of, faults_in, load, same_bits, serve

CODECS = ["none", "i4h", "i4hc", "lz16", "k8v4h", "i8", "lz16,0=8/16,1=16/4"]


def test_relay_encodes(tmp_path):
    """With `none` to the last bit what one process has; with a codec what one process has whose KV passes it."""
    requests = load(31, CODECS)
    got, said = serve(requests, conf_of(tmp_path))
    same_bits(got, alone(requests))
    assert "worker_encodes" not in said and "encodes_for_relay" not in said, said


def test_worker_encodes(tmp_path):
    requests = load(32, CODECS[:3])
    got, said = serve(requests, conf_of(tmp_path, relay={"encode": '"worker"'}))
    same_bits(got, alone(requests))
    assert "event=encodes_for_relay" in said, said


def test_without_ipc(tmp_path):
    """The relay says so once for each pool, and forwards what their worker encodes."""
    requests = load(33, ["none", "i4h"])
    faults = ",".join(f"cuIpcOpenMemHandle_v2:{nth}:801" for nth in (1, 2))
    got, said = serve(requests, conf_of(tmp_path), env=faults_in("", faults))
    same_bits(got, alone(requests))
    assert said.count("event=worker_encodes") == 2, said
