"""`tsctl codec` on files: what goes through comes back, as exactly as the codec promises."""

import random
import struct

import pytest

from harness import run


def kv_file(path, tokens, head_dim, dtype):
    """Keys, then values, [token][element]."""
    rng = random.Random(tokens)
    pack = (lambda x: struct.pack("<e", x)) if dtype == "f16" else (lambda x: struct.pack("<f", x)[2:])
    path.write_bytes(b"".join(pack(rng.gauss(0, 1)) for _ in range(2 * tokens * head_dim)))


def elements(data, dtype):
    if dtype == "f16":
        return struct.unpack(f"<{len(data) // 2}e", data)
    return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("tokens", [16, 48, 53])
def test_codec_on_files(tmp_path, dtype, tokens):
    plain = tmp_path / "plain"
    kv_file(plain, tokens, 64, dtype)
    more = [] if tokens % 16 == 0 else ["--tokens", tokens]
    sizes = {"none": 1, "lz16": 0.95, "i8": 0.6, "i4": 0.4, "i4h": 0.4, "i4hs": 0.4, "i4hc": 0.45, "k8v4h": 0.5}
    for codec, share in sizes.items():
        shape = ["--codec", codec, "--dtype", dtype, "--head-dim", 64]
        run("codec", "encode", *shape, plain, "--output", tmp_path / "sent")
        run("codec", "decode", *shape, *more, tmp_path / "sent", "--output", tmp_path / "back")
        sent, back, want = ((tmp_path / name).read_bytes() for name in ("sent", "back", "plain"))
        assert len(back) == len(want)
        assert len(sent) <= share * len(want)
        if codec in ("none", "lz16"):
            assert back == want
        else:
            assert back != want
            assert max(abs(a - b) for a, b in zip(elements(back, dtype), elements(want, dtype))) < 0.5


def test_decoding_finds_the_number_of_blocks_behind_escaped_tiles(tmp_path):
    plain = tmp_path / "plain"
    kv_file(plain, 80, 32, "f16")
    data = bytearray(plain.read_bytes())
    for token in (3, 70):  # infinite: these tiles travel as they are, and the payload is longer than others of 80 tokens
        data[token * 64:token * 64 + 2] = struct.pack("<e", float("inf"))
    plain.write_bytes(data)
    shape = ["--codec", "i4", "--dtype", "f16", "--head-dim", 32]
    run("codec", "encode", *shape, plain, "--output", tmp_path / "sent")
    run("codec", "decode", *shape, tmp_path / "sent", "--output", tmp_path / "back")
    back = (tmp_path / "back").read_bytes()
    assert len(back) == len(data) and back[:16 * 64] == data[:16 * 64] and back[64 * 64:80 * 64] == data[64 * 64:80 * 64]
    cut = (tmp_path / "sent").read_bytes()[:-1]
    (tmp_path / "cut").write_bytes(cut)
    done = run("codec", "decode", *shape, tmp_path / "cut", check=False)
    assert done.returncode == 1 and f"{len(cut)} bytes" in done.stderr and "--tokens" in done.stderr
