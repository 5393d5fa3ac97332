"""Runs plans, simulations and fault seeds with each build and demands equal bytes: scripts/check bits.

    same_bits.py BUILD BUILD...

The first build runs a second time with the C library kept from the features of the CPU, since it picks its functions by them.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile

MASK = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-AVX512F,-AVX512F_Usable,-ERMS,-SSE4_2"
ASK = ("--cluster", "paper-cloud", "--model", "llama-30b", "--slo", "scale-5", "--rate", "5", "--seed", "7")
TRACE = "tests/data/traces/AzureLLMInferenceTrace_conv.csv"
RUN = ("simulate", *ASK, "--workload", TRACE, "--poisson", "--requests", "200", "--noise", "0.1", "--json", "--csv", "{out}")
CASES = (
    ("bin/tsctl", "plan", *ASK, "--workload", "azure-conv", "--no-bound", "--json"),
    ("bin/tsctl", *RUN),
    ("bin/tsctl", *RUN, "--invariants"),
    ("bin/tsctl", *RUN, "--planner"),
    *(("bin/ts-sim-seed", "--seed", str(seed)) for seed in range(1, 13)),
)


def digest(build, case, masked):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "records.csv")
        command = [f"{build}/{case[0]}", *(word.format(out=out) if word == "{out}" else word for word in case[1:])]
        environment = os.environ | ({"GLIBC_TUNABLES": MASK} if masked else {})
        run = subprocess.run(command, capture_output=True, check=False, env=environment)
        if run.returncode:
            sys.exit(f"{' '.join(command)}: exit code {run.returncode}: {run.stderr.decode()[-500:]}")
        return hashlib.sha256(run.stdout + (out.read_bytes() if out.exists() else b"")).hexdigest()


def main():
    ways = [(build, False) for build in sys.argv[1:]] + [(sys.argv[1], True)]
    jobs = [(case, build, masked) for case in CASES for build, masked in ways]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda job: digest(job[1], job[0], job[2]), jobs))
    failed = False
    for case in CASES:
        mine = {(build, masked): d for (c, build, masked), d in zip(jobs, found) if c == case}
        first = mine[ways[0]]
        other = [f"{build}{' masked' if masked else ''}" for (build, masked), d in mine.items() if d != first]
        failed |= bool(other)
        print(f"{'DIFFERS in ' + ', '.join(other) if other else 'same'}  {first[:16]}  {' '.join(case)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
