"""`tsctl plan` as people and scripts use it: JSON, tables, pictures, explain, diff, show, and what it refuses."""

import json
import math
import signal
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

from harness import ROOT, TSCTL, run

BASE = {"--cluster": "two-nodes", "--model": "llama-30b", "--workload": "azure-conv", "--slo": "ttft=3s,tpot=150ms", "--rate": 1.5, "--no-colocate": "true"}
SVG = "{http://www.w3.org/2000/svg}"


def flags_of(changes):
    return [part for pair in {**BASE, **changes}.items() if pair[1] is not None for part in pair]


def tsctl(*flags, check=True, **changes):
    changes = {"--" + key.replace("_", "-"): value for key, value in changes.items()}
    return run("plan", *flags, *flags_of(changes), check=check)


def plan(*flags, **changes):
    return json.loads(tsctl("--json", *flags, **changes).stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One plan with everything that can be written of it."""
    folder = tmp_path_factory.mktemp("plan")
    done = tsctl("--json", out=folder / "plan.json", svg=folder / "plan.svg")
    return {"doc": json.loads(done.stdout), "text": done.stdout, "folder": folder, "path": str(folder / "plan.json")}


def check_replica(doc, index, replica):
    assert replica["phase"] in ("prefill", "decode", "both")
    assert replica["pp"] == len(replica["layers"]) == len(replica["stage_tp"]) == len(replica["stage_weight_bytes_per_gpu"])
    assert sum(replica["layers"]) == doc["model_shape"]["layers"]
    assert replica["tp"] == max(replica["stage_tp"])
    assert len(replica["gpus"]) == sum(replica["stage_tp"])
    prices = {t["name"]: t["price_per_hour"] for t in doc["types"]}
    assert replica["price_per_hour"] == pytest.approx(sum(prices[g["type"]] for g in replica["gpus"]))
    through = sum(f["rate"] for f in doc["flows"] if index in (f["prefill"], f["decode"]))
    assert replica["rate"] == pytest.approx(through)
    at = 0
    for tp in replica["stage_tp"]:
        assert len({(g["node"], g["type"]) for g in replica["gpus"][at : at + tp]}) == 1
        at += tp


def check(doc):
    """What holds for every plan."""
    for key in ("objective", "price_per_hour", "rate", "served_rate"):
        assert math.isfinite(doc[key])
    for key in ("bound", "gap", "limit", "seed", "work", "finished", "cross_node_kv_bytes_per_request"):
        assert key in doc
    for index, replica in enumerate(doc["replicas"]):
        check_replica(doc, index, replica)
    used = [(g["node"], g["index"]) for r in doc["replicas"] for g in r["gpus"]]
    assert len(used) == len(set(used))
    assert doc["price_per_hour"] >= sum(r["price_per_hour"] for r in doc["replicas"]) - 1e-9
    rates = [0.0] * len(doc["classes"])
    for flow in doc["flows"]:
        assert 0 <= flow["attained"] <= flow["rate"] * (1 + 1e-9)
        assert flow["codec"] in ("none", "i4")
        assert doc["replicas"][flow["prefill"]]["phase"] in ("prefill", "both")
        assert doc["replicas"][flow["decode"]]["phase"] in ("decode", "both")
        assert (flow["prefill"] == flow["decode"]) == (doc["replicas"][flow["prefill"]]["phase"] == "both")
        rates[flow["class"]] += flow["rate"]
    scale = doc["rate"] / sum(c["rate"] for c in doc["classes"])
    for rate, offered in zip(rates, doc["classes"]):
        assert rate <= offered["rate"] * scale * (1 + 1e-6)
    assert doc["served_rate"] == pytest.approx(sum(rates))
    if doc["bound"] is not None:
        assert doc["objective"] <= doc["bound"] * (1 + 1e-6)
        assert doc["gap"] == pytest.approx((doc["bound"] - doc["objective"]) / doc["bound"], abs=1e-8)


def test_json(made):
    doc = made["doc"]
    check(doc)
    assert doc["replicas"] and doc["flows"]
    assert doc["cluster"] == "two-nodes" and doc["algorithm"] == "thunder" and doc["finished"] is True
    assert doc["rate"] == pytest.approx(1.5)
    assert doc["objective"] <= doc["bound"] <= 1
    assert plan("--no-bound")["bound"] is None
    assert doc["objective"] - 0.2 < doc["attained"]["all"] <= 1  # what the program expects, what trials promise
    untried = plan("--no-bound", "--trial", "0")
    assert untried["objective"] == pytest.approx(untried["attained"]["all"])
    assert all(doc["attained"]["all"] <= doc["attained"][key] + 1e-9 for key in ("ttft", "tpot", "e2e"))
    assert [r["index"] for r in doc["replicas"]] == list(range(len(doc["replicas"])))


def test_the_same_seed_gives_the_same_bytes(made):
    assert tsctl("--json").stdout == made["text"]


def test_a_plan_is_read_back(made):
    assert open(made["path"], encoding="utf-8").read() == made["text"]
    assert run("plan", "show", made["path"], "--json").stdout == made["text"]
    again = made["folder"] / "again.svg"
    run("plan", "show", made["path"], "--svg", again)
    assert again.read_bytes() == (made["folder"] / "plan.svg").read_bytes()


def test_table(made):
    for lines in (tsctl().stdout, run("plan", "show", made["path"]).stdout):
        for index, replica in enumerate(made["doc"]["replicas"]):
            assert any(line.split()[:1] == ["PDC"[("prefill", "decode", "both").index(replica["phase"])] + str(index)] for line in lines.splitlines())
        for word in ("req/s", "$/h", "Attained", "Objective", "Price", "Limit"):
            assert word in lines
    assert "tokens in" in run("plan", "show", made["path"], "--by-class").stdout


def test_picture(made):
    root = ElementTree.parse(made["folder"] / "plan.svg").getroot()
    assert root.tag == SVG + "svg"
    texts = [t.text or "" for t in root.iter(SVG + "text")]
    for kind in {t["name"] for t in made["doc"]["types"]}:
        assert texts.count(kind) == 4
    for index, replica in enumerate(made["doc"]["replicas"]):
        name = "PDC"[("prefill", "decode", "both").index(replica["phase"])] + str(index)
        assert any(t.startswith(f"{name} TP") for t in texts) and any(t.startswith(f"{name} ·") for t in texts)
    width, height = float(root.get("width")), float(root.get("height"))
    for box in root.iter(SVG + "rect"):
        if box.get("x"):
            assert float(box.get("x")) >= 0 and float(box.get("x")) + float(box.get("width")) <= width
            assert float(box.get("y")) >= 0 and float(box.get("y")) + float(box.get("height")) <= height


def test_options_bind():
    split = plan(codec="none")
    check(split)
    assert all(r["phase"] != "both" for r in split["replicas"])
    assert all(f["codec"] == "none" for f in split["flows"])
    assert {f["codec"] for f in plan(codec="i4")["flows"]} == {"i4"}
    alone = plan(link_gbit=0, no_colocate="false")
    check(alone)
    assert alone["cross_node_kv_bytes_per_request"] == 0
    assert all(len({g["node"] for g in r["gpus"]}) == 1 for r in alone["replicas"])
    short = plan(max_stages=1)
    assert all(r["pp"] == 1 for r in short["replicas"])


def test_lengths_and_rate():
    doc, longer = plan(), plan(scale_lengths=1.25, rate=2)
    assert longer["rate"] == pytest.approx(2)
    for a, b in zip(doc["classes"], longer["classes"]):
        assert b["prompt_tokens"] == pytest.approx(1.25 * a["prompt_tokens"])


def test_goodput():
    doc = plan(objective="goodput", attainment=0.95)
    check(doc)
    assert doc["objective"] == pytest.approx(sum(f["attained"] for f in doc["flows"]), rel=1e-6)
    assert doc["attained"]["all"] >= 0.95 - 1e-6
    assert doc["objective"] > 0


def test_one_gpu_and_many():
    one = plan(cluster="one-gpu", model="llama-3-8b", no_colocate="false")
    check(one)
    assert [r["phase"] for r in one["replicas"]] == ["both"]
    nothing = tsctl("--json", cluster="one-gpu", model="llama-3-8b")
    check(json.loads(nothing.stdout))
    assert json.loads(nothing.stdout)["objective"] == 0 and "no request" in nothing.stderr
    many = plan("--no-bound", cluster="gpus-1000", rate=200, time_limit=2)
    check(many)
    assert many["replicas"]


def test_max_work_gives_the_same_plan_everywhere():
    whole = plan(algorithm="paper")
    cut = plan(algorithm="paper", max_work=whole["work"] // 2)
    assert whole["finished"] is True and cut["finished"] is False
    assert cut["work"] == whole["work"] // 2
    assert plan(algorithm="paper", max_work=whole["work"] // 2) == cut
    assert plan(algorithm="paper", max_work=10 * whole["work"]) == whole
    early = tsctl("--json", cluster="gpus-256", max_work=1, check=False)
    assert early.returncode == 1 and "--max-work" in early.stderr


def test_explain(made):
    why = json.loads(run("plan", "explain", made["path"], "--json").stdout)
    doc = made["doc"]
    assert why["objective"] == pytest.approx(doc["objective"], rel=1e-6)
    assert len(why["replicas"]) == len(doc["replicas"])
    for replica, told in zip(doc["replicas"], why["replicas"]):
        assert told["phase"] == replica["phase"]
        assert {a["phase"] for a in told["alternatives"]} == {"prefill", "decode", "both"} - {replica["phase"]}
        for other in told["alternatives"]:
            assert other["loss"] is None or other["loss"] == pytest.approx(why["objective"] - other["objective"], abs=1e-12)
            assert other["objective"] is not None or other["reason"]
        alone = [r["phase"] for r in doc["replicas"]].count(replica["phase"]) == 1
        assert told["worth"] == pytest.approx(why["objective"]) if alone else -1e-9 <= told["worth"] <= why["objective"]
    assert all(0 < p["gain"] <= 1 - why["objective"] for p in why["prices"])
    text = run("plan", "explain", made["path"]).stdout
    assert "What limits the plan" in text
    assert tsctl("explain").stdout == text
    elsewhere = subprocess.run([TSCTL, "plan", "explain", made["path"]], cwd=made["folder"], capture_output=True, text=True, check=True)
    assert elsewhere.stdout == text


def test_adopt(made, tmp_path):
    """The plan for conversation meets coding: worth a change for an hour, not for a second; and not at all while nothing has changed."""

    def ask(*flags, **changes):
        return json.loads(tsctl("adopt", "--json", "--current", made["path"], *flags, **changes).stdout)

    still = ask()
    assert still["verdict"] == "hold" and "noise" in still["reason"]
    assert still["served_now"] == pytest.approx(made["doc"]["attained"]["all"] * made["doc"]["rate"], rel=0.02)
    coding = {"workload": "azure-code", "rate": 2.5}
    hour = ask("--window-s", "3600", "--out", tmp_path / "next.json", **coding)
    assert [c["depth"] for c in hour["candidates"]] == ["re-route", "flip", "regroup"]
    served = [c["served"] for c in hour["candidates"]]
    assert hour["served_now"] <= served[0] * (1 + 1e-9) and served[0] <= served[1] * (1 + 1e-9) and served[1] <= served[2] * (1 + 1e-9)
    assert hour["candidates"][0]["reload_s"] == hour["candidates"][0]["load_bytes"] == hour["candidates"][1]["load_bytes"] == 0
    assert hour["candidates"][0]["served_meanwhile"] == pytest.approx(hour["served_now"])
    assert hour["verdict"] != "hold" and hour["gain"] > 0
    followed = json.loads((tmp_path / "next.json").read_text())
    assert followed["objective"] == pytest.approx(next(c["objective"] for c in hour["candidates"] if c["depth"] == hour["verdict"]))
    assert ask("--window-s", "1", "--flip-s", "30", "--load-gb-per-s", "0.01", **coding)["verdict"] in ("hold", "re-route")
    assert "re-route" in tsctl("adopt", "--current", made["path"]).stdout
    missing = tsctl("adopt", check=False)
    assert missing.returncode == 2 and "--current is missing" in missing.stderr


def test_explain_says_when_the_routing_is_not_the_best(tmp_path):
    path = tmp_path / "uniform.json"
    tsctl("--no-bound", algorithm="uniform", rate=3, out=path)
    own, best = json.loads(path.read_text())["objective"], json.loads(run("plan", "explain", path, "--json").stdout)["objective"]
    assert own < best
    assert run("plan", "explain", path).stdout.startswith("The plan's own routing attains")


def test_diff(made, tmp_path):
    same = json.loads(run("plan", "diff", made["path"], made["path"], "--json").stdout)
    assert same["kept"] == len(made["doc"]["replicas"])
    assert same["reload_gpus"] == same["reload_bytes"] == same["flipped"] == same["regrouped"] == same["gone"] == 0
    other = tmp_path / "other.json"
    doc = json.loads(tsctl("--json", out=other, cluster="paper-cloud", time_limit=5).stdout)
    change = json.loads(run("plan", "diff", made["path"], other, "--json").stdout)
    assert change["price_per_hour"]["change"] == pytest.approx(doc["price_per_hour"] - made["doc"]["price_per_hour"])
    assert change["reload_bytes"] > 0 and change["reload_gpus"] > 0
    loads = [g for r in change["replicas"] for g in r.get("reload", [])]
    assert len(loads) == change["reload_gpus"] and sum(g["bytes"] for g in loads) == pytest.approx(change["reload_bytes"])
    assert len([r for r in change["replicas"] if r["change"] != "gone"]) == len(doc["replicas"])
    assert "Reload" in run("plan", "diff", made["path"], other).stdout


def places(doc):
    return sorted(sorted((g["node"], g["index"]) for g in r["gpus"]) for r in doc["replicas"])


def test_depths(made, tmp_path):
    for depth in ("reroute", "flip"):
        after = plan(depth=depth, current=made["path"], workload="azure-code")
        check(after)
        assert places(after) == places(made["doc"])
        assert depth == "flip" or [r["phase"] for r in after["replicas"]] == [r["phase"] for r in made["doc"]["replicas"]]
        path = tmp_path / f"{depth}.json"
        path.write_text(json.dumps(after))
        assert json.loads(run("plan", "diff", made["path"], path, "--json").stdout)["reload_gpus"] == 0


def test_a_lost_device_costs_its_replica(made, tmp_path):
    cluster = tmp_path / "less.conf"
    lost = made["doc"]["replicas"][0]["gpus"][0]["type"]
    nodes = {g["type"]: n["name"] for n in made["doc"]["nodes"] for g in n["gpus"] if g["type"] != lost}
    text = ", ".join('{ name = "%s"; devices = ( { type = "%s"; count = 4; } ); }' % (name, kind) for kind, name in nodes.items())
    cluster.write_text(f'link = "40Gbit"; nodes = ( {text} );')
    done = tsctl(depth="flip", current=made["path"], cluster=cluster, check=False)
    assert (done.returncode == 0 and "left out" in done.stderr) or (done.returncode == 1 and "none of the" in done.stderr)


@pytest.mark.parametrize(
    "flags, code, words",
    [
        ({"--cluster": None}, 2, "--cluster is missing"),
        ({"--slo": None}, 2, "--slo is missing"),
        ({"--cluster": "nowhere"}, 1, "nowhere"),
        ({"--model": "llama-99b"}, 1, "llama-99b"),
        ({"--workload": "azure-cod"}, 1, "azure-code"),
        ({"--slo": "ttft=much"}, 1, "ttft"),
        ({"--devices": "nobody"}, 1, "nobody"),
        ({"--algorithm": "thunders"}, 2, "thunder"),
        ({"--load": "/nowhere.so"}, 2, "/nowhere.so"),
        ({"--rate": "0"}, 2, "rate"),
        ({"--rate": "nan"}, 2, "rate"),
        ({"--rate": "fast"}, 2, "rate"),
        ({"--scale-lengths": "1e9"}, 2, "scale_lengths"),
        ({"--attainment": "2"}, 2, "attainment"),
        ({"--codec": "zip"}, 2, "codec"),
        ({"--depth": "flip"}, 2, "--current"),
        ({"--current": "/nowhere.json"}, 1, "/nowhere.json"),
        ({"--colour": "red"}, 2, "--colour"),
        ({"--cluster": "one-gpu", "--model": "llama-2-70b"}, 1, "GB"),
        ({"--cluster": "one-gpu", "--model": "llama-3-8b", "--algorithm": "distserve"}, 1, "twice"),
        ({"--cluster": "two-nodes,link=-5Gbit"}, 1, "no link has this name"),
        ({"--svg": "/nowhere/plan.svg"}, 1, "/nowhere/plan.svg"),
    ],
)
def test_refusals(flags, code, words):
    done = run("plan", *flags_of(flags), check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert ("Objective" in done.stdout) == ("--svg" in flags)  # a file that cannot be written does not cost the plan


def test_broken_files(tmp_path):
    for name, text, words in (("empty", "", "JSON"), ("other", "{}", "no plan"), ("half", '{"replicas": [', "JSON")):
        path = tmp_path / name
        path.write_text(text)
        for verb in ("show", "explain"):
            done = run("plan", verb, path, check=False)
            assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1
    assert run("plan", "show", check=False).returncode == 2
    assert run("plan", "diff", tmp_path / "empty", check=False).returncode == 2
    assert run("plan", "make", check=False).returncode == 2


def test_interrupt_prints_the_best_so_far():
    command = [TSCTL, "plan", "--json", "--progress", "--no-bound", *flags_of({"--cluster": "gpus-256", "--rate": 200})]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        for line in process.stderr:
            assert line.startswith("thunder: ")
            if "best" in line:
                break
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    doc = json.loads(out)
    check(doc)
    assert doc["finished"] is False and "stopped" in errors


def test_the_readme_works(tmp_path):
    """The commands of "Plan a cluster", one after the other, as they stand there."""
    section = (ROOT / "README.md").read_text().split("\n## Plan a cluster\n", 1)[1].split("\n## ", 1)[0]
    commands = [line.split("#")[0].split() for line in section.splitlines() if line.startswith("build/release/bin/tsctl ")]
    assert len(commands) >= 2
    for command in commands:
        done = subprocess.run([TSCTL, *command[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0 and done.stdout, done.stderr
    assert (tmp_path / "plan.svg").exists()


def test_help():
    text = run("plan", "--help").stdout
    for word in ("--cluster", "--no-colocate", "--time-limit", "explain", "adopt", "diff", "show", "Exit codes"):
        assert word in text


# --- Money ---

OFFERS = {"model": "llama-3-8b", "workload": "even", "rate": None, "no_colocate": "false"}


@pytest.fixture(scope="module")
def offers(tmp_path_factory):
    """Two nodes from which four devices can be rented; one is."""
    path = tmp_path_factory.mktemp("offers") / "offers.conf"
    path.write_text(
        """
        link = "25GbE";
        nodes = ( { name = "east"; devices = ( { type = "A40"; count = 1; available = 1; } ); },
                  { name = "west"; devices = ( { type = "3090Ti"; count = 0; available = 2; } ); } );
        """
    )
    return {**OFFERS, "cluster": path}


def bought(doc):
    return sum(r["price_per_hour"] for r in doc["replicas"])


def test_budget(offers):
    doc = plan(budget=0.8, **offers)
    check(doc)
    assert doc["money"]["goal"] == "budget" and doc["money"]["budget_per_hour"] == 0.8
    assert 0 < doc["objective"] and doc["price_per_hour"] == pytest.approx(bought(doc)) and bought(doc) <= 0.8
    assert plan(budget=1.2, **offers)["objective"] >= doc["objective"]
    text = tsctl(budget=0.8, **offers).stdout
    assert text.startswith("Rent  ") and "Routing" in text
    poor = tsctl(budget=0.001, check=False, **offers)
    assert poor.returncode == 1 and "0.001" in poor.stderr and poor.stderr.count("\n") == 1


def test_min_cost(offers):
    doc = plan("--min-cost", attainment=0.95, **{**offers, "rate": 2})
    check(doc)
    assert doc["rate"] == pytest.approx(2) and doc["attained"]["all"] >= 0.95 - 1e-6
    dearer = plan("--min-cost", attainment=0.95, **{**offers, "rate": 6})
    assert dearer["price_per_hour"] >= doc["price_per_hour"]
    much = tsctl("--min-cost", check=False, **{**offers, "rate": 1e5})
    assert much.returncode == 1 and "not even all offers" in much.stderr


def test_frontier(offers, tmp_path):
    picture = tmp_path / "frontier.svg"
    got = json.loads(tsctl("--frontier", "--json", svg=picture, points=5, **offers).stdout)
    points = got["frontier"]
    assert len(points) >= 2
    for a, b in zip(points, points[1:]):
        assert a["price_per_hour"] < b["price_per_hour"] and a["objective"] < b["objective"]
    for point in points:
        check(point["plan"])
        assert point["objective"] == pytest.approx(point["plan"]["objective"])
        assert point["bound"] is None or point["objective"] <= point["bound"] * (1 + 1e-6)
    root = ElementTree.parse(picture).getroot()
    assert len(list(root.iter(SVG + "circle"))) == len(points)
    assert "$/h" in tsctl("--frontier", points=3, **offers).stdout


def test_advice(offers, tmp_path):
    path = tmp_path / "plan.json"
    tsctl(out=path, **{**offers, "rate": 40})
    advice = json.loads(run("plan", "explain", path, "--json").stdout)["advice"]
    assert {a["do"] for a in advice} == {"rent", "give back"}
    for item in advice:
        assert item["count"] > 0 and item["dollars_per_hour"] >= 0
        assert item["do"] == "give back" or item["gain"] >= -1e-9
    assert "What to rent next" in run("plan", "explain", path).stdout


def test_money_is_one_question(offers):
    depth = ("--depth", "flip", "--current", "x")
    for flags in (("--frontier", "--min-cost"), ("--min-cost", "--objective", "goodput"), ("--frontier", "--budget", "-1"), ("--frontier", *depth)):
        assert tsctl(*flags, check=False, **offers).returncode == 2
