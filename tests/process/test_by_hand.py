"""The commands of the top README that start the services one by one, as they stand there but for port and folder."""

import json
import pathlib
import re
import shlex
import subprocess
import time

from harness import BUILD, ROOT, free_ports, run


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return [shlex.split(line, comments=True) for line in next(b for b in blocks if "bin/ts-router" in b).splitlines()]


def test_one_by_one(tmp_path):
    port, processes = free_ports(), []
    router = f"tcp://127.0.0.1:{port}"
    started = [[BUILD / "bin" / pathlib.Path(program).name, *(word.replace("5555", str(port)).replace("/tmp/", f"{tmp_path}/") for word in flags)]
               for program, *flags in commands()]
    assert {pathlib.Path(command[0]).name for command in started} == {f"ts-{name}" for name in ("router", "planner", "relay", "prefill", "decode")}
    try:
        for command in reversed(started):  # in any order
            processes.append(subprocess.Popen([*map(str, command), "--log-level", "warn"], cwd=ROOT))
        until = time.monotonic() + 60
        while True:
            asked = run("status", "--router", router, "--timeout-ms", 500, "--json", check=False)
            services = json.loads(asked.stdout)["services"] if asked.returncode == 0 else []
            if sum(s["ready"] for s in services) == 5:
                break
            assert time.monotonic() < until and all(p.poll() is None for p in processes), asked
            time.sleep(0.05)
        assert {s["id"] for s in services} == {"router", "planner", "relay0", "prefill", "decode"}
        answer = json.loads(run("generate", "--router", router, "--prompt", "hi", "--max-tokens", 5, "--json").stdout)
        assert len(answer["tokens"]) == 5 and (answer["prefill"], answer["relay"], answer["decode"]) == ("prefill", "relay0", "decode")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            assert process.wait(30) == 0
