"""The five processes on one GPU, prefill, relay and decode sharing it: what they compute against the engine in one process, and their speed.

gpu_pipeline.py --build BUILD [--device auto|cuda:0|cpu] [--mps] [--small] [--seconds N]: CSV on stdout. Writes a random Llama of the 1.1B shape (--small: a
tiny one) below --dir. A few prompts go one at a time, with codec none, and must give the engine's tokens and log-probabilities to the last bit; then many
at once, with codec none and with the router's choice. All of it again with encode = worker, and with --mps under the MPS daemon. The workers measure
themselves at their first start, one after the other, and must know the figures at the later ones. Exit code 1: other tokens or bits, a request that
failed, a worker that measured again.
"""

import argparse
import csv
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import gpu_probe

MODEL = {"hidden": 2048, "intermediate": 5632, "layers": 22, "heads": 32, "kv-heads": 4, "head-dim": 64, "vocab": 32000, "dtype": "bfloat16"}
SMALL = {"hidden": 256, "intermediate": 512, "layers": 4, "heads": 4, "kv-heads": 2, "head-dim": 64, "vocab": 512, "dtype": "bfloat16"}
ALONE, MANY, OUTPUT, TOP = 2, 32, 64, 5
READY_S, STOP_S = 40, 4
# What the services say of the device, and of who encodes.
TELLING = re.compile(r"event=(ready|encodes_for_relay|worker_encodes|no_mps|pool_\w+|device_lost|not_measured)\b.*")
MEASURED = re.compile(r"(prefill|decode) event=measured cached=(\d) .*\berror=([\d.]+) ms=(\d+)")

CONF = """
up = {{ model = "{model}"; engine = "{device}"; }};
router = {{ log_level = "warn"; }};
planner = {{ algorithm = "thunder"; log_level = "warn"; }};
relay = {{ log_level = "info"; encode = "{encode}"; }};
prefill = {{ profile = "on"; kv_cache_mib = {mib}; max_num_batched_tokens = 2048; log_level = "info"; }};
decode = {{ profile = "on"; kv_cache_mib = {mib}; max_num_seqs = 64; log_level = "info"; }};
"""


class Pipeline:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.tsctl = str(options.build / "bin" / "tsctl")
        self.model, self.log = folder / "model", folder / "up.log"
        self.shape = SMALL if options.small else MODEL
        self.prompt = 48 if options.small else 512
        self.end = time.monotonic() + options.seconds
        self.rows = csv.writer(sys.stdout, lineterminator="\n")
        self.rows.writerow(["processes", "what", "value", "unit"])
        self.wrong, self.started = [], False

    def put(self, processes, what, value, unit):
        self.rows.writerow([processes, what, f"{value:.5g}", unit])
        sys.stdout.flush()

    def run(self, *args, env=None, fine=(0,)):
        """Standard output of one tsctl, whose status is one of `fine`; ends with the time of all."""
        left = max(1.0, self.end - time.monotonic())
        try:
            done = subprocess.run([self.tsctl, *map(str, args)], capture_output=True, text=True, timeout=left, check=False, env=env)
        except subprocess.TimeoutExpired:
            raise OSError(f"the time was over during tsctl {args[0]}") from None
        if done.returncode not in fine:
            raise OSError(f"tsctl {args[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def write_model(self):
        flags = [word for name, value in self.shape.items() for word in (f"--{name}", value)]
        self.run("random-model", self.model, *flags)
        random.seed(3)
        self.prompts = [[random.randrange(1, self.shape["vocab"]) for _ in range(self.prompt)] for _ in range(MANY)]

    def conf(self, encode):
        path = self.folder / "pipeline.conf"
        path.write_text(CONF.format(model=self.model, device=self.options.device, mib=64 if self.options.small else 2048, encode=encode))
        return path

    def sampling(self):
        return ["--max-tokens", OUTPUT, "--temperature", 0, "--ignore-eos"]

    def alone(self):
        """Tokens and log-probabilities of the engine in one process, without batches."""
        found = []
        for prompt in self.prompts[:ALONE]:
            said = json.loads(self.run("engine", "--model", self.model, "--device", self.options.device, "--tokens", ",".join(map(str, prompt)),
                                       *self.sampling(), "--logprobs", TOP, "--json"))
            found.append((said["tokens"], said["logprobs"]))
        self.put("one", f"first token, {self.prompt} tokens", said["ttft_ms"], "ms")
        self.put("one", "token after token", said["tpot_ms"], "ms")
        return found

    def cluster(self, conf, env, log):
        ready_ms = max(1000, min(READY_S, int(self.end - time.monotonic())) * 1000)
        up = subprocess.Popen([self.tsctl, "up", str(conf), "--ready-ms", str(ready_ms), "--stop-ms", str(STOP_S * 1000)],
                              stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        line = up.stdout.readline()
        if not line:
            raise OSError(f"tsctl up ended with {up.wait()}: {self.log.read_text().strip()[-400:]}")
        return up, json.loads(line)["router"]

    def requests(self, router, prompts, codec, env, *flags):
        path = self.folder / "requests"
        wish = {"codec": codec} if codec else {}
        path.write_text("".join(json.dumps({"tokens": prompt, **wish}) + "\n" for prompt in prompts))
        began = time.monotonic()
        said = self.run("generate", "--router", router, "--requests", path, *self.sampling(), *flags, env=env, fine=(0, 1))
        return [json.loads(line) for line in said.splitlines()], time.monotonic() - began

    def five(self, name, expected, env=None, encode="relay"):
        with open(self.log, "w", encoding="utf-8") as log:
            up, router = self.cluster(self.conf(encode), env, log)
        equal = bits = 0
        try:
            for i, (tokens, logprobs) in enumerate(expected):
                results, _ = self.requests(router, [self.prompts[i]], "none", env, "--logprobs", TOP)
                if results[0]["error"]:
                    raise OSError(f"prompt {i}: {results[0]['error']}")
                equal += results[0]["tokens"] == tokens
                bits += results[0]["logprobs"] == logprobs
                if results[0]["logprobs"] != logprobs:
                    same = next((j for j, (a, b) in enumerate(zip(results[0]["logprobs"], logprobs)) if a != b), "the last")
                    self.wrong.append(f"{name}: prompt {i}: other bits than one process, from token {same} on")
            self.put(name, f"first token, {self.prompt} tokens", results[0]["ttft_ms"], "ms")
            self.put(name, "token after token", results[0]["tpot_ms"], "ms")
            self.put(name, f"of {len(expected)} prompts with the tokens of one process", equal, "")
            self.put(name, f"of {len(expected)} prompts with its log-probabilities to the last bit", bits, "")
            for codec in ("none", None):
                self.many(name, router, codec, env)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait()
            self.tell(name)

    def tell(self, name):
        """The services' log, and of it what says how it ran."""
        text = self.log.read_text(errors="replace")
        print(text, file=sys.stderr)
        print(f"pipeline: {name}: {'a worker' if 'encodes_for_relay' in text else 'the relay'} encodes", file=sys.stderr)
        self.tell_measured(name, MEASURED.findall(text))
        for words in dict.fromkeys(found[0] for found in map(TELLING.search, text.splitlines()) if found):
            print(f"pipeline: {name}: {words}", file=sys.stderr)

    def tell_measured(self, name, found):
        for service, cached, error, ms in found:
            self.put(name, f"{service} {'knows what was measured' if cached == '1' else 'measures itself'}: error", float(error), "")
            self.put(name, f"{service}: time of that", float(ms), "ms")
        known = [service for service, cached, *_ in found if cached == "1"]
        if self.started and sorted(known) != ["decode", "prefill"]:
            self.wrong.append(f"{name}: of the two workers know what was measured before: {' '.join(known) or 'none'}")
        self.started = True

    def many(self, name, router, codec, env):
        results, _ = self.requests(router, self.prompts, codec, env)
        ended = [r for r in results if r["finish_reason"] == "length" and len(r["tokens"]) == OUTPUT]
        words = f"{MANY} at once, codec {codec or 'of the router'}"
        if len(ended) < len(results):
            why = next(r["error"] or r["finish_reason"] for r in results if r not in ended)
            self.wrong.append(f"{name}: {words}: {len(results) - len(ended)} requests did not end well: {why}")
            return
        words = f"{MANY} at once, codec {results[0]['codec']}"
        took = max(r["ttft_ms"] + r["tpot_ms"] * (len(r["tokens"]) - 1) for r in results) / 1e3
        self.put(name, words, sum(len(r["tokens"]) for r in results) / took, "tokens/s")
        self.put(name, f"{words}: first token, median", statistics.median(r["ttft_ms"] for r in results), "ms")
        self.put(name, f"{words}: token after token, median", statistics.median(r["tpot_ms"] for r in results), "ms")
        sent = statistics.median(r["kv_bytes_sent"] for r in results)
        if sent:
            self.put(name, f"{words}: KV sent of raw", sent / statistics.median(r["kv_bytes_raw"] for r in results), "")


def measure(options, folder):
    p = Pipeline(options, folder)
    p.write_model()
    expected = p.alone()
    p.five("five", expected)
    p.five("five, workers encode", expected, encode="worker")
    if options.mps:
        try:
            daemon = gpu_probe.Mps(folder / "mps")
        except OSError as fault:
            print(f"pipeline: MPS: {fault}", file=sys.stderr)
        else:
            with daemon:
                p.five("five, MPS", expected, daemon.environment)
    for words in p.wrong:
        print(f"pipeline: {words}", file=sys.stderr)
    return int(bool(p.wrong))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--mps", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--dir", type=pathlib.Path, help="where the model is written; /dev/shm by default")
    options = parser.parse_args()
    where = options.dir or pathlib.Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ts-pipeline-", dir=where))
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")  # of products and of workers: nobody has measured anything before
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # services, daemon and model go all the same
    try:
        return measure(options, folder)
    except OSError as fault:
        print(f"pipeline: {fault}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
