"""scripts/gpu-check as far as a machine without a GPU allows: its parts, their time, the folder that travels, kernels without libraries."""

import csv
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(os.environ["TS_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "scripts" / "python"))

import gpu_deps
import gpu_parts
import gpu_run

CHECK = str(ROOT / "scripts" / "gpu-check")


def run(*args, **more):
    return subprocess.run(args, capture_output=True, text=True, check=False, timeout=100, **more)


def new_run(tmp_path, seconds=60):
    return gpu_run.Run(tmp_path / "out", {"device": "none", "driver": "none", "commit": "1234"}, seconds)


def test_words():
    listed = run(CHECK, "--list")
    assert listed.returncode == 0
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert names == [part.name for part in gpu_parts.PARTS] + ["all"]
    assert sum(part.seconds for part in gpu_parts.PARTS) <= 470
    told = run(CHECK, "--help")
    assert told.returncode == 0
    assert all(word in told.stdout for word in ("--prepare", "--kernels-only", "--quick", "--out", *names[:-1]))
    refused = run(CHECK, "no-such-part")
    assert refused.returncode == 2 and "no part no-such-part" in refused.stderr


def test_a_command_ends_with_its_time(tmp_path):
    r = new_run(tmp_path)
    began = time.monotonic()
    done = r.command("sh", "-c", "echo begun; sleep 1000 & sleep 1000", seconds=0.5)
    assert done.status is None and not done.ok and "begun" in done.out and done.how().startswith("cut")
    assert time.monotonic() - began < 30
    assert r.command("sh", "-c", "exit 3").status == 3
    assert r.command("sh", "-c", "exit 0").ok


def test_no_part_begins_after_the_end(tmp_path):
    r = new_run(tmp_path, seconds=0)
    assert r.command("touch", tmp_path / "made").status is None
    assert not (tmp_path / "made").exists()


def test_figures(tmp_path):
    r = new_run(tmp_path)
    assert r.csv_table("codec", "device X\ncommit,codec,gbps,of_copy\nabc,i4h,1200,0.6\nabc,i8,1300.5,0.65\n", drop=("commit",))
    assert not r.csv_table("codec", "nothing,here\n")
    r.fail("one thing")
    text = (tmp_path / "out" / "figures.csv").read_text()
    assert text.startswith("# device: none\n# driver: none\n# commit: 1234\n")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert {"part": "codec", "what": "i8", "value": "1300.5", "unit": "gbps", "note": ""} in rows and len(rows) == 4
    table = (tmp_path / "out" / "table.txt").read_text()
    assert "commit: 1234" in table and "FAILED: one thing" in table and "1300.5" in table


def test_the_folder_may_be_moved(tmp_path):
    (tmp_path / "x.pc").write_text("prefix=/usr\nlibdir=${prefix}/lib/x86_64-linux-gnu\nincludedir=/usr/include\n\nName: x\nRequires.private: y\n"
                                   "Libs: -L${libdir} -lx -L/usr/lib/x86_64-linux-gnu\nLibs.private: -lz\nCflags: -I/usr/include/x\n")
    gpu_deps.pkgconfig(tmp_path / "x.pc", tmp_path / "out" / "x.pc")
    lines = (tmp_path / "out" / "x.pc").read_text().splitlines()
    assert lines[:3] == ["prefix=${pcfiledir}/../..", "libdir=${prefix}/lib", "includedir=${prefix}/include"]
    assert not any("private" in line or "/usr" in line for line in lines)
    assert gpu_deps.SYSTEM.fullmatch("libc.so.6") and not gpu_deps.SYSTEM.fullmatch("libcmocka.so.0")


def test_kernels_need_no_library(tmp_path):
    """Without pkg-config, xxHash and cmocka: configured, and nothing of what is built names them."""
    flags = ["-DTS_KERNELS_ONLY=ON", "-DTS_CUDA=off", "-DXXHASH_INCLUDE_DIR=XXHASH_INCLUDE_DIR-NOTFOUND", "-DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON",
             "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF"]
    done = run("cmake", "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja", *flags)
    assert done.returncode == 0, done.stderr
    targets = run("ninja", "-C", str(tmp_path), "-t", "targets", "all").stdout
    assert "\ntest_cuda_codec: phony" in targets and "ts_hash_plain.c.o" in targets and "tsctl" not in targets
    rules = (tmp_path / "build.ninja").read_text()
    assert "-lcmocka" not in rules and "tests/plain" in rules and "-lts_" not in rules
