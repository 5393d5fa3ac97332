"""`tsctl workload`: a trace as a file for conf/workloads, and what it refuses."""

import pytest

from harness import ROOT, run

TRACES = ROOT / "tests/data/traces"


@pytest.mark.parametrize("kind", ["code", "conv"])
def test_makes_the_shipped_files(kind):
    made = run("workload", TRACES / f"AzureLLMInferenceTrace_{kind}.csv", "--name", f"azure-{kind}").stdout
    shipped = (ROOT / f"conf/workloads/azure-{kind}.conf").read_text()
    assert made == "".join(line for line in shipped.splitlines(True) if not line.startswith("#"))


def test_scales_and_cuts_as_told(tmp_path):
    trace = tmp_path / "t.csv"
    trace.write_text("".join(f"{i},{10 + i % 7},{1 + i % 3}\r\n" for i in range(101)))
    made = run("workload", trace, "--rate", "50", "--prompt-bands", "1", "--output-bands", "1").stdout
    assert made.count("rate =") == 1
    assert "rate = 50.000000000;" in made


def test_names_the_bad_row(tmp_path):
    trace = tmp_path / "t.csv"
    trace.write_text("1,10,1\n2,ten,1\n")
    result = run("workload", trace, check=False)
    assert result.returncode == 1
    assert f'{trace}:2: "2,ten,1"' in result.stderr


@pytest.mark.parametrize("flags, words", [((), "usage: tsctl workload"), (("--prompt-bands", "17", "x"), "prompt_bands = 17"), (("--bands", "2", "x"), "unknown flag --bands")])
def test_wrong_usage(flags, words):
    result = run("workload", *flags, check=False)
    assert result.returncode == 2
    assert words in result.stderr
