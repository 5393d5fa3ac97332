"""What the codec does to the logits, measured by `tsctl engine --quality` on the demo model."""

import json
import math

import pytest

from harness import DEMO, run

PROMPT = "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n\nFirst Citizen:\n" * 4


def quality(*flags):
    flags = ("--prompt", PROMPT, "--max-tokens", 128, "--ignore-eos", *flags)
    return json.loads(run("engine", "--model", DEMO, "--quality", "--json", *flags).stdout)


@pytest.mark.parametrize("draw", [("--temperature", 0), ("--seed", 7)])
def test_four_bits_change_the_logits_a_little(draw):
    got = quality("--codec", "i4", *draw)
    assert got["codec"] == "i4" and got["positions"] == 127 and got["prompt_tokens"] > 64
    assert 0 < got["kl_mean"] <= got["kl_p99"] <= got["kl_max"] < math.inf
    assert got["kl_mean"] < 0.1
    assert 0.5 < got["top1_agreement"] <= 1
    assert 0.25 < got["kv_bytes_sent"] / got["kv_bytes_raw"] < 0.35


def test_codec_none_changes_nothing():
    got = quality("--codec", "none", "--seed", 7)
    assert got["kl_mean"] == got["kl_p99"] == got["kl_max"] == 0
    assert got["top1_agreement"] == 1
    assert got == quality("--seed", 7)


def test_threads_do_not_change_it():
    assert quality("--codec", "i4", "--threads", 1) == quality("--codec", "i4", "--threads", 2)


def test_one_line_for_people():
    line = run("engine", "--model", DEMO, "--quality", "--codec", "i4", "--prompt", PROMPT, "--max-tokens", 16, "--ignore-eos").stdout
    assert line.startswith("codec i4: 15 positions") and line.count("\n") == 1 and "top-1 agreement" in line


def test_refusals():
    for flags, words in (
        (("--model", DEMO, "--tokens", "1,2", "--max-tokens", 1), "needs 2 or more"),
        (("--device", "modelled", "--tokens", "1,2"), "modelled engine"),
    ):
        done = run("engine", "--quality", *flags, check=False)
        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1
