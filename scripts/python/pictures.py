"""Simulates two plans, draws them with scripts/plot-simulation and looks at the pictures: scripts/check pictures.

    pictures.py BUILD

A picture is an SVG of the same bytes each time, holds the names and numbers of its run, and is another one when any part of the run is.
"""

import copy
import importlib.machinery
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
ASK = ("simulate", "--cluster", "paper-cloud", "--model", "llama-30b", "--workload", "azure-code", "--slo", "scale-5", "--rate", "6", "--requests", "200",
       "--timeline-s", "5", "--json")
ALGORITHMS = ("thunder", "uniform")
TITLES = ("Attainment (95 % interval)", "Latency of completed requests", "Where the time goes", "Busiest links",
          "Replicas: share of the time busy (red: phase changes)", "Replicas: KV memory used", "Links: share of the time busy")


def program():
    path = str(ROOT / "scripts" / "plot-simulation")
    loader = importlib.machinery.SourceFileLoader("plot_simulation", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("plot_simulation", loader))
    loader.exec_module(module)
    return module


class Pictures:
    def __init__(self, folder):
        self.folder, self.program = pathlib.Path(folder), program()

    def draw(self, *runs):
        """The bytes of the picture of these runs."""
        paths = [self.folder / f"{i}.json" for i in range(len(runs))] + [self.folder / "out.svg"]
        for path, run in zip(paths, runs):
            path.write_text(json.dumps(run))
        sys.argv = ["plot-simulation", *map(str, paths)]
        self.program.main()
        return paths[-1].read_bytes()


def words_of(picture):
    """All texts of an SVG; parsing fails where it is none."""
    root = xml.etree.ElementTree.fromstring(picture)
    if root.tag != "{http://www.w3.org/2000/svg}svg":
        sys.exit(f"the picture is no SVG but {root.tag}")
    return ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]


def must_hold(picture, wanted):
    words = words_of(picture)
    missing = sorted({word for word in wanted if word not in words})
    if missing:
        sys.exit(f"the picture lacks {missing}; it says {words}")


def changes(run):
    """Each panel's part of the run, altered."""
    def cut(alter):
        other = copy.deepcopy(run)
        alter(other)
        return other

    yield "attainment", cut(lambda r: r["attainment"][0]["all"].update(share=0.123, low=0.1, high=0.2))
    yield "latency", cut(lambda r: r["latency_ms"]["tpot"].update(p95=1 + 2 * r["latency_ms"]["tpot"]["p95"]))
    yield "time", cut(lambda r: r["time"]["decode"].update(share=0.123))
    yield "replica", cut(lambda r: r["replicas"][0].update(busy=0.0123))
    yield "link", cut(lambda r: max(r["links"], key=lambda link: link["busy"]).update(busy=0.99))
    yield "timeline of a replica", cut(lambda r: r["timeline"]["replicas"][0]["busy"].__setitem__(0, 0.5))
    yield "memory over time", cut(lambda r: r["timeline"]["replicas"][0]["kv"].__setitem__(0, 0.5))
    yield "timeline of a link", cut(lambda r: max(r["timeline"]["links"], key=lambda link: max(link["busy"]))["busy"].__setitem__(0, 0.987))
    yield "phase over time", cut(lambda r: r["timeline"]["replicas"][0]["phase"].__setitem__(0, "both"))


def main():
    tsctl = f"{sys.argv[1]}/bin/tsctl"
    runs = [json.loads(subprocess.run([tsctl, *ASK, "--algorithm", name], check=True, capture_output=True, cwd=ROOT).stdout) for name in ALGORITHMS]
    run = runs[0]
    with tempfile.TemporaryDirectory() as folder:
        pictures = Pictures(folder)
        alone = pictures.draw(run)
        must_hold(alone, [*TITLES, *(f"{replica['name']} {replica['devices']}" for replica in run["replicas"]),
                          *(f"{100 * part['share']:.1f} %" for part in run["time"].values())])
        if pictures.draw(run) != alone:
            sys.exit("the same run gave another picture")
        for what, other in changes(run):
            if pictures.draw(other) == alone:
                sys.exit(f"{what}: another run gave the same picture")
        must_hold(pictures.draw(*runs), [TITLES[0], *ALGORITHMS])
        sys.argv = ["plot-simulation", "out.svg"]
        try:
            pictures.program.main()
        except SystemExit as refused:
            if not str(refused).startswith("usage: "):
                raise
        else:
            sys.exit("a picture of no run was drawn")


if __name__ == "__main__":
    main()
