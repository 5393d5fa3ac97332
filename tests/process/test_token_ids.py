"""A model folder without tokenizer.json serves requests of token ids, and says so to requests of text."""

import json
import shutil
import subprocess

import pytest
from harness import DEMO, ROOT, TSCTL, Cluster, run

FLAGS = ["--tokens", "5,6,7", "--max-tokens", 8, "--temperature", 0, "--ignore-eos"]
TEXT = ["--prompt", "First Citizen:", "--max-tokens", 8]


@pytest.fixture
def model(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(DEMO, copy)
    (copy / "tokenizer.json").unlink()
    return copy


def refused(*args):
    done = subprocess.run([TSCTL, *map(str, args)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode != 0 and done.stderr.count("\n") == 1, done.stderr
    assert "tokenizer.json" in done.stderr and "token" in done.stderr, done.stderr


def test_one_process(model):
    got = json.loads(run("engine", "--model", model, "--json", *FLAGS).stdout)
    assert got["tokens"] == json.loads(run("engine", "--model", DEMO, "--json", *FLAGS).stdout)["tokens"]
    assert len(got["tokens"]) == 8 and got["text"] == ""
    refused("engine", "--model", model, *TEXT)


def test_five_processes(model):
    want = json.loads(run("engine", "--model", model, "--json", *FLAGS).stdout)
    with Cluster("--codec", "none", "--model", model) as cluster:
        refused("generate", "--router", cluster.router, *TEXT)
        got = cluster.generate(*FLAGS)
        cluster.settle()
    assert got["tokens"] == want["tokens"] and got["text"] == ""


def padded(model, ids):
    """Makes the tokenizer know the first `ids` ids only: the other rows of the embedding are padding."""
    path = model / "tokenizer.json"
    shutil.copy(f"{DEMO}/tokenizer.json", path)
    data = json.loads(path.read_text())
    vocab = {token: i for token, i in data["model"]["vocab"].items() if i < ids}
    pairs = [m if isinstance(m, list) else m.split(" ") for m in data["model"]["merges"]]
    data["model"]["merges"] = [m for m, pair in zip(data["model"]["merges"], pairs) if "".join(pair) in vocab]
    data["model"]["vocab"] = vocab
    path.write_text(json.dumps(data))


def test_padding_is_never_drawn(model):
    request = ["--tokens", "5,6,7", "--max-tokens", 200, "--temperature", 1.5, "--seed", 3, "--ignore-eos"]
    free = json.loads(run("engine", "--model", model, "--json", *request).stdout)["tokens"]
    padded(model, 400)
    got = json.loads(run("engine", "--model", model, "--json", *request).stdout)["tokens"]
    assert max(free) >= 400 > max(got) and len(got) == 200
    with Cluster("--codec", "none", "--model", model) as cluster:
        assert cluster.generate(*request)["tokens"] == got
        cluster.settle()
