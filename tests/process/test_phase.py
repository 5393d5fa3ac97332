"""An operator changes what a worker serves, while requests run: nothing is lost, nothing is loaded."""

from harness import Cluster, Streams, random_requests, run, wait_for

VOCAB = 1024


def phase(cluster, service, to, code=0, words=""):
    done = run("phase", "--router", cluster.router, "--service", service, "--phase", to, check=False)
    assert done.returncode == code and words in done.stderr, done


def served(cluster, service):
    return next((s["phase"], s["pid"]) for s in cluster.status()["services"] if s["id"] == service)


def serve(cluster, seed):
    done = Streams(cluster.router, random_requests(seed, 30, VOCAB, output=(20, 60))).results()
    assert all(g["finish_reason"] == "length" for g in done)
    return done


def test_phases_of_a_running_cluster():
    with Cluster("--engine", "modelled", "--prefill", 2, "--decode", 1) as cluster:
        before = served(cluster, "prefill1")
        streams = Streams(cluster.router, random_requests(5, 120, VOCAB, output=(20, 120)))
        streams.wait_running(20)
        phase(cluster, "prefill1", "decode")
        assert served(cluster, "prefill1") == ("decode", before[1])
        phase(cluster, "relay0", "prefill", 1, "no such worker")
        phase(cluster, "prefill1", "none", 2)
        assert all(g["finish_reason"] == "length" for g in streams.results())
        # The planner hears of it and gives it a share.
        done = wait_for(lambda: next((d for d in [serve(cluster, 6)] if any(g["decode"] == "prefill1" for g in d)), None))
        assert {"prefill0"} == {g["prefill"] for g in done}
        phase(cluster, "prefill1", "prefill")
        assert served(cluster, "prefill1") == before
        done = wait_for(lambda: next((d for d in [serve(cluster, 7)] if any(g["prefill"] == "prefill1" for g in d)), None))
        assert {"decode0"} == {g["decode"] for g in done}
        cluster.settle()
