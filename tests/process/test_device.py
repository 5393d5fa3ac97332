"""Workers whose KV pools lie on a device, over the driver whose device is the CPU: the relay encodes from them by CUDA IPC, or their worker does for it."""

from harness import BUILD, Cluster, Streams, engine, random_requests, same_tokens
from test_codecs import MODELS, vocab_of

MODEL = MODELS / "llama-bf16"
CODECS = ["none", "i4h", "i4hc", "lz16", "k8v4h", "i8", "lz16,0=8/16,1=16/4"]


def conf_of(tmp_path, **groups):
    """Settings by service: conf_of(path, relay={"encode": '"worker"'})."""
    quick = {"kv_codec": '"i4h"', "kv_cache_mib": 8}  # not measured, and little to clear
    groups = {"prefill": quick, "decode": quick, **groups}
    conf = tmp_path / "device.conf"
    conf.write_text("".join(f"{group} = {{ {' '.join(f'{k} = {v};' for k, v in values.items())} }};\n" for group, values in groups.items()))
    return conf


def faults_in(service, text):
    """Calls of the driver that fail in that service, "" = in all."""
    return {"TS_CUDA_DRIVER": str(BUILD / "fault-driver" / "libts-fault-driver.so"), "TS_FAULT_IN": service, "TS_FAULT": text}


def load(seed, codecs, prompt=(1, 60), output=(3, 6)):
    requests = random_requests(seed, len(codecs), vocab_of(MODEL), prompt=prompt, output=output)
    return [{**request, "codec": codec} for request, codec in zip(requests, codecs)]


def alone(requests):
    """What one process computes on the same device, where each prompt's KV passes the same codec."""
    return engine(requests, "--device", "cuda:0", model=MODEL)


def serve(requests, conf, *flags, env=None):
    """One after the other, since what shares a batch may change the last bit of a sum. Also returns what the services said."""
    with Cluster("--engine", "cuda:0", "--model", MODEL, *flags, conf=conf, env=env) as cluster:
        got = [Streams(cluster.router, [request]).results()[0] for request in requests]
        cluster.settle()
        return got, cluster.log()


def test_relay_encodes(tmp_path):
    """With `none` to the last bit what one process has; with a codec what one process has whose KV passes it."""
    requests = load(31, CODECS)
    got, said = serve(requests, conf_of(tmp_path))
    same_tokens(got, alone(requests))
    assert "worker_encodes" not in said and "encodes_for_relay" not in said, said


def test_worker_encodes(tmp_path):
    requests = load(32, CODECS[:3])
    got, said = serve(requests, conf_of(tmp_path, relay={"encode": '"worker"'}))
    same_tokens(got, alone(requests))
    assert "event=encodes_for_relay" in said, said


def test_without_ipc(tmp_path):
    """The relay says so once for each pool, and forwards what their worker encodes."""
    requests = load(33, ["none", "i4h"])
    faults = ",".join(f"cuIpcOpenMemHandle_v2:{nth}:801" for nth in (1, 2))
    got, said = serve(requests, conf_of(tmp_path), env=faults_in("", faults))
    same_tokens(got, alone(requests))
    assert said.count("event=worker_encodes") == 2, said
