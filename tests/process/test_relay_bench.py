"""ts-relay-bench, small: its lines are there, and say what must hold whatever the machine does."""

import subprocess

import pytest
import shaped
from harness import BUILD

HEADER = "what,link,codec,tokens,unit,floor,reached,ratio"
SMALL = ["--layers", "4", "--rounds", "1"]


def bench(tmp_path, *flags):
    """[(what, codec, tokens)] -> (floor, reached, ratio)"""
    args = [str(BUILD / "bin" / "ts-relay-bench"), "--dir", str(tmp_path), *SMALL, *map(str, flags)]
    done = subprocess.run(args, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"
    lines = done.stdout.splitlines()
    assert lines[0] == HEADER
    rows = {}
    for line in lines[1:]:
        what, _, codec, tokens, _, floor, reached, ratio = line.split(",")
        rows[what, codec, int(tokens)] = (float(floor), float(reached), float(ratio))
        assert float(ratio) == pytest.approx(float(reached) / float(floor), rel=0.05, abs=0.01), line
    return rows


def test_lines_on_loopback(tmp_path):
    rows = bench(tmp_path, "--what", "link,parts", "--tokens", 1024)
    kinds = ["wire", "goodput", "bits", "quantise", "restore", "end_to_end"]
    assert set(rows) == {(kind, codec, 1024) for kind in kinds for codec in ("none", "i4h")} | {("zeromq", "-", 1024)}
    assert all(reached > 0 for _, reached, _ in rows.values())
    # 16 bits against 4 and two half-words for each 64; all framing is in it.
    for codec, bits in (("none", 16), ("i4h", 4.5)):
        saved = rows["goodput", codec, 1024][1] / rows["wire", codec, 1024][1]
        assert 0.99 * 16 / bits <= saved <= 16 / bits, (codec, saved)


@pytest.mark.parametrize("head_dim", [64, 128])
def test_bits_with_all_framing(tmp_path, head_dim):
    """Of the shortest prompt for which the README promises them."""
    most = {"i4": 4.55, "i4h": 4.55, "i4hs": 4.55, "i4hc": 4.6, "i8": 8.35, "k8v4h": 6.45}
    shape = ["--layers", 12, "--heads", 768 // head_dim, "--head-dim", head_dim]
    rows = bench(tmp_path, "--what", "link", "--tokens", 512, "--codecs", ",".join(most), *shape)
    for codec, bits in most.items():
        floor, reached, _ = rows["bits", codec, 512]
        assert floor <= reached <= bits, (codec, reached)


def test_what_overlap_hides(tmp_path):
    rows = bench(tmp_path, "--what", "visible", "--codecs", "i4", "--prefill-tokens-per-s", 40000)
    assert set(rows) == {(kind, "i4", tokens) for kind in ("no_overlap", "visible") for tokens in (512, 2048, 8192)}
    assert all(reached > 0 for _, reached, _ in rows.values())


def test_a_slow_link_bounds_both(tmp_path):
    with shaped.net(rate="100mbit") as net:
        rows = bench(tmp_path, "--what", "link", "--tokens", 1024, "--codecs", "i4", "--link", "100mbit", "--send-netns", net.names["a"],
                     "--receive-netns", net.names["b"], "--address", shaped.ADDRESS["b"])
    tcp, wire, _ = rows["wire", "i4", 1024]
    assert 6 < tcp < 14 and 4 < wire < 14, rows
    assert rows["goodput", "i4", 1024][1] > 2 * tcp


def test_wrong_settings_are_refused(tmp_path):
    for flags in (["--rounds", "0"], ["--codecs", "i5"], ["--address", "not-an-address"]):
        done = subprocess.run([str(BUILD / "bin" / "ts-relay-bench"), "--dir", str(tmp_path), *flags], capture_output=True, text=True, timeout=100)
        assert done.returncode != 0 and done.stderr, flags
