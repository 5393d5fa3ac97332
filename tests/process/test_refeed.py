"""kill -9 of a decode worker after that of the only prefill worker: its streams go on from the relay's copies of their KV."""

import re

import harness
from harness import Cluster, engine, random_requests
from test_kill import QUICK, VOCAB

harness.use_python_client()

import thunderserve

STREAMS, MOVED = 16, 5


def take(client, seen):
    """The next event of any stream, noted; False once all have ended."""
    event = client.poll(60)
    if event:
        stream, token = event
        seen[stream.request_id] += token is not None
    return event


def traces(path):
    """The router's record of each ended request: its numbers by name."""
    return [{k: int(v) for k, v in re.findall(r"(\w+)=(-?\d+)", line)} for line in path.read_text().splitlines()]


def test_nobody_prefills_again(tmp_path):
    load = random_requests(11, STREAMS, VOCAB, prompt=(1, 120), output=(160, 220))
    path = tmp_path / "trace"
    with Cluster("--codec", "i4", "--decode", 2, "--planner", 0, env={**QUICK, "TS_TRACE": str(path)}) as cluster:
        with thunderserve.Client(cluster.router) as client:
            streams = [client.stream(r["tokens"], **{k: v for k, v in r.items() if k != "tokens"}) for r in load]
            seen = dict.fromkeys((s.request_id for s in streams), 0)
            while min(seen.values()) < 4:  # decode has drawn tokens: the transfer is over, the relay has its copy
                assert take(client, seen)
            cluster.kill("prefill0")
            cluster.kill("decode0")
            assert not any(s.ended for s in streams), "streams ended before the kill"
            while take(client, seen):
                pass
            for stream, want in zip(streams, engine(load, "--codec", "i4")):
                assert stream.result.finish == want["finish_reason"], stream.result
                assert stream.result.ids == want["tokens"]
        cluster.settle()
    ended = traces(path)
    assert len(ended) == STREAMS
    moved = [t for t in ended if t["attempts"] > 1]
    assert len(moved) >= MOVED, f"only {len(moved)} streams were at decode0"
    for t in moved:
        assert 0 < t["prefill_end_ns"] < t["assigned_ns"] < t["kv_commit_ns"], t
