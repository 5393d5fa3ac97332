"""kill -9 of each service under load, spares present: every stream ends with the tokens of the undisturbed reference. The moments are
drawn; TS_KILL_SEED repeats a run, TS_KILL_REPEATS shortens or lengthens it."""

import functools
import json
import os
import random
import signal
import time

import pytest
from harness import CONF, DEMO, Cluster, Streams, engine, random_requests, run, same_tokens, wait_for

VOCAB = json.load(open(os.path.join(DEMO, "config.json")))["vocab_size"]
SEED = int(os.environ.get("TS_KILL_SEED", random.SystemRandom().randrange(1 << 31)))
SPARES = ("--prefill", 2, "--relay", 2, "--decode", 2, "--planner", 2)
VICTIMS = {"planner": "planner0", "decode": "decode0", "prefill": "prefill0", "relay": "relay0"}
STREAMS, UNDER_WAY = 100, 50
REPEATS = int(os.environ.get("TS_KILL_REPEATS", 10))
# Silence is noticed sooner than by default, so that 80 recoveries fit a test run.
QUICK = {"TS_HEARTBEAT_MS": "200", "TS_TIMEOUT_MS": "1500"}


@functools.lru_cache(None)
def load():
    return random_requests(5, STREAMS, VOCAB, prompt=(1, 120), output=(100, 160))


@functools.lru_cache(None)
def reference(codec):
    return engine(load(), "--codec", codec)


def kill_under_load(cluster, streams, victim, rng):
    streams.wait_running(UNDER_WAY + 10)
    time.sleep(rng.uniform(0, 0.2))  # the moment, not a wait: asserted below
    cluster.kill(victim)
    running = streams.running()
    assert running >= UNDER_WAY, f"only {running} streams were under way at the kill"


@pytest.mark.parametrize("codec", ["none", "i4"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_streams_survive(victim, codec):
    for repeat in range(REPEATS):
        rng = random.Random(f"{SEED} {victim} {codec} {repeat}")
        with Cluster("--codec", codec, *SPARES, env=QUICK) as cluster:
            streams = Streams(cluster.router, load())
            kill_under_load(cluster, streams, VICTIMS[victim], rng)
            got = streams.results(timeout=120)
            try:
                same_tokens(got, reference(codec))
                cluster.settle()
            except AssertionError as error:
                raise AssertionError(f"TS_KILL_SEED={SEED}, repeat {repeat}: {error}\n{cluster.log()}") from error


@pytest.mark.parametrize("victim", ["decode", "prefill", "relay"])
def test_streams_survive_a_process_that_comes_back_from_the_dead(victim):
    """Silent for longer than its peers wait, then awake again with all it held: what it still says is not believed."""
    with Cluster("--codec", "i4", *SPARES, env=QUICK) as cluster:
        streams = Streams(cluster.router, load())
        streams.wait_running(UNDER_WAY)
        cluster.kill(VICTIMS[victim], signal.SIGSTOP)
        try:
            wait_for(lambda: all(s["id"] != VICTIMS[victim] or not s["ready"] for s in cluster.status()["services"]))
        finally:
            cluster.kill(VICTIMS[victim], signal.SIGCONT)
        same_tokens(streams.results(timeout=120), reference("i4"))
        wait_for(lambda: any(s["id"] == VICTIMS[victim] and s["ready"] for s in cluster.status()["services"]))
        cluster.settle()


def test_recordings_replay_byte_for_byte(tmp_path):
    folder = tmp_path / "recordings"
    with Cluster("--codec", "i4", "--record", folder, *SPARES, env=QUICK) as cluster:
        streams = Streams(cluster.router, load())
        kill_under_load(cluster, streams, "decode0", random.Random(SEED))
        same_tokens(streams.results(timeout=120), reference("i4"))
        cluster.settle()
    files = sorted(folder.glob("*.rec"))
    assert [f.stem for f in files] == sorted(["router", *(f"{s}{i}" for s in ("planner", "prefill", "relay", "decode") for i in (0, 1))])
    for file in files:
        line = run("replay", file).stdout
        assert "all equal" in line, line
        print(line.strip())
