"""Two network namespaces joined by a wire of chosen rate, delay, jitter and loss.

Rates are tc tbf's. A wire without delay and loss is a veth pair; with them it is ts-delay-line. Both ends are called `wire`, side "a"
is 10.77.0.1 and side "b" is 10.77.0.2, whatever else runs on the machine. Unix sockets do not know namespaces: they join the sides
beside the wire.

Names carry the process that made them, so that two runs never meet and a later run removes what a killed one left behind. What is
started in a namespace ends with the thread that started it, at the latest.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

from harness import BUILD, ROOT

ADDRESS = {"a": "10.77.0.1", "b": "10.77.0.2"}
DEVICE = "wire"
LINE = str(BUILD / "bin" / "ts-delay-line")
NAMESPACES = pathlib.Path("/run/netns")
NAME = re.compile(r"ts-(\d+)-(\d+)-\d+-[ab]")
TUN = "/dev/net/tun"
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET, PR_SET_PDEATHSIG = 0x40000000, 1


class Missing(Exception):
    """This machine cannot do it; begins with the reason of a skip (tests/README.md)."""


def missing(error):
    """The reason of a skip in what a command says, or None: then it is a fault of ours."""
    if re.search(r"Operation not permitted|Permission denied", error):
        return f"no-privilege {error}"
    if re.search(r"Unknown device type|qdisc kind is unknown|Operation not supported|Not supported", error):
        return f"no-kernel-feature {error}"
    return None


def call(*args):
    done = subprocess.run(list(map(str, args)), capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        error = f"{' '.join(map(str, args))}: {done.stderr.strip()}"
        if reason := missing(error):
            raise Missing(reason)
        raise AssertionError(error)
    return done.stdout


def started_at(pid):
    """When that process began, in the kernel's ticks; None when there is none. A number that is used again has another time."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def end_all(pids, seconds=10):
    """Kills these, and waits until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + seconds
    while any(os.path.exists(f"/proc/{pid}/root/.") for pid in pids):
        assert time.monotonic() < until, f"{pids} do not end"
        time.sleep(0.01)


def remove(name):
    """The namespace with all that runs in it: nobody else enters it."""
    end_all([int(pid) for pid in call("ip", "netns", "pids", name).split()])
    call("ip", "netns", "del", name)


def sweep():
    """Removes the namespaces of processes that are gone. Returns their names."""
    gone = []
    for path in NAMESPACES.glob("ts-*"):
        if (match := NAME.fullmatch(path.name)) and started_at(match[1]) != int(match[2]):
            with contextlib.suppress(AssertionError):  # another run sweeps too
                remove(path.name)
                gone.append(path.name)
    return gone


def end_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Net:
    """The two namespaces and their wire: rate for tc ("1gbit"), delay and jitter in ms one way, loss as a share."""

    made = 0

    def __init__(self, rate=None, delay=0, jitter=0, loss=0, seed=1, queue=16384):
        if os.geteuid() != 0:
            raise Missing("no-privilege network namespaces need root")
        sweep()
        Net.made += 1
        name = f"ts-{os.getpid()}-{started_at(os.getpid())}-{Net.made}"
        self.names = {side: f"{name}-{side}" for side in ADDRESS}
        self.processes = []
        self.line = None
        try:
            for namespace in self.names.values():
                call("ip", "netns", "add", namespace)
            if delay or loss:
                self.open_line(delay, jitter, loss, seed, queue)
            else:
                call("ip", "link", "add", DEVICE, "netns", self.names["a"], "type", "veth", "peer", "name", DEVICE, "netns", self.names["b"])
            for side, namespace in self.names.items():
                self.set_up(side, namespace, rate)
        except BaseException:
            self.close()
            raise

    def open_line(self, delay, jitter, loss, seed, queue):
        if not os.path.exists(TUN):
            raise Missing(f"no-kernel-feature {TUN}")
        flags = {"netns-a": self.names["a"], "netns-b": self.names["b"], "delay-us": delay * 1000, "jitter-us": jitter * 1000,
                 "loss-ppm": loss * 1e6, "seed": seed, "queue": queue}
        args = [text for flag, value in flags.items() for text in (f"--{flag}", str(value if isinstance(value, str) else round(value)))]
        self.line = subprocess.Popen([LINE, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                     preexec_fn=end_with_parent)
        if self.line.stdout.readline() != "ready\n":
            error = self.line.communicate(timeout=10)[1].strip()
            self.line = None
            raise Missing(missing(error)) if missing(error) else AssertionError(error)

    def set_up(self, side, namespace, rate):
        # No address of IPv6: nothing that we did not send is on the wire.
        call("ip", "-n", namespace, "link", "set", DEVICE, "addrgenmode", "none")
        call("ip", "-n", namespace, "addr", "add", f"{ADDRESS[side]}/24", "dev", DEVICE)
        if self.line:  # what a line that does not run for a moment finds afterwards
            call("ip", "-n", namespace, "link", "set", DEVICE, "txqueuelen", 5000)
        call("ip", "-n", namespace, "link", "set", DEVICE, "up")
        call("ip", "-n", namespace, "link", "set", "lo", "up")
        if rate:
            burst = "256kb" if rate.endswith("gbit") else "32kb"
            call("tc", "-n", namespace, "qdisc", "add", "dev", DEVICE, "root", "tbf", "rate", rate, "burst", burst, "latency", "20ms")

    def inside(self, side, args):
        """The command line that runs `args` on that side; the process is the one that is started."""
        return ["ip", "netns", "exec", self.names[side], *map(str, args)]

    def start(self, side, args, **popen):
        """A process on that side. `stop` ends it, `close` at the latest."""
        process = subprocess.Popen(self.inside(side, args), cwd=ROOT, preexec_fn=end_with_parent, **popen)
        self.processes.append(process)
        return process

    def run(self, side, args, timeout=120, check=True):
        done = subprocess.run(self.inside(side, args), capture_output=True, text=True, timeout=timeout, cwd=ROOT,
                              preexec_fn=end_with_parent)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(map(str, args))} -> {done.returncode}\n{done.stderr}")
        return done

    def stop(self, process, seconds=20):
        """SIGTERM, and SIGKILL when that does not help. Returns the exit code."""
        if process in self.processes:
            self.processes.remove(process)
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def socket(self, side, kind):
        """A socket of this process on that side."""
        made = []

        def make():
            namespace = os.open(NAMESPACES / self.names[side], os.O_RDONLY | os.O_CLOEXEC)
            if LIBC.setns(namespace, CLONE_NEWNET) == 0:
                made.append(socket.socket(socket.AF_INET, kind))
            os.close(namespace)

        thread = threading.Thread(target=make)  # a thread has a network of its own
        thread.start()
        thread.join()
        return made[0]

    def cut(self, joined=False):
        """Nothing passes any more, without a word to anybody; join() lets it pass again."""
        for namespace in self.names.values():
            call("ip", "-n", namespace, "link", "set", DEVICE, "up" if joined else "down")

    def join(self):
        self.cut(joined=True)

    def sent_bytes(self, side):
        """What the device of that side has sent so far, headers included."""
        text = call("ip", "-n", self.names[side], "-s", "link", "show", "dev", DEVICE)
        return int(re.search(r"TX:.*\n\s*(\d+)", text)[1])

    def close_line(self):
        """Ends the delay line. Returns its counts, [direction]."""
        self.line.terminate()
        out, error = self.line.communicate(timeout=20)
        assert self.line.returncode == 0, error
        self.line = None
        return [json.loads(text) for text in out.splitlines()]

    def close(self):
        for process in self.processes[:]:
            self.stop(process)
        if self.line:
            self.close_line()
        for namespace in self.names.values():
            if (NAMESPACES / namespace).exists():
                remove(namespace)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()


def net(**wire):
    """A Net for a test. Skips where the machine cannot have one; with root's rights, veth and TUN it never does."""
    import pytest

    try:
        return Net(**wire)
    except Missing as reason:
        pytest.skip(str(reason))
