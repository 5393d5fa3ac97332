"""scripts/gpu-check as far as a machine without a GPU allows: its parts, their time, the folder that travels, kernels without libraries."""

import csv
import os
import pathlib
import subprocess
import sys
import time
import types

import pytest

ROOT = pathlib.Path(os.environ["TS_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "scripts" / "python"))

import gpu_deps
import gpu_goals
import gpu_parts
import gpu_pipeline
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
    assert r.csv_table("codec", "device X\n# a, remark\ncodec,gbps,of_copy\ni4h,1200,0.6\ni8,1300.5,0.65\n")
    assert not r.csv_table("codec", "nothing,here\n")
    r.fail("one thing")
    text = (tmp_path / "out" / "figures.csv").read_text()
    assert text.startswith("# device: none\n# driver: none\n# commit: 1234\n")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert {"part": "codec", "what": "i8", "value": "1300.5", "unit": "gbps", "note": ""} in rows and len(rows) == 4
    table = (tmp_path / "out" / "table.txt").read_text()
    assert "commit: 1234" in table and "FAILED: one thing" in table and "1300.5" in table


def test_what_is_built(tmp_path, monkeypatch):
    """The driver that fails is a library; a part that needs it may come in a later call than the build."""
    monkeypatch.setattr(gpu_parts, "BUILD", tmp_path)
    for path in ("bin/tsctl", "tests-bin/test_cuda_rows"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    assert gpu_parts.Context(tmp_path, False, False, None).built == {"tsctl", "test_cuda_rows"}
    (tmp_path / "fault-driver").mkdir()
    (tmp_path / "fault-driver" / "libts-fault-driver.so").touch()
    assert gpu_parts.Context(tmp_path, False, False, None).built == {"tsctl", "test_cuda_rows", gpu_parts.FAULT_DRIVER}
    r = new_run(tmp_path)
    gpu_parts.faults(r, gpu_parts.Context(tmp_path, False, False, None))
    assert r.failed == ["faults: not all services, or not the driver that fails, were built"]


def test_goals(tmp_path):
    """Each goal against its floor; what is missing is not measured, and not reached."""
    r = new_run(tmp_path)
    r.csv_table("torch", "side,model,what,rows,tokens,value,unit\ntorch,,\"copy, read and written\",,,3000,GB/s\ntorch,,bf16 product 8192^3,,,800,TFLOP/s\n"
                         "torch eager,8b,decode,32,512,1000,tokens/s\ntorch compiled,8b,decode,32,512,2000,tokens/s\n")
    r.csv_table("ts-cuda-engine-bench", "side,model,what,rows,tokens,value,unit\nours int8,8b,decode,1,512,9000,GB/s\nours,8b,decode,1,512,2400,GB/s\n"
                                        "ours,8b,decode,32,512,2200,tokens/s\nours,8b,first token,1,2048,400,TFLOP/s\n")
    r.csv_table("ts-cuda-codec-bench", "what,codec,dtype,head_dim,chunk_kib,layers,ratio,ratio_to_peak\nencode,i4h,bf16,128,64,1,0.1,0.1\n"
                                       "encode,i4h,bf16,128,1024,1,0.7,0.1\ndecode,i8,bf16,128,4096,1,0.6,0.3\nencode,i4h,bf16,128,1024,32,2,0.45\n")
    r.csv_table("pipeline", "processes,what,value,unit\nfive,of 2 prompts with the tokens of one process,1,\n"
                            "five,of 2 prompts with its log-probabilities to the last bit,2,\nfive,32 at once,9,tokens/s\n")
    gpu_goals.report(r)
    lines = (tmp_path / "out" / "table.txt").read_text().splitlines()
    judged = {line.split("  ")[1]: line.split()[-3:] for line in lines[lines.index("goals") + 2:]}
    assert judged["codec i4h, chunks of 1024 KiB and more, a launch each"] == ["0.700", "0.5", "reached"]
    assert judged["all codecs, chunks of 1024 KiB and more, a launch each"] == ["0.600", "0.5", "reached"]
    assert judged["all codecs, chunks of 1024 KiB and more, one launch for all layers"] == ["0.450", "0.5", "MISSED"]
    assert judged["8b decode, 1 row: bandwidth of copies"] == ["0.800", "0.75", "reached"]
    assert judged["8b, first token of 2048: matrix product"] == ["0.500", "0.55", "MISSED"]
    assert judged["8b decode, 32 rows: torch eager"] == ["2.200", "2", "reached"]
    assert judged["8b decode, 32 rows: torch compiled"] == ["1.100", "1.2", "MISSED"]
    assert judged["1.1b decode, 32 rows: torch eager"][-2:] == ["not", "measured"]
    assert judged["five: prompts with the tokens of one process"] == ["0.500", "1", "MISSED"]
    assert judged["five: prompts with its log-probabilities to the last bit"] == ["1.000", "1", "reached"]


# What compute-sanitizer of CUDA 13.0 said on an H100, shortened.
RACE = """========= COMPUTE-SANITIZER
[==========] Running 8 test(s).
[ RUN      ] attention_test_groups
========= Warning: Race reported between Read access at cuda_prefill_f16_32_1+0x3980
=========     and Write access at cuda_prefill_f16_32_1+0x5ac0 [1488 hazards]
========= 
"""
NO_RACE = """========= COMPUTE-SANITIZER
[==========] Running 4 test(s).
[ RUN      ] test_embed
[       OK ] test_embed
[==========] 4 test(s) run.
========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)
"""
OWN_ERROR = """[==========] Running 13 test(s).
[ RUN      ] cuda_engine_families
llama f16, one head each, tied: mean divergence 4.4e-06
========= Internal Sanitizer Error: The Sanitizer failed to handle a hardware exception.
========= 
[  FAILED  ] cuda_engine_families
========= Target application returned an error
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
NO_FAULT = """========= COMPUTE-SANITIZER
[==========] Running 9 test(s).
[       OK ] test_memory
[==========] 9 test(s) run.
========= ERROR SUMMARY: 0 errors
"""
CUT = """========= COMPUTE-SANITIZER
[==========] Running 13 test(s).
[ RUN      ] cuda_engine_families
qwen3 bf16, q/k norm: mean divergence 9.6e-05
[       OK ] cuda_engine_families
[ RUN      ] cuda_engine_biases
[       OK ] cuda_engine_biases
[ RUN      ] cuda_engine_chunks
"""


@pytest.mark.parametrize("text,status,result", [
    (RACE, None, "FAILED (Warning: Race reported between Read access at cuda_prefill_f16_32_1+0x3980)"),
    (RACE, 99, "FAILED (Warning: Race reported between Read access at cuda_prefill_f16_32_1+0x3980)"),
    (NO_RACE, 0, "no fault"),
    (OWN_ERROR, 99, "FAILED (Internal Sanitizer Error: The Sanitizer failed to handle a hardware exception.)"),
    (OWN_ERROR[OWN_ERROR.index("[  FAILED"):], 99, "FAILED (RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings))"),
    (NO_FAULT, 0, "no fault"),
    (NO_FAULT.replace("0 errors", "12 errors"), 99, "FAILED (ERROR SUMMARY: 12 errors)"),
    (NO_FAULT, 1, "FAILED (1)"),
    (CUT, None, "no fault in 2 of 13 cases, then cut"),
    ("", None, "no fault in 0 of ? cases, then cut"),
])
def test_what_the_sanitizer_says(text, status, result):
    done = gpu_run.Done(status, text, "", 1.0)
    assert gpu_parts.sanitizer_result(done) == (result, result.startswith("FAILED"))


# Of two workers' logs on an H100, before they took turns.
MEASURED = """
2026-11-26T12:01:09.752Z info decode event=measured cached=0 product_tflops=289 weight_gb_per_s=898.4 context_gb_per_s=1059 upload_gb_per_s=54.8 error=0.71 ms=278
2026-11-26T12:01:09.790Z info prefill event=measured cached=0 product_tflops=352 weight_gb_per_s=1063 context_gb_per_s=2.14e+05 upload_gb_per_s=54.1 error=0.63 ms=299
"""


def test_workers_measure_once(tmp_path, capsys):
    p = gpu_pipeline.Pipeline(types.SimpleNamespace(build=tmp_path, small=True, seconds=1), tmp_path)
    p.tell_measured("first", gpu_pipeline.MEASURED.findall(MEASURED))
    p.tell_measured("second", gpu_pipeline.MEASURED.findall(MEASURED.replace("cached=0", "cached=1")))
    assert p.wrong == []
    p.tell_measured("third", gpu_pipeline.MEASURED.findall(MEASURED.replace("decode event=measured cached=0", "decode event=measured cached=1")))
    p.tell_measured("fourth", [])
    assert p.wrong == [f"{name}: of the two workers know what was measured before: {who}" for name, who in (("third", "decode"), ("fourth", "none"))]
    lines = capsys.readouterr().out.splitlines()
    assert "first,decode measures itself: error,0.71," in lines and "second,prefill knows what was measured: error,0.63," in lines


def test_the_folder_may_be_moved(tmp_path):
    (tmp_path / "x.pc").write_text("prefix=/usr\nlibdir=${prefix}/lib/x86_64-linux-gnu\nincludedir=/usr/include\n\nName: x\nRequires.private: y\n"
                                   "Libs: -L${libdir} -lx -L/usr/lib/x86_64-linux-gnu\nLibs.private: -lz\nCflags: -I/usr/include/x\n")
    gpu_deps.pkgconfig(tmp_path / "x.pc", tmp_path / "out" / "x.pc")
    lines = (tmp_path / "out" / "x.pc").read_text().splitlines()
    assert lines[:3] == ["prefix=${pcfiledir}/../..", "libdir=${prefix}/lib", "includedir=${prefix}/include"]
    assert not any("private" in line or "/usr" in line for line in lines)
    assert gpu_deps.SYSTEM.fullmatch("libc.so.6") and not gpu_deps.SYSTEM.fullmatch("libcmocka.so.0")


def test_kernels_need_no_cmocka():
    """The tests of kernels and codecs compile with the few words of tests/plain."""
    sources = sorted(path for pattern in ("kernel_*.c", "test_cuda_*.c", "test_codec*.c") for path in (ROOT / "tests" / "gpu").glob(pattern))
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT}", f"-I{ROOT / 'tests' / 'plain'}", '-DTS_TEST_DATA=""',
             '-DTS_FAULT_DRIVER=""']
    assert len(sources) > 5
    done = run("gcc", *flags, *map(str, sources))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cuda", ["auto", "off"])
def test_kernels_need_no_library(tmp_path, cuda):
    """Without pkg-config, xxHash and cmocka, with the toolkit where it is and without: configured, and nothing of what is built names them."""
    flags = ["-DTS_KERNELS_ONLY=ON", f"-DTS_CUDA={cuda}", "-DXXHASH_INCLUDE_DIR=XXHASH_INCLUDE_DIR-NOTFOUND", "-DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON",
             "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF"]
    done = run("cmake", "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja", *flags)
    assert done.returncode == 0, done.stderr
    targets = run("ninja", "-C", str(tmp_path), "-t", "targets", "all").stdout
    assert "\ntest_cuda_codec: phony" in targets and "ts_hash_plain.c.o" in targets and "tsctl" not in targets
    rules = (tmp_path / "build.ninja").read_text()
    assert "-lcmocka" not in rules and "tests/plain" in rules and "-lts_" not in rules
