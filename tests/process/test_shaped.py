"""The five processes on two hosts, as far as a kernel can pretend: prefill and relay on one side of a slow link, router, planner and decode on
the other. Tokens are those of the same cluster on one host; the link is used, and no faster than it is."""

import json
import os
import re
import tempfile
import threading
import time

import pytest
import shaped
from harness import BUILD, CONF, DEMO, TSCTL, Cluster, Streams, random_requests, requests_file, same_tokens, wait_for
from shaped import ADDRESS
from test_kill import QUICK

VOCAB = json.load(open(os.path.join(DEMO, "config.json")))["vocab_size"]
ROUTER = f"tcp://{ADDRESS['b']}:5555"
MIB = 1 << 20
BURST = 256 << 10  # what tbf lets pass at once
# Name -> (wire, its bytes/s, codec)
LINKS = {
    "1gbit": ({"rate": "1gbit"}, 125e6, "none"),
    "100mbit": ({"rate": "100mbit"}, 12.5e6, "i4"),
    "100mbit, 1 ms, 1 % lost": ({"rate": "100mbit", "delay": 1, "loss": 0.01, "seed": 2}, 12.5e6, "i4"),
    "100mbit, 10 +- 2 ms, 1 % lost": ({"rate": "100mbit", "delay": 10, "jitter": 2, "loss": 0.01, "seed": 3}, 12.5e6, "none"),
    "1gbit, 50 ms, 1 % lost": ({"rate": "1gbit", "delay": 50, "loss": 0.01, "seed": 4}, 125e6, "i4"),
}


class ShapedCluster:
    """One process of each service, on the two sides of a Net."""

    def __init__(self, net, codec, folder, env=None, decode=()):
        self.net = net
        self.env = {**os.environ, **(env or {})}
        pool = f"ipc://{folder}/pool"
        self.trace = f"{folder}/trace"
        self.services = {
            "router": self.start("b", "router", "--listen", ROUTER, "--codec", codec, "--trace", self.trace),
            "planner": self.start("b", "planner", "--router", ROUTER),
            "relay": self.start("a", "relay", "--router", ROUTER, "--listen", pool, "--log-level", "info", log=f"{folder}/relay.log"),
            "decode": self.start("b", "decode", "--router", ROUTER, "--model", DEMO, "--kv-listen", f"tcp://{ADDRESS['b']}:*", *decode),
            "prefill": self.start("a", "prefill", "--router", ROUTER, "--model", DEMO, "--kv-listen", f"tcp://{ADDRESS['a']}:*",
                                  "--relay", "relay", "--pool", pool),
        }
        wait_for(self.ready, 60)

    def start(self, side, service, *flags, log=None):
        args = [BUILD / "bin" / f"ts-{service}", "--config", CONF, "--id", service, *flags]
        if log is None:
            return self.net.start(side, args, env=self.env)
        with open(log, "w") as file:
            return self.net.start(side, args, env=self.env, stderr=file)

    def status(self):
        return json.loads(self.net.run("b", [TSCTL, "status", "--router", ROUTER, "--json"]).stdout)

    def ready(self):
        assert all(process.poll() is None for process in self.services.values()), "a service ended"
        done = self.net.run("b", [TSCTL, "status", "--router", ROUTER, "--json"], check=False)
        status = json.loads(done.stdout) if done.returncode == 0 else {"services": [], "plan": 0}
        return status["plan"] > 0 and {s["id"] for s in status["services"] if s["ready"]} == self.services.keys()

    def answer(self, requests, *flags):
        """All of them at once; results in their order."""
        path = requests_file(requests)
        try:
            done = self.net.run("b", [TSCTL, "generate", "--router", ROUTER, "--requests", path, *flags])
        finally:
            os.unlink(path)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def settle(self):
        def at_rest():
            status = self.status()
            return status["queued"] + status["running"] + sum(s["kv_blocks_used"] + s["in_flight"] for s in status["services"]) == 0

        wait_for(at_rest, 20)

    def traces(self):
        with open(self.trace) as file:
            return [{k: int(v) for k, v in re.findall(r"(\w+)=(-?\d+)", line)} for line in file]

    def stop(self):
        for name in reversed(self.services):
            assert self.net.stop(self.services[name]) == 0, name


@pytest.fixture(scope="module")
def load():
    return random_requests(21, 10, VOCAB, prompt=(100, 600), output=(8, 16))


@pytest.fixture(scope="module")
def unshaped(load):
    """Codec -> results of the same requests on one host."""
    results = {}
    for codec in ("none", "i4"):
        with Cluster("--codec", codec) as cluster:
            results[codec] = Streams(cluster.router, load).results()
            cluster.settle()
    return results


@pytest.mark.parametrize("link", LINKS)
def test_tokens_do_not_depend_on_the_link(link, load, unshaped):
    wire, bytes_per_s, codec = LINKS[link]
    with shaped.net(**wire) as net, tempfile.TemporaryDirectory(prefix="ts-shaped-") as folder:
        cluster = ShapedCluster(net, codec, folder)
        before, begin = net.sent_bytes("a"), time.monotonic()
        got = cluster.answer(load)
        seconds = time.monotonic() - begin
        carried = net.sent_bytes("a") - before
        cluster.settle()
        traces = cluster.traces()
        cluster.stop()
    same_tokens(got, unshaped[codec])
    kv = sum(g["kv_bytes_sent"] for g in got)
    visible = sorted((t["kv_commit_ns"] - t["prefill_end_ns"]) / 1e6 for t in traces)
    print(f"{link}, {codec}: {kv / 1e6:.2f} MB of KV, {carried / 1e6:.2f} MB on the wire in {seconds:.2f} s; as the router sees it, KV was at "
          f"decode {visible[len(visible) // 2]:.1f} ms after its prefill, at most {visible[-1]:.1f}")
    # Where prefill is cut, and so the headers of chunks, depends on the clock.
    assert sum(g["kv_bytes_raw"] for g in got) == sum(g["kv_bytes_raw"] for g in unshaped[codec])
    assert abs(kv / sum(g["kv_bytes_sent"] for g in unshaped[codec]) - 1) < 0.01
    assert carried >= kv
    assert carried <= bytes_per_s * seconds + BURST, "it came past the link"
    assert len(traces) == len(load)


@pytest.mark.parametrize("seconds,quick", [(0.5, False), (2.5, True)])
def test_a_link_that_is_cut_for_a_while(seconds, quick, load, unshaped):
    """Shorter than the timeout: nobody notices but TCP. Longer: sessions end, work is repeated or given up and done again."""
    with shaped.net(rate="100mbit") as net, tempfile.TemporaryDirectory(prefix="ts-shaped-") as folder:
        cluster = ShapedCluster(net, "none", folder, QUICK if quick else None)
        before = net.sent_bytes("a")
        answer = threading.Thread(target=lambda: answers.extend(cluster.answer(load)))
        answers = []
        answer.start()
        wait_for(lambda: net.sent_bytes("a") > before + MIB, 60)  # some KV is there, most is not
        net.cut()
        time.sleep(seconds)
        net.join()
        answer.join()
        cluster.settle()
        traces = cluster.traces()
        cluster.stop()
    same_tokens(answers, unshaped["none"])
    print(f"cut for {seconds} s: attempts {sorted(t['attempts'] for t in traces)}")
    if quick:
        assert max(t["attempts"] for t in traces) > 1, "nothing was lost"
    else:
        assert max(t["attempts"] for t in traces) == 1


def test_a_cut_that_ends_the_kv_session_alone(load, unshaped):
    """Decode's patience with relays is shorter than the cut, the router's is not: transfers go on where they were, and no attempt is lost."""
    with shaped.net(rate="100mbit") as net, tempfile.TemporaryDirectory(prefix="ts-shaped-") as folder:
        cluster = ShapedCluster(net, "none", folder, decode=["--heartbeat-ms", "100", "--timeout-ms", "600"])
        before = net.sent_bytes("a")
        answers = []
        answer = threading.Thread(target=lambda: answers.extend(cluster.answer(load)))
        answer.start()
        wait_for(lambda: net.sent_bytes("a") > before + MIB, 60)
        net.cut()
        time.sleep(1.2)
        net.join()
        answer.join()
        cluster.settle()
        traces = cluster.traces()
        cluster.stop()
        with open(f"{folder}/relay.log") as file:
            resumed = [tuple(map(int, found)) for found in re.findall(r"event=kv_resumed .* chunks=(\d+) there=(\d+)", file.read())]
    same_tokens(answers, unshaped["none"])
    print(f"resumed (chunks, of them there): {resumed}")
    assert max(t["attempts"] for t in traces) == 1
    assert resumed, "no session was lost in the middle of a transfer"
