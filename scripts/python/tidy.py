"""Runs clang-tidy over the product's C files of a build, two at a time; a file whose preprocessed text passed before is not
looked at again. tidy.py BUILD [JOBS]
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PRODUCT = ("common", "proto", "gpu", "services")


def commands(build):
    for entry in json.loads((build / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["file"])
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PRODUCT and path.suffix == ".c":
            yield path, entry


def digest(entry):
    words = shlex.split(entry["command"])
    words[words.index("-o") + 1] = "-"
    text = subprocess.run(words + ["-E"], cwd=entry["directory"], check=True, capture_output=True).stdout
    return hashlib.sha256((ROOT / ".clang-tidy").read_bytes() + text).hexdigest()


def check(build, path, entry):
    stamp = build / "tidy" / digest(entry)
    if stamp.exists():
        return ""
    run = subprocess.run(
        ["clang-tidy", "--quiet", "-p", str(build), "--warnings-as-errors=*", str(path)], capture_output=True, text=True
    )
    if run.returncode == 0:
        stamp.touch()
        return ""
    return run.stdout


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    jobs = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count()
    (build / "tidy").mkdir(exist_ok=True)
    faulty = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for report in pool.map(lambda item: check(build, *item), list(commands(build))):
            if report:
                print(report)
                faulty += 1
    return int(faulty > 0)


if __name__ == "__main__":
    sys.exit(main())
