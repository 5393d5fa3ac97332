"""READMEs name what exists: files, links, and the keys of the limits with the defaults that the programs print."""

import glob
import os
import re
import subprocess

import pytest

ROOT = os.environ["TS_SOURCE_DIR"]
BIN = os.path.join(os.environ["TS_BUILD_DIR"], "bin")
FOLDERS = ("*.md", "common/**/README.md", "gpu/**/README.md", "proto/README.md", "services/**/README.md", "tests/README.md")
READMES = sorted({path for pattern in FOLDERS for path in glob.glob(pattern, root_dir=ROOT, recursive=True)})
SOURCES = ("common", "gpu", "proto", "scripts", "services", "tests")
NAMES = {name for folder in SOURCES for _, _, names in os.walk(os.path.join(ROOT, folder)) for name in names}
PROGRAMS = {"router": "ts-router", "planner": "ts-planner", "relay": "ts-relay", "worker": "ts-prefill"}


def text_of(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def settings(program):
    printed = subprocess.run([os.path.join(BIN, program), "--print-conf"], check=True, capture_output=True, text=True).stdout
    return dict(re.findall(r"^\s+(\w+) = \"?([^;\"]*)\"?;", printed, re.M))


def rows(text, heading):
    """Cells of the table under a heading, without its two head lines."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")][2:]


@pytest.mark.parametrize("path", READMES)
def test_files_and_links_exist(path):
    text, folder = text_of(path), os.path.dirname(os.path.join(ROOT, path))
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert os.path.exists(os.path.join(folder, target)), f"{path}: no {target}"
    for name in re.findall(r"`([\w./-]+\.(?:c|h|proto|py|cmake))`", text):
        places = (os.path.join(folder, name), os.path.join(ROOT, name))
        assert name in NAMES or any(os.path.exists(place) for place in places), f"{path}: no {name}"


@pytest.mark.parametrize("service", PROGRAMS)
def test_limits_match_the_settings(service):
    known, seen = settings(PROGRAMS[service]), 0
    for what, value, *_ in rows(text_of(f"services/{service}/README.md"), "Limits"):
        keys = re.findall(r"`(\w+)`", what)
        for key in keys:
            assert key in known, f"{service}: no setting {key}"
        values = [v.strip() for v in value.split(",")]
        if keys and len(keys) == len(values) and "model" not in value:
            assert [known[key] for key in keys] == values, f"{service}: {what} is {[known[key] for key in keys]}"
            seen += len(keys)
    assert seen >= 3


def test_bounds_have_keys():
    known = {key for program in PROGRAMS.values() for key in settings(program)}
    table = rows(text_of("common/core/README.md"), "Bounds")
    keys = [key for row in table for key in re.findall(r"`(\w+)`", row[1])]
    assert len(keys) > 10
    for key in keys:
        assert key in known or key == "max", f"no setting {key}"
