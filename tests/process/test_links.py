"""Links as an operator sees them: the matrix, a test of one, metrics; on a shaped link what is measured is what the wire carries, and a cluster
file that promises more brings a warning."""

import json
import os
import re
import tempfile

import shaped
from harness import BUILD, CONF, DEMO, TSCTL, Cluster, Streams, random_requests, run, wait_for
from shaped import ADDRESS

VOCAB = json.load(open(os.path.join(DEMO, "config.json")))["vocab_size"]
ROUTER = f"tcp://{ADDRESS['b']}:5555"
CLUSTER = """
link = "1GbE";
nodes = ( { name = "here"; devices = ( { type = "L4"; count = 1; } ); }, { name = "there"; devices = ( { type = "L4"; count = 1; } ); } );
"""


def links(router):
    return json.loads(run("links", "--router", router, "--json").stdout)["links"]


def metrics(router):
    """Name and labels -> value. Every sample has its HELP and TYPE before it."""
    values, declared = {}, set()
    for line in run("metrics", "--router", router).stdout.splitlines():
        if line.startswith("#"):
            declared.add(tuple(line.split()[1:3]))
            continue
        name, labels, value = re.fullmatch(r"([a-z_:]+)(?:\{(.*)\})? (\S+)", line).groups()
        assert {("HELP", name), ("TYPE", name)} <= declared, line
        assert (name, labels) not in values, line
        values[name.removeprefix("thunderserve:"), labels] = float(value)
    return values


def failed(words, *flags):
    done = run("links", *flags, check=False)
    assert done.returncode == (2 if "expected" in words else 1), done
    assert words in done.stderr and done.stdout == "", done


def test_matrix_test_and_metrics():
    with Cluster(env={"TS_LINK_REPORT_MS": "200"}) as cluster:
        router = ("--router", cluster.router)
        empty = run("links", *router)
        assert empty.stdout.split()[:3] == ["from", "to", "MB/s"] and "no link is known yet" in empty.stderr
        done = Streams(cluster.router, random_requests(3, 12, VOCAB, prompt=(100, 400), output=(4, 8))).results()
        assert all(g["finish_reason"] == "length" for g in done)
        (link,) = wait_for(lambda: [x for x in links(cluster.router) if x["transfers"] == 12])
        assert (link["from"], link["to"]) == ("relay0", "decode0")
        assert link["goodput_bytes_per_s"] > 1e6 and 0 < link["rtt_ms"] < 1000 and link["expected_bytes_per_s"] is None
        assert link["bytes"] > 0 and link["repeats"] == 0 and link["samples"] > 0 and not link["slow"]
        row = run("links", *router).stdout.splitlines()[1].split()
        assert row[:2] == ["relay0", "decode0"] and row[4] == "-" and row[6] == "12"

        for sender in ("relay0", "prefill0"):
            tested = json.loads(run("links", "test", sender, "decode0", *router, "--mib", 8, "--json").stdout)
            assert (tested["from"], tested["to"], tested["bytes"]) == ("relay0", "decode0", 8 << 20)
            assert tested["goodput_bytes_per_s"] > 1e7 and 0 < tested["rtt_ms"] < 1000
        words = run("links", "test", "relay0", "decode0", *router).stdout
        assert re.fullmatch(r"relay0 -> decode0: (>=)?[\d.e+]+ MB/s, round trip [\d.e-]+ ms, by 16\.8 MB\n", words), words
        failed('"relay9"', "test", "relay9", "decode0", *router)
        failed('"decode9"', "test", "relay0", "decode9", *router)
        failed("expected nothing, or test FROM TO", "test", "relay0", *router)
        failed("expected nothing, or test FROM TO", "tests", "relay0", "decode0", *router)
        bad = run("links", "test", "relay0", "decode0", *router, "--mib", 0, check=False)
        assert bad.returncode == 2 and "mib" in bad.stderr

        seen = metrics(cluster.router)
        way = 'from="relay0",to="decode0"'
        assert seen["kv_transfers_total", way] == 12 and seen["kv_transfer_bytes_total", way] == link["bytes"]
        assert seen["kv_link_goodput_bytes_per_second", way] > 1e6 and seen["kv_link_rtt_seconds", way] < 1
        assert seen["kv_link_slow", way] == 0 and ("kv_link_expected_bytes_per_second", way) not in seen
        assert seen["requests_ended_total", None] == 12 and seen["num_requests_running", None] == 0
        assert seen["service_ready", 'service="relay0",role="relay"'] == 1
        assert seen["kv_cache_usage_perc", 'service="decode0"'] == 0
        assert 0 <= seen["relay_retained_bytes", 'service="relay0"'] <= seen["relay_encoded_bytes", 'service="relay0"']
        cluster.settle()


class TwoHosts:
    """Router and decode on one side of a wire, relay and prefill on the other, as a cluster file names them."""

    def __init__(self, net, folder):
        self.net = net
        file = f"{folder}/two.conf"
        with open(file, "w") as out:
            out.write(CLUSTER)
        pool = f"ipc://{folder}/pool"
        self.log = open(f"{folder}/log", "w+")
        there, here = {"side": "b", "host": "there"}, {"side": "a", "host": "here"}
        self.services = [
            self.start("router", "b", "--listen", ROUTER, "--conf-dir", "conf", "--cluster", file),
            self.start("relay", "a", "--router", ROUTER, "--listen", pool, "--host", here["host"], "--link-report-ms", 200,
                       "--probe-every-ms", 300),
            self.start("decode", "b", "--router", ROUTER, "--model", DEMO, "--host", there["host"], "--kv-listen", f"tcp://{ADDRESS['b']}:*"),
            self.start("prefill", "a", "--router", ROUTER, "--model", DEMO, "--host", here["host"], "--kv-listen", f"tcp://{ADDRESS['a']}:*",
                       "--relay", "relay", "--pool", pool),
        ]
        wait_for(self.ready, 60)

    def start(self, service, side, *flags):
        return self.net.start(side, [BUILD / "bin" / f"ts-{service}", "--config", CONF, "--id", service, "--log-level", "warn", *flags],
                              stderr=self.log)

    def tsctl(self, *args):
        return json.loads(self.net.run("b", [TSCTL, *args, "--router", ROUTER, "--json"]).stdout)

    def ready(self):
        done = self.net.run("b", [TSCTL, "status", "--router", ROUTER, "--json"], check=False)
        return done.returncode == 0 and sum(s["ready"] for s in json.loads(done.stdout)["services"]) == 4

    def warnings(self):
        with open(self.log.name) as file:
            return re.findall(r"event=link_slow from=relay to=decode measured=([\d.]+)MB/s expected=([\d.]+)MB/s", file.read())

    def stop(self):
        for process in reversed(self.services):
            assert self.net.stop(process) == 0


def near(measured, wire):
    """What a wire carries of our payloads: all but the heads of TCP, IP and Ethernet, within what a shared machine blurs."""
    assert 0.85 * wire <= measured <= 1.15 * wire, measured


def test_a_shaped_link_is_measured_and_warned_of():
    wire = 12.5e6
    with shaped.net(rate="100mbit") as net, tempfile.TemporaryDirectory(prefix="ts-links-") as folder:
        hosts = TwoHosts(net, folder)
        near(hosts.tsctl("links", "test", "relay", "decode", "--mib", "4")["goodput_bytes_per_s"], wire)
        (link,) = wait_for(lambda: [x for x in hosts.tsctl("links")["links"] if x["slow"]], 30)
        near(link["goodput_bytes_per_s"], wire)
        assert link["rtt_ms"] < 10 and not link["at_least"]
        assert 100e6 < link["expected_bytes_per_s"] <= 125e6
        ((measured, expected),) = hosts.warnings()
        near(float(measured) * 1e6, wire)
        assert float(expected) * 1e6 == link["expected_bytes_per_s"]
        hosts.stop()
        assert len(hosts.warnings()) == 1
