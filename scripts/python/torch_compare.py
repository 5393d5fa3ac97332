"""Our engine against PyTorch on the same weights: log-probabilities of what the engine chose and of what it nearly chose.

torch_compare.py --tsctl PROGRAM [--engine DEVICE] [--device cuda|cpu]: writes a random Llama, lets `tsctl engine` continue a prompt by its most likely tokens
with the 20 best log-probabilities of each, and computes those of the same text in fp32 (the reference) and in bf16 by PyTorch. CSV: mean and
largest differences from the reference, and tokens that are not the reference's choice although its two best differ by more than 0.05.
Fails where ours is further from the reference than twice PyTorch's bf16, on the mean.
"""

import argparse
import csv
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch

import torch_model

MODEL = {"hidden": 512, "intermediate": 1536, "layers": 8, "heads": 8, "kv-heads": 2, "head-dim": 64, "vocab": 4096, "dtype": "bfloat16", "rope-theta": 10000}
PROMPT, TOKENS, BEST, MARGIN = 200, 64, 20, 0.05


def ours(options, folder, prompt):
    command = [options.tsctl, "engine", "--model", folder, "--device", options.engine, "--tokens", ",".join(map(str, prompt)), "--max-tokens", str(TOKENS),
               "--temperature", "0", "--ignore-eos", "--logprobs", str(BEST), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"torch compare: tsctl engine: {done.stderr.strip()}")
    said = json.loads(done.stdout)
    return said["tokens"], [{entry["token"]: entry["logprob"] for entry in place["top"]} for place in said["logprobs"]]


def theirs(options, folder, text, dtype):
    """Log-probabilities of each place that the engine chose at."""
    model = torch_model.from_folder(folder, options.device, dtype)
    ids = torch.tensor([text[:-1]], device=options.device)
    logits = model.logits(model.forward(ids, model.cache(1, len(text))))[0, PROMPT - 1:]
    return torch.log_softmax(logits.double(), -1).cpu()


def differences(places, reference):
    return [abs(value - reference[i][token].item()) for i, place in enumerate(places) for token, value in place.items()]


def wrong(chosen, reference):
    count = 0
    for i, token in enumerate(chosen):
        best = reference[i].topk(2)
        count += token != best.indices[0].item() and (best.values[0] - best.values[1]).item() > MARGIN
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tsctl", required=True)
    parser.add_argument("--engine", default="cuda:0", help="the engine's device")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="PyTorch's")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    random.seed(7)
    prompt = [random.randrange(MODEL["vocab"]) for _ in range(PROMPT)]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        at = str(pathlib.Path(folder) / "model")
        flags = [word for name, value in MODEL.items() for word in (f"--{name}", str(value))]
        subprocess.run([options.tsctl, "random-model", at, *flags], check=True, stdout=subprocess.DEVNULL)
        chosen, places = ours(options, at, prompt)
        reference = theirs(options, at, prompt + chosen, torch.float32)
        half = theirs(options, at, prompt + chosen, torch.bfloat16)
    same = [{token: half[i][token].item() for token in place} for i, place in enumerate(places)]
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["side", "against", "mean", "largest", "wrong of " + str(len(chosen))])
    means = []
    for side, values, tokens in (("ours", places, chosen), ("torch bf16", same, half.argmax(-1).tolist())):
        found = differences(values, reference)
        means.append(sum(found) / len(found))
        rows.writerow([side, "torch fp32", f"{means[-1]:.3g}", f"{max(found):.3g}", wrong(tokens, reference)])
    if len(chosen) != TOKENS or not means[0] <= 2 * means[1]:
        print("torch compare: ours is further from the reference than twice PyTorch's bf16", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
