"""The planner service with each of its algorithms: swapped under load, every one claims a term and has its plan taken."""

import re
import subprocess

from harness import BUILD, CONF, ROOT, Cluster, Streams, random_requests, wait_for

VOCAB = 1024
PLANNER = BUILD / "bin" / "ts-planner"


def algorithms():
    """The names as an error lists them."""
    said = subprocess.run([PLANNER, "--algorithm", "magic"], capture_output=True, text=True, timeout=20, cwd=ROOT)
    assert said.returncode == 2, said
    names = re.search(r"expected one of (.*), or a path", said.stderr)[1].split(", ")
    assert {"thunder", "uniform", "colocated", "splitwise", "distserve", "hexgen", "hexgen2", "helix", "paper", "exhaustive"} == set(names)
    return names


def planned_by(cluster, name, *flags):
    """Runs a planner until the router serves by a plan of its term, then lets it leave."""
    before = cluster.status()["term"]
    planner = subprocess.Popen([PLANNER, "--config", CONF, "--id", f"with-{name}", "--router", cluster.router, "--heartbeat-ms", "100", *flags],
                               cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: next((s for s in [cluster.status()] if s["term"] > before and s["plan"] > 0), None))
    finally:
        planner.terminate()
        _, said = planner.communicate(timeout=20)
        assert planner.returncode == 0, said
    assert "plan_refused" not in said, said


def test_every_algorithm_plans_a_live_cluster(tmp_path):
    with Cluster("--engine", "modelled", "--prefill", 2, "--decode", 3) as cluster:
        cluster.kill("planner0")
        streams = Streams(cluster.router, random_requests(3, 200, VOCAB, output=(20, 200)))
        for name in algorithms():
            planned_by(cluster, name, "--algorithm", name)
        planned_by(cluster, "stripes", "--algorithm", str(BUILD / "examples" / "stripes.so"))
        planned_by(cluster, "catalogue", "--conf-dir", "conf", "--workload", "azure-code", "--slo", "ttft=1s,tpot=100ms")
        assert all(g["finish_reason"] == "length" for g in streams.results())
        cluster.settle()


def test_settings_that_cannot_be_planned_with():
    def says(*flags_and_words):
        *flags, words = flags_and_words
        done = subprocess.run([PLANNER, *flags], capture_output=True, text=True, timeout=20, cwd=ROOT)
        assert done.returncode == 2 and words in done.stderr, done

    says("--algorithm", "./no-such.so", "no-such.so")
    says("--slo", "scale=5,reference=A100-80G", "needs deadlines as times")
    says("--slo", "ttft=never", "ttft")
    says("--conf-dir", "/nowhere", "/nowhere")
    says("--workload", "azure-cod", "--conf-dir", "conf", "did you mean azure-code?")
