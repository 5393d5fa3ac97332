"""generation_config.json of the model decides what a request is silent about: in one process and in five, for flags, files and Python."""

import json
import os
import shutil

import pytest
from harness import DEMO, Cluster, engine, requests_file, run, use_python_client

use_python_client()

import thunderserve

PROMPT = "First Citizen:"
SILENT = ["--prompt", PROMPT, "--max-tokens", 32, "--seed", 11, "--ignore-eos"]
NAMED = [*SILENT, "--temperature", "1.0", "--top-k", 0, "--top-p", "1.0"]


def model_of(folder, **keys):
    copy = folder / "model"
    shutil.copytree(DEMO, copy)
    path = copy / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return copy


def one_process(model, *flags):
    return json.loads(run("engine", "--model", model, "--json", *flags).stdout)["tokens"]


def requests_of(cluster, lines):
    path = requests_file(lines)
    try:
        done = run("generate", "--router", cluster.router, "--requests", path)
    finally:
        os.unlink(path)
    return [json.loads(line)["tokens"] for line in done.stdout.splitlines()]


def test_the_model_decides_for_the_silent(tmp_path):
    model = model_of(tmp_path, temperature=0.0, top_k=5, do_sample=True)
    greedy = one_process(DEMO, *SILENT, "--temperature", 0)
    sampled = one_process(DEMO, *NAMED)
    five_best = one_process(DEMO, *SILENT, "--temperature", 1, "--top-k", 5)
    assert len({tuple(tokens) for tokens in (greedy, sampled, five_best)}) == 3
    assert one_process(model, *SILENT) == greedy
    assert one_process(model, *NAMED) == sampled
    line = {"prompt": PROMPT, "max_tokens": 32, "seed": 11, "ignore_eos": True}
    lines = [line, {**line, "temperature": 1.0, "top_k": 0}, {**line, "temperature": 1}]
    assert [r["tokens"] for r in engine(lines, model=model)] == [greedy, sampled, five_best]
    with Cluster("--codec", "none", "--model", model) as cluster, thunderserve.Client(cluster.router) as client:
        assert cluster.generate(*SILENT)["tokens"] == greedy
        assert cluster.generate(*NAMED)["tokens"] == sampled
        assert requests_of(cluster, lines) == [greedy, sampled, five_best]
        options = {"max_tokens": 32, "seed": 11, "ignore_eos": True}
        assert client.generate(PROMPT, **options, temperature=None).ids == greedy
        assert client.generate(PROMPT, **options, temperature=1.0, top_k=0).ids == sampled
        cluster.settle()


@pytest.mark.parametrize("key, value", [("top_k", 3), ("top_p", 0.5), ("min_p", 0.3), ("repetition_penalty", 1.6), ("temperature", 0.4)])
def test_each_key_counts(tmp_path, key, value):
    model = model_of(tmp_path, **{key: value})
    flag = "--" + key.replace("_", "-")
    silent = one_process(model, *SILENT)
    assert silent == one_process(DEMO, *SILENT, flag, value) != one_process(DEMO, *SILENT)
    off = {"top_k": 0, "min_p": 0}.get(key, 1)
    assert one_process(model, *SILENT, flag, off) == one_process(DEMO, *SILENT)


def test_out_of_range_in_a_file_of_requests():
    path = requests_file([{"prompt": "x", "top_p": 0}])
    try:
        done = run("engine", "--model", DEMO, "--requests", path, check=False)
    finally:
        os.unlink(path)
    assert done.returncode != 0 and 'line 1: key "top_p" is out of range' in done.stderr and done.stderr.count("\n") == 1
