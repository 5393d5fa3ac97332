"""What the process tests share: start a cluster through tsctl, ask it things, stop it. Only Debian's python3 packages."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("TS_BUILD_DIR", ROOT / "build" / "release"))
TSCTL = str(BUILD / "bin" / "tsctl")
MODELS = ROOT / "tests" / "data" / "models"
DEMO = str(MODELS / "demo")
CONF = str(ROOT / "conf" / "local.conf")


def use_python_client():
    """Makes `import thunderserve` find the package of this build."""
    if str(BUILD / "python") not in sys.path:
        sys.path.insert(0, str(BUILD / "python"))


def vocab_of(model):
    return json.loads((model / "config.json").read_text())["vocab_size"]


def free_ports():
    """The first of five in a row."""
    for _ in range(100):
        base = random.randrange(20000, 32000)
        sockets = [socket.socket() for _ in range(5)]
        try:
            for i, s in enumerate(sockets):
                s.bind(("127.0.0.1", base + i))
            return base
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise AssertionError("no five free ports in a row")


def run(*args, timeout=120, check=True):
    """One tsctl call; returns the finished process."""
    done = subprocess.run([TSCTL, *map(str, args)], capture_output=True, text=True, timeout=timeout, cwd=ROOT)
    if check and done.returncode != 0:
        raise AssertionError(f"tsctl {' '.join(map(str, args))} -> {done.returncode}\n{done.stderr}")
    return done


class Cluster:
    """`tsctl up` in the background."""

    def __init__(self, *flags, conf=CONF, env=None):
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            [TSCTL, "up", conf, *map(str, flags)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(30)
            raise AssertionError(f"tsctl up did not get ready: {self.log()}")
        ready = json.loads(line)
        self.router = ready["router"]
        self.services = {s["id"]: s for s in ready["services"]}

    def log(self):
        self.errors.seek(0)
        return self.errors.read()

    def pid(self, service_id):
        return self.services[service_id]["pid"]

    def kill(self, service_id, signo=signal.SIGKILL):
        os.kill(self.pid(service_id), signo)

    def generate(self, *flags, timeout=120):
        return json.loads(run("generate", "--router", self.router, "--json", *flags, timeout=timeout).stdout)

    def status(self):
        return json.loads(run("status", "--router", self.router, "--json").stdout)

    def settle(self, seconds=20):
        """Waits until nothing runs and no KV block is held; returns the last status."""
        until = time.monotonic() + seconds
        while True:
            status = self.status()
            busy = status["queued"] + status["running"] + sum(s["kv_blocks_used"] + s["in_flight"] for s in status["services"])
            if busy == 0:
                return status
            if time.monotonic() > until:
                raise AssertionError(f"the cluster does not come to rest: {status}\n{self.log()}")
            time.sleep(0.1)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        code = self.stop()
        if kind is not None:
            print(self.log(), file=sys.stderr)
        else:
            assert code == 0, f"tsctl up ended with {code}: {self.log()}"


def wait_for(look, seconds=30):
    """Asks again and again until there is an answer that counts, and returns it."""
    until = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.05)
    return answer


def requests_file(requests):
    """A temporary file for --requests."""
    file = tempfile.NamedTemporaryFile(mode="w", suffix=".jsonl", delete=False)
    for request in requests:
        file.write(json.dumps(request) + "\n")
    file.close()
    return file.name


def engine(requests, *flags, model=DEMO, timeout=600):
    """The reference: each request alone, in one process, without sockets."""
    path = requests_file(requests)
    try:
        done = run("engine", "--model", model, "--requests", path, *flags, timeout=timeout)
    finally:
        os.unlink(path)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Streams:
    """Many requests, open at once, through one client; counts of started and ended streams while they run."""

    def __init__(self, router, requests, *flags):
        self.path = requests_file(requests)
        self.out = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            [TSCTL, "generate", "--router", router, "--requests", self.path, "--progress", *map(str, flags)],
            stdout=self.out,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.counts = (0, 0)
        self.words = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read_progress)
        self.reader.start()

    def read_progress(self):
        for line in self.process.stderr:
            with self.changed:
                try:
                    progress = json.loads(line)
                    self.counts = (progress["first"], progress["ended"])
                except ValueError:
                    self.words.append(line)
                self.changed.notify_all()
        with self.changed:
            self.reader = None
            self.changed.notify_all()

    def running(self):
        """Streams that have a first and lack a last token."""
        with self.changed:
            return self.counts[0] - self.counts[1]

    def wait_running(self, count, seconds=120):
        """Returns once at least `count` streams have a first and lack a last token."""
        until = time.monotonic() + seconds
        with self.changed:
            while self.counts[0] - self.counts[1] < count:
                left = until - time.monotonic()
                if left <= 0 or self.reader is None:
                    first, ended = self.counts
                    raise AssertionError(f"never {count} streams under way: {first} started, {ended} ended {''.join(self.words)}")
                self.changed.wait(left)

    def results(self, timeout=600):
        try:
            self.process.wait(timeout)
        finally:
            self.process.kill()
            os.unlink(self.path)
        self.out.seek(0)
        return [json.loads(line) for line in self.out.read().splitlines()]


def random_requests(seed, count, vocab, prompt=(1, 300), output=(8, 48)):
    """Different prompts of token ids, half greedy, half sampled with seeds."""
    rng = random.Random(seed)
    requests = []
    for i in range(count):
        request = {
            "tokens": [rng.randrange(vocab) for _ in range(rng.randint(*prompt))],
            "max_tokens": rng.randint(*output),
            "ignore_eos": True,
        }
        if i % 2:
            request.update(temperature=0.8, top_p=0.95, seed=rng.randrange(1, 1 << 50))
        else:
            request.update(temperature=0.0, seed=1)
        requests.append(request)
    return requests


def same_tokens(got, want):
    """Asserts that every stream ended normally with the reference tokens."""
    assert len(got) == len(want)
    for i, (g, w) in enumerate(zip(got, want)):
        assert g["finish_reason"] == w["finish_reason"], f"stream {i}: {g['finish_reason']} ({g['reason']}: {g['error']})"
        assert g["tokens"] == w["tokens"], f"stream {i}: tokens differ from the reference at index {first_difference(g, w)}"


def first_difference(got, want):
    pairs = zip(got["tokens"], want["tokens"])
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got["tokens"]), len(want["tokens"])))
