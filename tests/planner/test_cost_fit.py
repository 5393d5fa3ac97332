"""The cost model against measurements: the measured catalogue is what the fit makes of them, and the errors on devices and models
that the fit has not seen stay below their bounds. Prints the table of errors.
"""

import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(os.environ["TS_SOURCE_DIR"])
TSCTL = str(pathlib.Path(os.environ["TS_BUILD_DIR"]) / "bin/tsctl")


def test_catalogue_is_what_the_fit_makes():
    run = subprocess.run([ROOT / "scripts/fit-devices", "--check"], env={**os.environ, "TSCTL": TSCTL}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_left_out_devices_and_models():
    run = subprocess.run([TSCTL, "cost", "loo", "--conf-dir", ROOT / "conf", "--profiles", ROOT / "tests/data/profiles"],
                         capture_output=True, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    for kind, bound in (("model", 10.0), ("gpu", 25.0)):
        medians = dict(re.findall(rf"^each {kind} +(\w+) +\d+ +([0-9.]+)%", run.stdout, re.M))
        assert {"linear", "prefill", "decode"} <= set(medians)
        assert all(float(medians[phase]) <= bound for phase in ("linear", "prefill", "decode"))
