"""Every codec through the services, against one process that passes its KV through the same codec; and the codec that is chosen when nobody names one."""

import json

import pytest

from harness import MODELS, Cluster, Streams, engine, random_requests, run, same_tokens, vocab_of

PRESETS = ["none", "lz16", "i8", "i4", "i4h", "i4hs", "i4hc", "k8v4h", "i4h,0=8/16", "i4hc,1=4/8"]


def greedy(seed, count, vocab, **lengths):
    return [{**request, "temperature": 0.0} for request in random_requests(seed, count, vocab, **lengths)]


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """A random Qwen2 whose keys have the bias that trained ones have."""
    folder = tmp_path_factory.mktemp("models") / "biased"
    run("random-model", "--type", "qwen2", "--key-bias", 150, folder)
    return folder


@pytest.mark.parametrize("folder", ["demo", "qwen3-norm", "llama-yarn", "llama31-rope"])
def test_every_codec_equals_one_process(folder):
    """Short prompts go as i8; 300 tokens are a whole span of centred keys and a part of one."""
    model = MODELS / folder
    lengths = [(5, 31), (32, 90), (300, 300)] if folder == "demo" else [(5, 31), (60, 90)]
    prompts = [greedy(11 + i, 1, vocab_of(model), prompt=length, output=(16, 16))[0] for i, length in enumerate(lengths)]
    with Cluster("--codec", "none", "--model", model) as cluster:
        got = Streams(cluster.router, [{**prompt, "codec": codec} for codec in PRESETS for prompt in prompts]).results()
        cluster.settle()
    want = [answer for codec in PRESETS for answer in engine(prompts, "--codec", codec, model=model)]
    same_tokens(got, want)
    for answer, (codec, prompt) in zip(got, [(codec, prompt) for codec in PRESETS for prompt in prompts]):
        brief = len(prompt["tokens"]) < 32 and codec in ("i4", "i4h", "i4hs", "i4hc", "k8v4h")
        assert (answer["codec"], answer["codec_why"]) == (("i8", "short prompt") if brief else (codec, "request"))


def test_the_codec_of_biased_keys(biased):
    """Nobody names one: the prefill worker has found that this model's keys must be centred."""
    requests = greedy(5, 3, vocab_of(biased), prompt=(200, 400), output=(24, 24))
    with Cluster("--model", biased) as cluster:
        got = Streams(cluster.router, requests).results()
        cluster.settle()
    same_tokens(got, engine(requests, "--codec", "i4hc", model=biased))
    assert {answer["codec"] for answer in got} == {"i4hc"}
    assert all(answer["codec_why"].startswith("auto: ") for answer in got)


def test_accuracy_is_the_operators(tmp_path):
    conf = tmp_path / "safe.conf"
    conf.write_text('router = { accuracy = "safe"; };\n')
    request = greedy(6, 1, vocab_of(MODELS / "demo"), prompt=(100, 100), output=(8, 8))
    with Cluster("--model", MODELS / "demo", conf=conf) as cluster:
        got = Streams(cluster.router, request).results()
    assert got[0]["codec"] in ("k8v4h", "i8") and got[0]["codec_why"].startswith("auto: link")
    same_tokens(got, engine(request, "--codec", got[0]["codec"], model=MODELS / "demo"))
