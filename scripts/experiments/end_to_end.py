"""Planning and simulating one setting with many algorithms: what the comparisons of scripts/experiments share."""

import csv
import json
import math
import os
import pathlib
import re
import tempfile

import common

ALGORITHMS = ("thunder", "paper", "hexgen", "hexgen2", "distserve", "splitwise", "helix", "colocated", "uniform")
STYLES = {"thunder": "k-", "paper": "C3-", "hexgen": "C0--", "hexgen2": "C0:", "distserve": "C1--", "splitwise": "C2--", "helix": "C4--",
          "colocated": "C5:", "uniform": "C7:"}
# Plans are made for the classes of a trace with Poisson arrivals, and simulated with lengths of random rows of the trace at Poisson times: the paper resamples
# arrivals too, and the first 2,000 rows of the conversation trace are a quarter longer than the whole.
CLASSES = {f"azure-{name}": f"tests/data/workloads/azure-{name}-poisson.conf" for name in ("code", "conv")}
TRACES = {f"azure-{name}": f"tests/data/traces/AzureLLMInferenceTrace_{name}.csv" for name in ("code", "conv")}
REQUESTS = int(os.environ.get("TS_REQUESTS", 2000))  # of each point; an interval of at most +-2.2 points


class Plans:
    """Plans as files, kept until the process ends: the same plan serves many runs."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.cpu_s = {}  # of the search, by name

    def path(self, name):
        return pathlib.Path(self.folder.name) / (re.sub(r"[^\w.-]", "_", name) + ".json")

    def make(self, name, *flags):
        """The path of the plan, or None where the algorithm cannot treat the problem."""
        path = self.path(name)
        self.cpu_s[name] = common.cpu_seconds("plan", "--no-bound", *(CLASSES.get(flag, flag) for flag in flags), "--out", path)
        return path if path.exists() else None


def simulate(plan, cluster, model, workload, slo, rate, *flags, requests=REQUESTS, seed=1):
    """The report of one run, or None without a plan."""
    if plan is None:
        return None
    return json.loads(common.run("simulate", "--cluster", cluster, "--model", model, "--workload", TRACES.get(workload, workload), "--slo", slo, "--rate",
                                 rate, "--poisson", "--shuffle", "--repeat", "--requests", requests, "--seed", seed, "--plan", plan, "--json", *flags))


def capacity(cluster, model, workload, slo, *flags):
    """Requests/s within all deadlines that thunder's plan for goodput promises with 90 % in time."""
    plan = json.loads(common.run("plan", "--cluster", cluster, "--model", model, "--workload", CLASSES.get(workload, workload), "--slo", slo,
                                 "--objective", "goodput", "--no-bound", "--json", *flags, check=False) or "{}")
    return plan.get("objective", 0)


def rounded(rate):
    return float(f"{rate:.3g}")


def plan_name(cluster, model, workload, rate, algorithm):
    return f"{cluster}-{model}-{workload}-{rate:.4g}-{algorithm}"


def judge(plans, cluster, model, workload, slo, rate, algorithm, *flags, requests=REQUESTS):
    """The report of one algorithm, which plans for this rate. Trials are part of thunder's search; those of others would only be a promise that nobody reads."""
    trial = () if algorithm == "thunder" else ("--trial", 0)
    plan = plans.make(plan_name(cluster, model, workload, rate, algorithm), "--cluster", cluster, "--model", model, "--workload", workload, "--slo", slo,
                      "--rate", rate, "--algorithm", algorithm, *trial, *flags)
    return simulate(plan, cluster, model, workload, slo, rate, requests=requests)


def compare(plans, cluster, model, workload, slo, rate, algorithms=ALGORITHMS):
    """Reports by algorithm."""
    return dict(zip(algorithms, common.run_all([(plans, cluster, model, workload, slo, rate, a) for a in algorithms], judge)))


def share_at(report, scale, of="all"):
    point = next(p for p in report["attainment"] if p["scale"] == scale)
    return point[of]


def scale_for(report, share, of="all"):
    """The tightest deadlines, as a scale, that `share` of the requests meet; linear between two scales; None beyond the last."""
    before = None
    for point in report["attainment"]:
        here = (point["scale"], point[of]["share"])
        if here[1] >= share:
            if before is None or here[1] == before[1]:
                return here[0]
            return before[0] + (here[0] - before[0]) * (share - before[1]) / (here[1] - before[1])
        before = here
    return None


def cell(point):
    return f"{100 * point['share']:.1f} ({100 * point['low']:.1f}-{100 * point['high']:.1f})"


def curve(axis, places, points, *style, **options):
    """Shares in % with their intervals as a band."""
    line, = axis.plot(places, [100 * p["share"] for p in points], *style, **options)
    axis.fill_between(places, [100 * p["low"] for p in points], [100 * p["high"] for p in points], color=line.get_color(), alpha=0.15, linewidth=0)


def draw(axis, reports, title, of="all"):
    for algorithm, report in reports.items():
        if report:
            curve(axis, [p["scale"] for p in report["attainment"]], [p[of] for p in report["attainment"]], STYLES[algorithm], label=algorithm)
    axis.set(title=title, xscale="log", xlabel="SLO scale", ylabel="% in time", ylim=(0, 101))


def records(path):
    """The lines of --csv; numbers as floats, empty ones as None."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    text = {"finish", "reason", "prefill", "relay", "decode", "codec"}
    return [{key: value if key in text else float(value) if value else None for key, value in row.items()} for row in rows]


def timeline(folder, name, seed, events, *flags):
    """The records of one run of `tsctl simulate` with these events."""
    events_file, records_file = (pathlib.Path(folder) / f"{name}-{seed}{ending}" for ending in ("-events.json", ".csv"))
    events_file.write_text(json.dumps(events))
    common.run("simulate", *flags, "--seed", seed, "--events", events_file, "--csv", records_file, "--json")
    return records(records_file)


def seeds_for(rate, span_s):
    """How many runs give every span of them enough requests."""
    return math.ceil(1.1 * REQUESTS / (rate * span_s))


def pooled(names, seeds, one):
    """The records of each case, of runs with the seeds 1, 2, ...: one(name, seed)."""
    calls = [(name, seed) for name in names for seed in range(1, seeds + 1)]
    found = {name: [] for name in names}
    for (name, _), run in zip(calls, common.run_all(calls, one)):
        found[name] += run
    return found


def in_time(record, scale):
    """Whether a request met all its deadlines at this scale."""
    if record["finish"] not in ("stop", "length"):
        return False
    return all(record[f"{key}_ms"] is None or not record[f"want_{key}_ms"] or record[f"{key}_ms"] <= scale * record[f"want_{key}_ms"]
               for key in ("ttft", "tpot", "e2e"))


def window(rows, begin, end, scale):
    hits = [in_time(row, scale) for row in rows if begin <= row["at_s"] < end]
    low, high = common.wilson(sum(hits), len(hits))
    return {"share": sum(hits) / max(1, len(hits)), "low": low, "high": high}


def draw_time(axis, rows, span, step, scale, label):
    """Shares in time of the requests sent in each step."""
    begins = range(0, span, step)
    curve(axis, [begin + step / 2 for begin in begins], [window(rows, begin, begin + step, scale) for begin in begins], label=label)
