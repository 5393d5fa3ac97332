"""What the experiments share: running tsctl, confidence intervals, tables, pictures, and the section each leaves.

An experiment is a program `scripts/experiments/NAME` that writes tests/experiments/NAME.md (its part of RESULTS.md) and pictures NAME*.svg
beside it. `scripts/experiments/all` runs them and joins the parts. All numbers come from programs of this repository; with the same
commit the same bytes, but for the experiments that say that they measure time.
"""

import concurrent.futures
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TSCTL = ROOT / os.environ.get("TS_BUILD", "build/release") / "bin/tsctl"
OUT = ROOT / "tests/experiments"

if importlib.util.find_spec("matplotlib") is None:  # said before the work, not at the first picture
    sys.exit("matplotlib draws the pictures and is missing: scripts/setup --experiments installs it")


def command(arguments):
    if not TSCTL.exists():
        sys.exit(f"{TSCTL} is missing: scripts/run or scripts/test build it")
    return [TSCTL, *map(str, arguments)]


def run(*arguments, check=True):
    """One call of tsctl, from the root; its standard output."""
    done = subprocess.run(command(arguments), cwd=ROOT, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"tsctl {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def cpu_seconds(*arguments):
    """Processor time of one call of tsctl whose output does not matter."""
    child = subprocess.Popen(command(arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def run_json(*arguments):
    return json.loads(run(*arguments, "--json"))


def run_all(calls, work=run_json):
    """Many calls, as many at once as there are processors; answers in the order of the calls."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda call: work(*call), calls))


def wilson(hits, count, z=1.96):
    """Bounds of a share that was seen as hits of count, 95 % (Wilson, JASA 22, 1927)."""
    if count == 0:
        return 0.0, 1.0
    share, spread = hits / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def percentile(values, share):
    """Nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))] if ordered else math.nan


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def figure(**options):
    """A figure and its axes, drawn without a screen and with the same bytes each time."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "thunderserve", "svg.fonttype": "none", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3,
                                "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    return pyplot.subplots(**{"figsize": (8, 4.5), "constrained_layout": True} | options)


class Section:
    """The part of RESULTS.md that one experiment writes."""

    def __init__(self, name, title):
        self.name, self.parts, self.pictures = name, [f"## {title}", f"`scripts/experiments/{name}`"], 0
        OUT.mkdir(exist_ok=True)

    def say(self, text):
        self.parts.append(text.strip())

    def table(self, head, rows):
        self.parts.append(table(head, rows))

    def picture(self, shown, words):
        self.pictures += 1
        file = f"{self.name}{'' if self.pictures == 1 else -self.pictures}.svg"
        shown.savefig(OUT / file, metadata={"Date": None, "Creator": None})
        self.parts.append(f"![{words}]({file})")

    def write(self):
        text = "\n\n".join(self.parts) + "\n"
        (OUT / f"{self.name}.md").write_text(text)
        print(text)
