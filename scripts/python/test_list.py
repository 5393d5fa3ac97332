"""The list of tests, tests/TESTS: one name a line, those of the build and the fuzz targets.

test_list.py BUILD [--update]: compares the build's tests with the list (exit code 1 when they differ), or rewrites the list.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIST = ROOT / "tests" / "TESTS"


def current(build):
    shown = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], check=True, capture_output=True)
    names = {test["name"] for test in json.loads(shown.stdout)["tests"]}
    for piece in sorted((ROOT / "tests" / "fuzz").glob("*.cmake")):
        names.update(re.findall(r"^\s*ts_fuzz\((\w+)", piece.read_text(), re.M))
    return names


def main():
    names = current(sys.argv[1])
    if sys.argv[2:] == ["--update"]:
        LIST.write_text("".join(f"{name}\n" for name in sorted(names)))
        return 0
    listed = set(LIST.read_text().split()) if LIST.exists() else set()
    for name in sorted(listed - names):
        print(f"test list: {name} is in tests/TESTS and no longer in the build")
    for name in sorted(names - listed):
        print(f"test list: {name} is not in tests/TESTS: run scripts/test --update-list and commit the list")
    return int(names != listed)


if __name__ == "__main__":
    sys.exit(main())
