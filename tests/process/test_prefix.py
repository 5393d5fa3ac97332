"""A conversation: what a decode worker has of the next prompt is not sent again, and the tokens are those of one process."""

import json
import os

import pytest
from harness import DEMO, Cluster, Streams, engine, random_requests, same_tokens

VOCAB = json.load(open(os.path.join(DEMO, "config.json")))["vocab_size"]
TURNS = 4


def turns(cluster):
    """Each prompt is the one before with its answer and 60 tokens more."""
    parts = random_requests(11, TURNS, VOCAB, prompt=(60, 60), output=(12, 12))
    asked, told, tokens = [], [], random_requests(12, 1, VOCAB, prompt=(400, 400), output=(1, 1))[0]["tokens"]
    for part in parts:
        asked.append({**part, "tokens": tokens + part["tokens"]})
        told.append(Streams(cluster.router, [asked[-1]]).results()[0])
        tokens = asked[-1]["tokens"] + told[-1]["tokens"]
    return asked, told


@pytest.mark.parametrize("codec", ["i4", "none", "i4hc"])
def test_next_turn_sends_what_is_new(codec):
    small = {"TS_CHUNK_TOKENS_MAX": "16"}  # what was encoded before the grant goes in whole chunks
    with Cluster("--codec", codec, env=small) as cluster:
        asked, told = turns(cluster)
        cluster.settle()  # what is remembered counts as free
    same_tokens(told, engine(asked, "--codec", codec))
    span = 256 if codec == "i4hc" else 16
    for i in range(TURNS):
        ends = [i and len(asked[i - 1]["tokens"]) // span * span, len(asked[i]["tokens"])]
        part = 1 - ends[0] / ends[1]
        share = told[i]["kv_bytes_sent"] / told[0]["kv_bytes_sent"] * len(asked[0]["tokens"]) / ends[1]
        print(f"turn {i}: {told[i]['kv_bytes_sent']} bytes sent of {told[i]['kv_bytes_raw']}, {share:.3f} of what the first took, {part:.3f} is new")
        assert share <= part + 0.05, (i, share, part)
