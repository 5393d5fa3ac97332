"""What PyTorch reaches on the first GPU: the ceilings (copy, matrix product), and for Llamas of random bf16 weights decode and time to first
token, eager, with decode captured in a graph, and compiled with decode captured. CSV on stdout, each figure as soon as it is there.

torch_bench.py [--seconds N] [--models 8b,1.1b] [--batches 1,8,32,64,128] [--context N] [--prompts 512,2048,8192] [--device cuda|cpu] [--scale N]
The most telling figures come first; what does not fit into the seconds is left out and named on stderr. A step takes embedding, layers, head and
the choice of the most likely id, which is the next step's input. --device cpu and --scale (fewer layers) are for trying it out.
"""

import argparse
import csv
import statistics
import sys
import time

import torch

import torch_model

STEPS = 32  # of decode, timed
WARM = 3
COMPILE_S = 15  # what a compilation may take


class Bench:
    def __init__(self, options):
        self.options = options
        self.cuda = options.device == "cuda"
        self.end = time.monotonic() + options.seconds
        self.rows = csv.writer(sys.stdout, lineterminator="\n")
        self.rows.writerow(["side", "model", "what", "rows", "tokens", "value", "unit"])

    def put(self, side, model, what, rows, tokens, value, unit):
        self.rows.writerow([side, model, what, rows, tokens, f"{value:.5g}", unit])
        sys.stdout.flush()

    def left(self, needed, words):
        """Whether `needed` seconds are left."""
        enough = self.end - time.monotonic() > needed
        if not enough:
            print(f"torch bench: no time for {words}", file=sys.stderr)
        return enough

    def sync(self):
        if self.cuda:
            torch.cuda.synchronize()

    def seconds_of(self, work, times):
        """Of one call, asynchronous ones in a row."""
        self.sync()
        began = time.perf_counter()
        for _ in range(times):
            work()
        self.sync()
        return (time.perf_counter() - began) / times

    def median(self, work, times):
        work()
        return statistics.median(self.seconds_of(work, 1) for _ in range(times))

    def ceilings(self):
        big = (1 << 30) if self.cuda else (1 << 22)
        a, b = (torch.empty(big, dtype=torch.uint8, device=self.options.device) for _ in range(2))
        a.random_()
        b.copy_(a)
        took = min(self.seconds_of(lambda: b.copy_(a), 10) for _ in range(3))
        self.put("torch", "", "copy, read and written", "", "", 2 * big / took / 1e9, "GB/s")
        size = 8192 if self.cuda else 256
        x, y = (torch.randn(size, size, device=self.options.device, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(3):
            x @ y
        took = min(self.seconds_of(lambda: x @ y, 10) for _ in range(3))
        self.put("torch", "", f"bf16 product {size}^3", "", "", 2 * size**3 / took / 1e12, "TFLOP/s")

    def decode_figures(self, name, model, side, rows, context, took):
        s = model.shape
        self.put(side, name, "decode", rows, context, rows / took, "tokens/s")
        moved = s.weight_bytes() + rows * context * s.kv_bytes()
        self.put(side, name, "decode", rows, context, moved / took / 1e9, "GB/s")

    def start(self, model, rows):
        context = self.options.context
        cache = model.cache(rows, context + 2 * STEPS)
        ids = torch.randint(0, model.shape.vocab, (rows,), device=self.options.device)
        position = torch.full((1,), context, device=self.options.device)
        return cache, ids, position

    def eager(self, name, model, rows):
        # cuDNN's attention is planned anew for each length, and decode has another one at each step.
        torch.backends.cuda.enable_cudnn_sdp(False)
        cache, ids, position = self.start(model, rows)
        there = self.options.context

        def step():
            nonlocal there
            there += 1
            ids.copy_(model.decode(ids, cache, position, torch_model.decode_layer, there))
            position.add_(1)
        for _ in range(WARM):
            step()
        self.decode_figures(name, model, "torch eager", rows, self.options.context, self.seconds_of(step, STEPS))

    def captured(self, name, model, rows, compiled):
        """The whole step in a graph, with the next ids and positions inside; as it is, or with a layer that is compiled once and serves all."""
        torch.compiler.reset()  # each shape counts as another compilation of the function, and those are limited
        side, layer = "torch graph", torch_model.decode_layer_masked
        if compiled:
            side, layer = "torch compiled", torch.compile(layer, dynamic=False)
        cache, ids, position = self.start(model, rows)
        places = torch.arange(self.options.context + 2 * STEPS, device=self.options.device)

        def step():
            mask = torch.where(places <= position, 0.0, float("-inf"))
            ids.copy_(model.decode(ids, cache, position, layer, mask))
            position.add_(1)
        began = time.monotonic()
        if not self.cuda:
            step()
            return self.decode_figures(name, model, side, rows, self.options.context, self.seconds_of(step, 2))
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        if compiled:
            print(f"torch bench: {name}, {rows} rows: compiled and captured in {time.monotonic() - began:.0f} s", file=sys.stderr)
        position.fill_(self.options.context)
        graph.replay()
        return self.decode_figures(name, model, side, rows, self.options.context, self.seconds_of(graph.replay, STEPS))

    def first_token(self, name, model, tokens):
        cache = model.cache(1, tokens)
        ids = torch.randint(0, model.shape.vocab, (1, tokens), device=self.options.device)
        took = self.median(lambda: model.prefill(ids, cache).item(), 5)
        self.put("torch eager", name, "first token", 1, tokens, took * 1e3, "ms")
        s = model.shape
        operations = tokens * s.layers * s.layer_bytes() + 2 * s.layers * s.heads * s.head_dim * tokens * tokens + 2 * s.hidden * s.vocab
        self.put("torch eager", name, "first token", 1, tokens, operations / took / 1e12, "TFLOP/s")

    def guarded(self, words, needed, work, *args):
        if self.left(needed, words):
            try:
                if self.cuda:
                    torch.cuda.empty_cache()
                work(*args)
            except Exception as fault:  # the other figures still count
                print(f"torch bench: {words}: {str(fault).strip().splitlines()[:1]}", file=sys.stderr)

    def models(self):
        """All eager figures and those of graphs, then compiled ones: of all models the batches that goals are about, then the others."""
        options, made = self.options, {}
        for name in options.models:
            shape = torch_model.SHAPES[name]
            shape.layers = max(1, shape.layers // options.scale)
            if self.left(4, name):
                made[name] = torch_model.Llama(shape, options.device)
        for name, model in made.items():
            for rows in options.batches:
                self.guarded(f"{name}: eager, {rows} rows", 2, self.eager, name, model, rows)
            for tokens in options.prompts:
                self.guarded(f"{name}: {tokens} tokens", 2, self.first_token, name, model, tokens)
        for name, model in made.items():
            for rows in options.batches:
                self.guarded(f"{name}: graph, {rows} rows", 3, self.captured, name, model, rows, False)
        for rows in sorted(options.batches, key=lambda rows: (rows != 32, rows)):
            for name, model in made.items():
                self.guarded(f"{name}: compiled, {rows} rows", COMPILE_S, self.captured, name, model, rows, True)


def main():
    def numbers(text):
        return [int(word) for word in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--models", default="8b,1.1b", type=lambda text: text.split(","))
    parser.add_argument("--batches", default="1,8,32,64,128", type=numbers)
    parser.add_argument("--context", default=512, type=int)
    parser.add_argument("--prompts", default="512,2048,8192", type=numbers)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--scale", default=1, type=int, metavar="N", help="an Nth of the layers")
    options = parser.parse_args()
    bench = Bench(options)
    torch.manual_seed(1)
    with torch.inference_mode():
        bench.ceilings()
        bench.models()


if __name__ == "__main__":
    main()
