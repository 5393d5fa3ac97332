"""The parts of scripts/gpu-check, in their order."""

import collections
import os
import re
import sys

from gpu_run import ROOT

BUILD = ROOT / "build" / "gpu"

# Tests that run on the device, and programs that measure it. Names that another change adds are found by these patterns.
DEVICE_TESTS = r"test_cuda_\w+"
PRODUCT = ("tsctl", "ts-router", "ts-planner", "ts-relay", "ts-prefill", "ts-decode")
BENCHES = r"ts-(?:cuda|gpu)-[\w-]+"

Part = collections.namedtuple("Part", "name seconds kernels run words")


class Context:
    """What all parts know: where libraries lie, and what the build has."""

    def __init__(self, deps, kernels_only, quick, capability):
        self.deps, self.kernels_only, self.quick = deps, kernels_only, quick
        self.arch = (capability or "9.0").replace(".", "")
        self.built = set()

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
        if self.kernels_only:
            return flags + ["-DTS_KERNELS_ONLY=ON"]
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
    wanted = sorted(name for name in there if name in PRODUCT or re.fullmatch(DEVICE_TESTS, name) or re.fullmatch(BENCHES, name))
    done = run.command("ninja", "-C", BUILD, "-j", os.cpu_count(), "-k", "0", *wanted, env=environment)
    context.built = {name for name in wanted if (BUILD / "bin" / name).exists() or (BUILD / "tests-bin" / name).exists()}
    run.say(f"  {len(context.built)} of {len(wanted)} programs for sm_{context.arch}, {done.seconds:.0f} s" +
            (", with the libraries of --prepare" if environment else ""))
    if not done.ok:
        errors = [line for line in done.out.splitlines() if re.search(r"error|FAILED|undefined", line)]
        run.say("\n".join(f"  {line[:300]}" for line in errors[:12]))
        run.fail(f"build: {done.how()}; without {' '.join(sorted(set(wanted) - context.built)) or 'nothing'}")


def tests(run, context):
    names = sorted(name for name in context.built if re.fullmatch(DEVICE_TESTS, name))
    if not names:
        run.fail("tests: none was built")
        return
    done = run.command("ctest", "--test-dir", BUILD, "-R", f"^({'|'.join(names)})$", "--output-on-failure", "--timeout", "60")
    results = re.findall(r"Test +#\d+: (\w+) \.+ *(?:\*\*\*)?([\w ]+?) +([\d.]+) sec", done.out)
    run.print_table([("test", "result", "seconds"), *results])
    bad = [name for name, result, _ in results if result != "Passed"] + sorted(set(names) - {name for name, _, _ in results})
    for name, result, seconds in results:
        run.figure("tests", name, seconds, "s", result)
    if bad:
        run.fail(f"tests: not passed: {' '.join(bad)}")
        failures = [line for line in done.out.splitlines() if re.search(r"ERROR|FAILED  |SKIP:|rror:", line)]
        run.say("\n".join(f"  {line[:200]}" for line in failures[:15]))


PARTS = (
    Part("probe", 30, True, probe, "CUDA IPC and MPS between processes of this machine"),
    Part("build", 110, True, build, "the product, the tests of the device and what measures it, for this device alone"),
    Part("tests", 70, True, tests, "the tests that skip without a GPU: here none may"),
)
