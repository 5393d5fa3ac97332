"""Who encodes KV for the way to decode: the relay from the pools that it has mapped, or the worker that computed it."""

from harness import MODELS, Cluster, Streams, engine, random_requests, same_tokens, vocab_of

DEMO = MODELS / "demo"


def relay_conf(tmp_path, **values):
    conf = tmp_path / "relay.conf"
    conf.write_text("relay = { " + "".join(f"{key} = {value}; " for key, value in values.items()) + "};\n")
    return conf


def test_workers_encode(tmp_path):
    requests = random_requests(21, 12, vocab_of(DEMO), prompt=(1, 400), output=(8, 24))
    codecs = ["none", "i4h", "i4hc"]
    with Cluster("--model", DEMO, conf=relay_conf(tmp_path, encode='"worker"')) as cluster:
        got = Streams(cluster.router, [{**request, "codec": codecs[i % 3]} for i, request in enumerate(requests)]).results()
        cluster.settle()
        said = cluster.log()
    want = [engine([request], "--codec", codecs[i % 3], model=DEMO)[0] for i, request in enumerate(requests)]
    same_tokens(got, want)
    assert "event=encodes_for_relay" in said, said
