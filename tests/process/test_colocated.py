"""A worker of both phases serves whole requests by itself on the CPU engine: the tokens are the reference's."""

from harness import Cluster, Streams, engine, random_requests, run, same_tokens, wait_for

VOCAB = 256


def test_whole_requests_at_one_worker():
    requests = random_requests(21, 24, VOCAB, prompt=(1, 200), output=(4, 32))
    want = engine(requests)
    with Cluster("--prefill", 2, "--decode", 1, "--codec", "none") as cluster:
        run("phase", "--router", cluster.router, "--service", "prefill1", "--phase", "both")

        def whole():
            got = Streams(cluster.router, requests).results()
            same_tokens(got, want)
            return [g for g in got if g["prefill"] == g["decode"] == "prefill1"]

        for g in wait_for(whole):
            assert not g["relay"] and g["kv_bytes_sent"] == 0, g
        cluster.settle()
