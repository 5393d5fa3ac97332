"""What codecs cost in quality, by `tsctl quality`: on the demo model, and on random models whose keys have what trained ones have."""

import json
import math
import re

import pytest

from harness import DEMO, ROOT, Cluster, run

TEXT = ROOT / "tests" / "data" / "corpus" / "tinyshakespeare.txt"
HELD_OUT = ("--text", TEXT, "--from", 0.9)  # of the demo model: it was trained on the first nine tenths


def quality(model, *flags):
    return json.loads(run("quality", "--model", model, "--json", *flags).stdout)


def by_codec(got):
    return {item["codec"]: item for item in got["codecs"]}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Random models by name: `outliers` is a Llama; `qwen` and `biased` are one Qwen2, without and with a bias of keys."""
    folder = tmp_path_factory.mktemp("models")
    for name, flags in (("plain", ()), ("outliers", ("--outliers", 4)), ("qwen", ("--type", "qwen2")), ("biased", ("--type", "qwen2", "--key-bias", 150))):
        run("random-model", *flags, folder / name)
    return folder


def measured(model, *codecs):
    return quality(model, "--codec", ",".join(codecs), "--text", TEXT, "--windows", 3)


def test_demo_model_pays_little():
    got = quality(DEMO, *HELD_OUT)
    codecs = by_codec(got)
    assert list(codecs) == ["none", "lz16", "i8", "i4", "i4h", "i4hs", "i4hc", "k8v4h"]
    assert got["windows"] == 8 and got["prompt_tokens"] == 512 and got["positions"] == 8 * 64
    assert got["calibration"]["codec"] == "i4h"
    for name, item in codecs.items():
        assert item["kl_mean"] <= item["kl_p99"] <= item["kl_max"] < math.inf
        assert item["perplexity"] == pytest.approx(got["perplexity"] * (1 + item["perplexity_percent"] / 100))
        assert abs(item["perplexity_percent"]) <= 2, name
        assert (item["kl_max"] > 0) == (name not in ("none", "lz16"))
    for name in ("none", "lz16"):
        assert codecs[name]["top1_agreement"] == 1 and codecs[name]["perplexity_percent"] == 0
    assert codecs["i8"]["kl_mean"] < codecs["k8v4h"]["kl_mean"] < codecs["i4h"]["kl_mean"] < 0.02
    assert 15.9 < codecs["none"]["bits"] <= 16 and codecs["i4h"]["bits"] <= 4.55 and codecs["i4hc"]["bits"] <= 4.6


def test_outliers_halve_what_the_transform_costs(models):
    """They leave what the model computes as it is, so plain 4 bits lose by the codec alone."""
    plain, outliers = measured(models / "plain", "i4", "i4h"), measured(models / "outliers", "i4", "i4h")
    assert plain["perplexity"] == pytest.approx(outliers["perplexity"], rel=1e-3)
    i4, i4h = (by_codec(outliers)[name]["kl_mean"] for name in ("i4", "i4h"))
    assert i4h <= i4 / 2 and i4 > 2 * by_codec(plain)["i4"]["kl_mean"]
    assert outliers["calibration"]["codec"] == "i4h"


def test_biased_keys_need_centring(models):
    """As Qwen2's: the model computes nearly the same, but four bits are spent on the bias."""
    tame, biased = measured(models / "qwen", "i4hc"), measured(models / "biased", "i4", "i4h", "i4hc")
    assert tame["perplexity"] == pytest.approx(biased["perplexity"], rel=0.02)
    codecs = by_codec(biased)
    assert codecs["i4"]["kl_mean"] >= 0.5
    assert codecs["i4hc"]["kl_mean"] <= 2 * by_codec(tame)["i4hc"]["kl_mean"]
    assert codecs["i4hc"]["kl_mean"] < codecs["i4h"]["kl_mean"] / 10
    assert (tame["calibration"]["codec"], biased["calibration"]["codec"]) == ("i4h", "i4hc")


def hello_of_prefill(folder, *flags, env=None):
    folder.mkdir()
    with Cluster("--record", folder, *flags, env=env):
        pass
    lines = run("replay", "--print", folder / "router.rec").stdout.splitlines()
    return next(line for line in lines if 'hello={role=3 id="prefill0"' in line)


def announced(folder, *flags, env=None):
    """What the prefill worker says of its model in the Hello that the router hears."""
    hello = hello_of_prefill(folder, *flags, env=env)
    return re.search(r'kv_codec="(.*?)" kv_codec_why="(.*?)"', hello).groups()


def test_prefill_workers_announce_it(models, tmp_path):
    biased = quality(models / "biased", "--codec", "none", "--text", TEXT, "--windows", 1, "--tokens", 1)["calibration"]
    assert biased["codec"] == "i4hc"
    codec, why = announced(tmp_path / "biased", "--model", models / "biased")
    assert codec == biased["codec"] and len(why) > 50 and biased["why"].startswith(why)  # replay cuts long texts
    assert announced(tmp_path / "told", env={"TS_KV_CODEC": "k8v4h"}) == ("k8v4h", "kv_codec of the worker")
    assert announced(tmp_path / "modelled", "--engine", "modelled") == ("i4h", "")


def test_workers_measure_their_device_when_told(tmp_path):
    cache = tmp_path / "cache"
    told = hello_of_prefill(tmp_path / "told", env={"TS_PROFILE": "on", "TS_PROFILE_CACHE": str(cache)})
    assert float(re.search(r"product_flops=([\d.e+]+)", told)[1]) > 1e6 and float(re.search(r"tokens_half=([\d.e+-]+)", told)[1]) > 0
    assert list(cache.glob("measured-*"))
    assert "product_flops" not in hello_of_prefill(tmp_path / "untold")


def test_short_prompts_go_as_i8():
    flags = ("--prompt-tokens", 24, "--tokens", 8, "--windows", 2, *HELD_OUT)
    codecs = by_codec(quality(DEMO, "--codec", "i4h,i8", *flags))
    assert {**codecs["i4h"], "codec": "i8"} == codecs["i8"]


def test_layers_of_their_own():
    flags = ("--tokens", 8, "--windows", 1, *HELD_OUT)
    every, one, none = (f"i4h{''.join(f',{i}=16/16' for i in layers)}" for layers in (range(5), (0,), ()))
    got = by_codec(quality(DEMO, "--codec", f"{every},{one},{none}", *flags))
    assert list(got) == [every, one, none]
    assert got[every]["kl_max"] == 0 and got[every]["bits"] == 16
    assert got[one]["bits"] == pytest.approx((16 + 4 * got[none]["bits"]) / 5)


def test_all_are_those_that_know_the_heads(tmp_path):
    run("random-model", "--head-dim", 8, "--layers", 1, tmp_path / "small")
    got = quality(tmp_path / "small", "--text", TEXT, "--windows", 1, "--tokens", 2)
    assert list(by_codec(got)) == ["none"] and got["calibration"]["codec"] == "none"


def test_threads_do_not_change_it():
    flags = ("--codec", "i4,i4hc", "--windows", 2, "--tokens", 16, *HELD_OUT)
    assert quality(DEMO, "--threads", 1, *flags) == quality(DEMO, "--threads", 2, *flags)


def test_a_table_for_people():
    lines = run("quality", "--model", DEMO, "--codec", "i4", "--windows", 1, "--tokens", 4, *HELD_OUT).stdout.splitlines()
    assert len(lines) == 4 and lines[0].startswith("calibration: i4h; key offset ") and lines[1].startswith("1 windows, prompts of 512 tokens")
    assert lines[2].split()[:2] == ["codec", "bits"] and lines[3].split()[0] == "i4"


def test_refusals(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("To be, or not to be")
    for flags, words in (
        ((), "no model"),
        (("--model", DEMO), "no text"),
        (("--model", DEMO, "--text", tmp_path / "none"), "cannot read"),
        (("--model", DEMO, "--text", short), "one window takes 577"),
        (("--model", DEMO, "--text", TEXT, "--codec", "i5"), "i5"),
        (("--model", DEMO, "--text", TEXT, "--prompt-tokens", 2048), "context of 2048"),
    ):
        done = run("quality", *flags, check=False)
        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1
    done = run("random-model", "--key-bias", 150, tmp_path / "llama", check=False)
    assert done.returncode == 1 and "qwen2" in done.stderr and not (tmp_path / "llama").exists()
    assert run("random-model", check=False).returncode == 2
