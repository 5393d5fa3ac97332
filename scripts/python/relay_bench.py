"""What scripts/bench relay measures: ts-relay-bench on loopback and on shaped links, and the same KV by others beside it. CSV on stdout.

relay_bench.py BUILD [NAME ...] [flags of ts-relay-bench]; names: loopback, 1gbit, 100mbit (these by default), 1gbit-10ms, 1gbit-10ms-loss (1 % of the packets), peers. The
last downloads their wheels the first time. Shaped links need root, veth and tbf; what cannot run is named on stderr.
"""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "process"))

import relay_peers
import shaped

# Name -> (wire, or None for loopback; what is measured; flags)
LINKS = {
    "loopback": (None, "parts,visible", []),
    "1gbit": ({"rate": "1gbit"}, "link,visible", []),
    "100mbit": ({"rate": "100mbit"}, "link,visible", ["--tokens", "1024", "--rounds", "3"]),
    "1gbit-10ms": ({"rate": "1gbit", "delay": 10}, "link", []),
    "1gbit-10ms-loss": ({"rate": "1gbit", "delay": 10, "loss": 0.01}, "link", ["--tokens", "512", "--codecs", "i4h"]),
}
DEFAULT = ["loopback", "1gbit", "100mbit"]
PEER_ROUNDS = 2
PEER_TOKENS = {"loopback": 8192, "1gbit": 2048}


def say(*words):
    print("relay bench:", *words, file=sys.stderr, flush=True)


def program(build, name, net, flags):
    """The command of one ts-relay-bench."""
    args = [str(build / "bin" / "ts-relay-bench"), "--dir", str(build.parent / "bench"), "--link", name]
    if net:
        args += ["--send-netns", net.names["a"], "--receive-netns", net.names["b"], "--address", shaped.ADDRESS["b"]]
    return args + flags


class Watch:
    """How much of the cores others took (steal included) while this measured: beyond 3 % its figures say little."""

    def __init__(self):
        self.began = self.now()

    @staticmethod
    def now():
        with open("/proc/stat") as stat:
            ticks = list(map(int, stat.readline().split()[1:9]))
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.monotonic(), (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), own.ru_utime + own.ru_stime

    def others(self):
        wall, busy, own = (after - before for before, after in zip(self.began, self.now()))
        return max(0.0, busy - own) / (wall * os.cpu_count())


class Table:
    """Lines of CSV under one header."""

    def __init__(self):
        self.header = None

    def take(self, line):
        if self.header is None:
            self.header = line
            print(line, flush=True)
        elif line != self.header:
            print(line, flush=True)

    def run(self, args):
        """Prints what it says, and returns its lines as dicts."""
        rows = []
        with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
            for line in map(str.rstrip, process.stdout):
                self.take(line)
                if line != self.header:
                    rows.append(dict(zip(self.header.split(","), line.split(","))))
        if process.returncode != 0:
            raise SystemExit(f"{args[0]} ended with {process.returncode}")
        return rows


def with_net(wire, use):
    """Calls use(net), with None for loopback."""
    if wire is None:
        return use(None)
    with shaped.Net(**wire) as net:
        return use(net)


def measure_link(table, build, name, flags):
    wire, what, own = LINKS[name]
    with_net(wire, lambda net: table.run(program(build, name, net, ["--what", what, *own, *flags])))


def measure_peers(table, build, name, flags):
    """In each round ours, then each of the others, on the same link; medians."""
    wire, tokens = LINKS[name][0], PEER_TOKENS[name]
    folder = build.parent / "peers"

    def rounds(net):
        results = {}
        for _ in range(PEER_ROUNDS):
            args = program(build, name, net, ["--what", "link", "--rounds", "3", "--tokens", str(tokens), *flags])
            lines = subprocess.run(args, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
            for row in (dict(zip(table.header.split(","), line.split(","))) for line in lines[1:]):
                if row["what"] == "goodput":
                    floor = float(row["floor"])
                    results.setdefault(f"ours {row['codec']}", []).append((floor, float(row["reached"])))
            for peer in relay_peers.PEERS:
                try:
                    rate = relay_peers.measure(folder, peer, net, tokens)
                except relay_peers.NotRun as reason:
                    results[peer] = str(reason)
                else:
                    results.setdefault(peer, []).append((floor, rate))
        return results

    for peer, pairs in with_net(wire, rounds).items():
        if isinstance(pairs, str):
            say(f"{peer} on {name} not run: {pairs}")
            continue
        floor, reached, ratio = (sorted(values)[len(values) // 2] for values in
                                 ([f for f, _ in pairs], [r for _, r in pairs], [r / f for f, r in pairs]))
        what, _, codec = peer.partition(" ")
        table.take(f"{what},{name},{codec or 'none'},{tokens},MB/s,{floor:.2f},{reached:.2f},{ratio:.3f}")


def main():
    build, words = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    names = []
    while words and not words[0].startswith("--"):
        names.append(words.pop(0))
    if unknown := [name for name in names if name not in LINKS and name != "peers"]:
        raise SystemExit(f"no link {unknown[0]}; there are: {', '.join(LINKS)}, peers")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that namespaces go with us
    (build.parent / "bench").mkdir(exist_ok=True)
    table = Table()
    for name in names or DEFAULT:
        watch = Watch()
        try:
            if name != "peers":
                measure_link(table, build, name, words)
            else:
                table.take("what,link,codec,tokens,unit,floor,reached,ratio")
                for link in PEER_TOKENS:
                    measure_peers(table, build, link, words)
        except shaped.Missing as reason:
            say(f"{name} not run: {reason}")
        else:
            say(f"{name}: others took {watch.others():.1%} of the cores")


if __name__ == "__main__":
    main()
