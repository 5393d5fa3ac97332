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


@pytest.mark.parametrize("request_, words", [
    ({"prompt": "x", "top_p": 0}, 'key "top_p" is out of range: expected 1e-06 to 1'),
    ({"prompt": "x", "max_tokens": 0}, 'key "max_tokens" is out of range: expected 1 to 1000000'),
    ({"prompt": "x", "max_tokens": 2**32 + 5}, 'key "max_tokens" is out of range'),
    ({"prompt": "x", "min_tokens": -1}, 'key "min_tokens" is out of range'),
    ({"prompt": "x", "logprobs": 21}, 'key "logprobs" is out of range: expected 0 to 20'),
    ({"prompt": "x", "seed": 2**60}, 'key "seed" is out of range'),
    ({"prompt": "x", "max_tokens": 1.5}, 'key "max_tokens" is no whole number'),
    ({"prompt": "x", "temperature": "1"}, 'key "temperature" is no number'),
    ({"prompt": 5}, 'key "prompt" is no text'),
    ({"prompt": "x", "ignore_eos": 1}, 'key "ignore_eos" is neither true nor false'),
    ({"tokens": 5}, 'key "tokens" is no list of token ids'),
    ({"prompt": "x", "tokens": [1]}, "both prompt and tokens"),
])
def test_what_a_file_of_requests_must_not_say(request_, words):
    path = requests_file([{"tokens": [1], "max_tokens": 1}, request_])
    try:
        done = run("engine", "--model", DEMO, "--requests", path, check=False)
    finally:
        os.unlink(path)
    assert done.returncode != 0 and f"{path} line 2: {words}" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("ids, words", [(["a", "b", "a"], 'line 3: another line has the request_id "a"'), (["a", "i" * 129], "line 2: request_id has 129 bytes")])
def test_ids_of_a_file_are_looked_at_before_anything_is_sent(ids, words):
    path = requests_file([{"tokens": [1], "max_tokens": 1, "request_id": i} for i in ids])
    try:
        done = run("generate", "--router", "tcp://127.0.0.1:9", "--requests", path, check=False)
    finally:
        os.unlink(path)
    assert done.returncode != 0 and f"{path} {words}" in done.stderr and done.stderr.count("\n") == 1


def test_a_file_of_requests_that_is_none(tmp_path):
    (tmp_path / "cut.jsonl").write_text('{"prompt": "x"}\n{"prompt":\n')
    for path, words in ((tmp_path, f"cannot read {tmp_path}: Is a directory"), (tmp_path / "cut.jsonl", "cut.jsonl line 2: JSON line 2 column 0: not valid JSON")):
        for verb in (("engine", "--model", DEMO), ("generate", "--router", "tcp://127.0.0.1:9")):
            done = run(*verb, "--requests", path, check=False)
            assert done.returncode != 0 and words in done.stderr and done.stderr.count("\n") == 1
