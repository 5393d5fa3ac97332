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
