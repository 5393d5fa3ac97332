"""Devices that are lost under prefill, decode and relay, and a worker that is killed while the relay has its memory mapped: the trials of
tests/process/devices.py on the machine's own device.

gpu_faults.py --build BUILD [--each N] [--output N]: CSV on stdout, a line for each trial as it ends, after N seconds at the latest. Exit code 1: a trial
that failed. Over the driver whose device is the CPU --output 12 is enough.
"""

import argparse
import os
import pathlib
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def over(*_):
    raise TimeoutError("its time was over")


def one(trial, flags, seconds):
    began = time.monotonic()
    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    with tempfile.TemporaryDirectory(prefix="ts-faults-") as folder:
        try:
            trial(pathlib.Path(folder), **flags)
            result = "as it must be"
        except Exception as fault:  # a trial that breaks has failed, and the next ones have their turn
            print(f"{trial.__name__}: {fault}", file=sys.stderr)
            print(f"faults: {trial.__name__}: {str(fault).splitlines()[0] if str(fault) else type(fault).__name__}", file=sys.stderr)
            result = "FAILED"
        finally:
            signal.alarm(0)
    print(f"{trial.__name__.replace('_', ' ')},{result},{time.monotonic() - began:.1f}", flush=True)
    return result != "FAILED"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--each", type=int, default=25, metavar="N", help="seconds of a trial (25)")
    parser.add_argument("--output", type=int, default=400, metavar="N", help="tokens of the requests under which a worker is killed (400)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # services and folders go all the same
    os.environ["TS_BUILD_DIR"] = str(options.build.resolve())
    sys.path.insert(0, str(ROOT / "tests" / "process"))
    import devices

    print("trial,result,seconds")
    trials = ((devices.decode_loses_its_device, {}), (devices.prefill_loses_its_device, {}), (devices.relay_loses_its_device, {}),
              (devices.prefill_is_killed, {"output": options.output}))
    return int(not all([one(*trial, options.each) for trial in trials]))


if __name__ == "__main__":
    sys.exit(main())
