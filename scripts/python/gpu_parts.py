"""The parts of scripts/gpu-check, in their order."""

import collections
import concurrent.futures
import json
import os
import re
import shutil
import sys

from gpu_run import ROOT

BUILD = ROOT / "build" / "gpu"

# Tests that run on the device, and programs that measure it. Names that another change adds are found by these patterns.
DEVICE_TESTS = r"test_cuda_\w+"
PRODUCT = ("tsctl", "ts-router", "ts-planner", "ts-relay", "ts-prefill", "ts-decode")
BENCHES = r"ts-(?:cuda|gpu)-[\w-]+"

# A program that measures -> the flags of its runs, those of --quick, and each run's share of the time; others run once, without flags.
ENGINE = "ts-cuda-engine-bench"
BENCH_RUNS = {
    ENGINE: (([], ["--models", "8b", "--batches", "1,32", "--prompts", "2048"], 4),
             (["--weights", "int8", "--models", "8b", "--batches", "1,8,32,64", "--prompts", "2048"], None, 1),
             (["--batch-invariant", "--models", "8b", "--batches", "1,32", "--prompts", "2048"], None, 1)),
    "ts-cuda-codec-bench": (([], [], 2),),
}
# compute-sanitizer: programs at once, how many launches of each it looks at, and its lines that tell of a fault: racecheck's are warnings too, its
# summary also counts nothing ("0 hazards"), and an error of its own ends a test.
AT_ONCE, LAUNCHES = 16, 300
SANITIZER_FAULT = re.compile(r"^=+ .*(\bInvalid |\bMisaligned |\bIllegal |Race reported|Error\b|\b[1-9]\d* (?:error|hazard)s?\b).*", re.M)
FAULT_DRIVER = "fault_driver"
SHOWN = 16  # lines of one program on the terminal; the table has all

Part = collections.namedtuple("Part", "name seconds kernels run words")


class Context:
    """What all parts know: where libraries lie, and what the build has."""

    def __init__(self, deps, kernels_only, quick, capability):
        self.deps, self.kernels_only, self.quick = deps, kernels_only, quick
        self.arch = (capability or "9.0").replace(".", "")
        self.built = {path.name for folder in ("bin", "tests-bin") for path in (BUILD / folder).glob("*")}
        self.look({FAULT_DRIVER})

    def look(self, names):
        """Adds those of them that are built."""
        files = {name: (BUILD / "bin" / name, BUILD / "tests-bin" / name) for name in names}
        files[FAULT_DRIVER] = (BUILD / "fault-driver" / "libts-fault-driver.so",)
        self.built |= {name for name in names if any(path.exists() for path in files[name])}

    def program(self, name):
        return BUILD / "bin" / name

    def tool_environment(self):
        """Of the build: tools and libraries of --prepare before those of the machine."""
        if self.kernels_only or not self.deps.is_dir():
            return {}
        return {
            "PATH": f"{self.deps}/bin:{os.environ['PATH']}",
            "PKG_CONFIG": f"{self.deps}/bin/pkg-config",
            "PKG_CONFIG_LIBDIR": f"{self.deps}/lib/pkgconfig",
        }

    def configure_flags(self):
        flags = ["-DCMAKE_BUILD_TYPE=Release", "-DTS_WERROR=OFF", "-DTS_CUDA=on", f"-DTS_CUDA_ARCHS={self.arch}"]
        flags.append(f"-DTS_KERNELS_ONLY={'ON' if self.kernels_only else 'OFF'}")
        if self.kernels_only:
            return flags
        if self.deps.is_dir():
            # RPATH and not RUNPATH: libraries that are loaded by libraries are found there too.
            link = f"-L{self.deps}/lib -Wl,-rpath,{self.deps}/lib -Wl,--disable-new-dtags"
            flags += [f"-DCMAKE_PREFIX_PATH={self.deps}", f"-DCMAKE_C_FLAGS=-isystem {self.deps}/include",
                      f"-DCMAKE_CXX_FLAGS=-isystem {self.deps}/include", f"-DCMAKE_EXE_LINKER_FLAGS={link}",
                      f"-DCMAKE_SHARED_LINKER_FLAGS={link}", f"-DCMAKE_MODULE_LINKER_FLAGS={link}"]
        return flags


def probe(run, context):
    folder = run.out / "mps"
    done = run.command(sys.executable, "-B", ROOT / "scripts/python/gpu_probe.py", "--mps", folder)
    for line in done.out.splitlines():
        run.say(f"  {line}")
    remove(folder)
    if not done.ok:
        run.fail(f"probe: {done.how()}")


def remove(folder):
    for path in sorted(folder.glob("**/*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if folder.is_dir():
        folder.rmdir()


def build(run, context):
    environment = context.tool_environment()
    done = run.command("cmake", "-S", ".", "-B", BUILD, "-G", "Ninja", *context.configure_flags(), env=environment)
    if not done.ok:
        run.say("\n".join(done.out.splitlines()[-12:]))
        run.fail(f"configuration: {done.how()}")
        return
    listed = run.command("ninja", "-C", BUILD, "-t", "targets", "all").out
    there = set(re.findall(r"^([\w-]+): phony$", listed, re.M))
    wanted = sorted(name for name in there if name in (*PRODUCT, FAULT_DRIVER) or re.fullmatch(DEVICE_TESTS, name) or re.fullmatch(BENCHES, name))
    done = run.command("ninja", "-C", BUILD, "-j", os.cpu_count(), "-k", "0", *wanted, env=environment)
    context.built = set()
    context.look(wanted)
    run.say(f"  {len(context.built)} of {len(wanted)} programs for sm_{context.arch}, {done.seconds:.0f} s" +
            (", with the libraries of --prepare" if environment else ""))
    if not done.ok:
        errors = [line for line in done.out.splitlines() if re.search(r"error|FAILED|undefined", line)]
        run.say("\n".join(f"  {line[:300]}" for line in errors[:12]))
        run.fail(f"build: {done.how()}; without {' '.join(sorted(set(wanted) - context.built)) or 'nothing'}")


def device_tests(run, context):
    """Those that were built, without the ones that have a driver of their own, whose device is the CPU."""
    listed = run.command("ctest", "--test-dir", BUILD, "--show-only=json-v1").stdout
    apart = {test["name"] for test in json.loads(listed[listed.index("{"):])["tests"] if "emulated-driver" in json.dumps(test.get("properties", []))}
    return sorted(name for name in context.built if re.fullmatch(DEVICE_TESTS, name) and name not in apart)


def tests(run, context):
    names = device_tests(run, context)
    if not names:
        run.fail("tests: none was built")
        return
    done = run.command("ctest", "--test-dir", BUILD, "-R", f"^({'|'.join(names)})$", "--output-on-failure", "-j", "8", "--timeout", "40")
    results = re.findall(r"Test +#\d+: (\w+) \.+ *(?:\*\*\*)?([\w ]+?) +([\d.]+) sec", done.out)
    run.print_table([("test", "result", "seconds"), *results])
    bad = [name for name, result, _ in results if result != "Passed"] + sorted(set(names) - {name for name, _, _ in results})
    for name, result, seconds in results:
        run.figure("tests", name, seconds, "s", result)
    if bad:
        run.fail(f"tests: not passed: {' '.join(bad)}")
        failures = [line for line in done.out.splitlines() if re.search(r"ERROR|FAILED  |SKIP:|rror:", line)]
        run.say("\n".join(f"  {line[:200]}" for line in failures[:15]))


def explain(run, done, mark):
    """What a program said beside its CSV."""
    for line in done.out.splitlines():
        if line.startswith(mark):
            run.say(f"  {line[:240]}")


def bench(run, context):
    """Each run of a program that measures the device has its share of the time that is left."""
    turns = []
    for name in sorted(name for name in context.built if re.fullmatch(BENCHES, name)):
        for flags, quick, share in BENCH_RUNS.get(name, (([], [], 1),)):
            if not context.quick or quick is not None:
                turns.append((name, quick if context.quick else flags, share))
    if not turns:
        run.fail("bench: none was built")
    for i, (name, flags, share) in enumerate(turns):
        seconds = max(2, run.left() * share / sum(turn[2] for turn in turns[i:]))
        more = ["--seconds", f"{seconds * 0.7:.0f}"] if name == ENGINE else []
        run.say(f"  {' '.join([name, *flags])}")
        done = run.command(context.program(name), *flags, *more, seconds=seconds)
        explain(run, done, f"{name}:")
        if not run.csv_table(name, done.stdout, SHOWN) or not done.ok:
            last = [line[:240] for line in done.out.splitlines() if not line.startswith(f"{name}:") and "," not in line]
            run.say("\n".join(f"  {line}" for line in last[-3:]))
            run.fail(f"{name}: {done.how()}")


def has_torch(run):
    """Asked of the installed packages: loading it takes seconds."""
    there = run.command(sys.executable, "-c", "import importlib.metadata as m; print(m.version('torch'))")
    run.say(f"  PyTorch: {there.stdout.strip() if there.ok else 'none'}")
    return there.ok


def torch(run, context):
    if not has_torch(run):
        return
    flags = ["--seconds", f"{run.left() - 2:.0f}"]
    if context.quick:
        flags += ["--models", "8b", "--batches", "1,32", "--prompts", "2048"]
    done = run.command(sys.executable, "-B", ROOT / "scripts/python/torch_bench.py", *flags)
    explain(run, done, "torch bench:")
    if not run.csv_table("torch", done.stdout, SHOWN) or not done.ok:
        run.fail(f"torch: {done.how()}")


def compare(run, context):
    if "tsctl" not in context.built:
        return run.fail("compare: tsctl was not built")
    if not has_torch(run):
        return
    done = run.command(sys.executable, "-B", ROOT / "scripts/python/torch_compare.py", "--tsctl", context.program("tsctl"))
    run.csv_table("compare", done.stdout)
    explain(run, done, "torch compare:")
    if not done.ok:
        run.fail(f"compare: {done.how()}")


def pipeline(run, context):
    if not {*PRODUCT} <= context.built:
        return run.fail("pipeline: not all services were built")
    flags = ["--build", BUILD, "--mps", "--seconds", f"{run.left() - 8:.0f}"] + (["--small"] if context.quick else [])
    done = run.command(sys.executable, "-B", ROOT / "scripts/python/gpu_pipeline.py", *flags)
    run.csv_table("pipeline", done.stdout)
    explain(run, done, "pipeline:")
    if not done.ok:
        run.fail(f"pipeline: {done.how()}")


def faults(run, context):
    if not {*PRODUCT, FAULT_DRIVER} <= context.built:
        return run.fail("faults: not all services, or not the driver that fails, were built")
    done = run.command(sys.executable, "-B", ROOT / "scripts/python/gpu_faults.py", "--build", BUILD, "--each", f"{max(5, run.left() / 3):.0f}")
    run.csv_table("faults", done.stdout)
    explain(run, done, "faults:")
    if not done.ok:
        run.fail(f"faults: {done.how()}")


def sanitizer_result(done):
    """What compute-sanitizer's output says of a test, in words, and whether that is a failure."""
    fault = SANITIZER_FAULT.search(done.out)
    if fault or done.status not in (0, None):
        return f"FAILED ({fault[0].strip('= ')[:100] if fault else done.status})", True
    if done.ok:
        return "no fault", False
    through, count = len(re.findall(r"^\[ +OK \]", done.out, re.M)), re.search(r"^\[=+\] Running (\d+) test", done.out, re.M)
    return f"no fault in {through} of {count[1] if count else '?'} cases, then cut", False


def sanitize(run, context):
    """The first launches of each test under memcheck and racecheck; a test that is cut has found nothing until then."""
    program = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if not program:
        return run.say("  compute-sanitizer is not installed")
    turns = [(tool, name) for tool in ("memcheck", "racecheck") for name in device_tests(run, context)]
    seconds = run.left() / max(1, -(-len(turns) // AT_ONCE)) - 1

    def one(turn):
        tool, name = turn
        # Calls that a test has refused on purpose are no faults. racecheck ends with an error of its own in kernels of cuBLASLt.
        flags = ["--tool", tool, "--launch-count", LAUNCHES, "--error-exitcode", "99"] + (["--report-api-errors", "no"] if tool == "memcheck" else [])
        env = {"TS_CUBLASLT": "off"} if tool == "racecheck" else None
        return run.command(program, *flags, BUILD / "tests-bin" / name, seconds=seconds, env=env)
    rows = [("tool", "test", "result", "seconds")]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for (tool, name), done in zip(turns, pool.map(one, turns)):
            result, failed = sanitizer_result(done)
            rows.append((tool, name, result, f"{done.seconds:.1f}"))
            run.figure("sanitize", f"{tool} {name}", f"{done.seconds:.1f}", "s", result)
            if failed:
                run.fail(f"sanitize: {tool} {name}")
    run.print_table(rows)


PARTS = (
    Part("probe", 20, True, probe, "CUDA IPC and MPS between processes of this machine"),
    Part("build", 80, True, build, "the product, the tests of the device and what measures it, for this device alone"),
    Part("tests", 50, True, tests, "the tests that skip without a GPU: here none may"),
    Part("bench", 60, True, bench, "kernels and engine, by the programs ts-cuda-*"),
    Part("pipeline", 50, False, pipeline, "router, planner, prefill, relay and decode on one device: relay or worker encodes, and under MPS"),
    Part("faults", 60, False, faults, "devices that are lost under prefill, decode and relay; kill -9 of a worker"),
    Part("sanitize", 45, True, sanitize, "the tests of the device under compute-sanitizer, as far as the time goes"),
    Part("compare", 20, False, compare, "log-probabilities of our engine against PyTorch's on the same weights"),
    Part("torch", 80, True, torch, "PyTorch on the same shapes, eager and compiled; the ceilings of copy and matrix product"),
)
