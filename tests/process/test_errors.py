"""What goes wrong is said in one line that names the thing, the value and the remedy; the exit code is not 0; nothing hangs."""

import json
import os
import shutil
import socket
import subprocess

import pytest

from harness import BUILD, CONF, DEMO, ROOT, TSCTL, Cluster, free_ports, run, wait_for

TIMEOUT = 20
SERVICES = ["router", "planner", "relay", "prefill", "decode"]


def fails(program, *args, env=None):
    """Runs it; returns its one line of stderr."""
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT,
                          env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL)
    assert done.returncode in (1, 2), f"exit code {done.returncode}: {done.stderr}"
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    return done.stderr


def says(line, *words):
    for word in words:
        assert str(word) in line, f"{word!r} is not in {line!r}"


def tsctl(*args, **kw):
    return fails(TSCTL, *args, **kw)


def service(name, *args, **kw):
    return fails(BUILD / "bin" / f"ts-{name}", *args, **kw)


def conf_file(folder, text):
    path = folder / "some.conf"
    path.write_text(text)
    return path


@pytest.fixture
def model(tmp_path):
    """A copy of the demo model, to be spoiled."""
    copy = tmp_path / "model"
    shutil.copytree(DEMO, copy)
    return copy


def everywhere(model, *words):
    """The same complaint of whoever opens the model."""
    for line in (
        tsctl("up", CONF, "--model", model),
        tsctl("engine", "--model", model, "--prompt", "x"),
        service("decode", "--model", model),
        service("prefill", "--model", model, "--relay", "r", "--pool", "ipc:///tmp/thunderserve-nobody"),
    ):
        says(line, *words)


def test_malformed_configuration(tmp_path):
    path = conf_file(tmp_path, "router = {\n  codec = ;\n};\n")
    for line in [tsctl("up", path)] + [service(s, "--config", path) for s in SERVICES]:
        says(line, f"{path}:2: syntax error", "NAME = { key = value; }")


def test_missing_configuration(tmp_path):
    path = tmp_path / "none.conf"
    for line in [tsctl("up", path), tsctl("up", tmp_path)] + [service(s, "--config", path) for s in SERVICES]:
        says(line, "cannot read the configuration file", tmp_path, "give an existing file")


@pytest.mark.parametrize("group", SERVICES)
def test_unknown_key(tmp_path, group):
    path = conf_file(tmp_path, f"{group} = {{\n  heartbeat_s = 3;\n}};\n")
    for line in (tsctl("up", path), service(group, "--config", path)):
        says(line, f"{path}:2", 'unknown key "heartbeat_s"', f"group {group}", "did you mean heartbeat_ms?")


def test_unknown_group(tmp_path):
    path = conf_file(tmp_path, "prefil = { };\n")
    for line in [tsctl("up", path)] + [service(s, "--config", path) for s in SERVICES]:
        says(line, f"{path}:1", 'unknown group "prefil"', "did you mean prefill?")


def test_value_out_of_range(tmp_path):
    path = conf_file(tmp_path, "decode = { max_num_seqs = 0; };\n")
    for line in (tsctl("up", path), service("decode", "--config", path)):
        says(line, f"{path}:1", "max_num_seqs = 0", "from 1 to 65536")
    says(service("decode", env={"TS_MAX_NUM_SEQS": "x"}), "environment TS_MAX_NUM_SEQS", "max_num_seqs = x", "from 1 to")
    for name in SERVICES:
        says(service(name, "--heartbeat-ms", 1000, "--timeout-ms", 1999), "timeout_ms = 1999", "heartbeat_ms = 1000", "twice")
    says(service("router", "--queue-max", "-1"), "command line", "queue_max = -1", "from 1 to")


def test_bad_flags():
    says(tsctl("up", CONF, "--prefil", 2), "--prefil", "--prefill")
    says(tsctl("up", CONF, "--engine", "gpu"), "engine = gpu", "auto|cpu|cuda:N|modelled")
    says(tsctl("up", CONF, "--codec", "zip"), "codec = zip", "none, lz16, i8, i4")
    says(tsctl("up", CONF, "--decode", 0), "--decode must be at least 1")
    says(tsctl("generate", "--prompt", "x", "--temperature", -1), "temperature = -1", "from 0 to 100")
    says(tsctl("generate", "--prompt"), "--prompt", "needs a value")
    says(tsctl("generate", "--tokens", "1,a"), "--tokens", "1,2,3")
    says(tsctl("generate"), "--prompt TEXT")
    says(tsctl("generate", "--prompt", "x", "--tokens", "1"), "both --prompt and --tokens")
    says(tsctl("generate", "--prompt", "x", "--router", "localhost"), "localhost", "tcp://HOST:PORT")
    says(tsctl("fly"), "fly", "tsctl --help")
    says(service("planner", "--algorithm", "magic"), "magic", "thunder")
    says(service("relay", "--router", "tcp://x:notaport"), "tcp://x:notaport", "tcp://HOST:PORT")
    says(service("router", "--log-level", "loud"), "loud", "warn")
    says(service("router", "extra"), "extra", "--name value")


@pytest.mark.parametrize("name", ["planner", "relay", "decode"])
def test_addresses_that_nobody_can_dial(name):
    says(service(name, "--model", DEMO, "--router", "tcp://*:5555") if name == "decode" else service(name, "--router", "tcp://*:5555"),
         "cannot use the address tcp://*:", "expected tcp://HOST:PORT or ipc://PATH")


def test_addresses_of_a_worker():
    for key, flags in (("pool", ("--relay", "r", "--pool")), ("kv_advertise", ("--kv-advertise",))):
        for address in ("foo", "tcp://10.0.0.1:*", "tcp://" + "h" * 300 + ":1"):
            says(service("decode", "--model", DEMO, *flags, address), f"{key}: ", address[:100], "address")


def test_names_are_bounded():
    for name in SERVICES[:3]:
        for text in ("", "n" * 129):
            says(service(name, "--id", text), "id = ", "a text of 1 to 128 bytes")
    for key in ("id", "host", "relay", "served-model-name", "device-name"):
        says(service("decode", "--model", DEMO, f"--{key}", "n" * 129), f"{key.replace('-', '_')} = nnn", "128 bytes")


def test_missing_model_folder(tmp_path):
    everywhere(tmp_path / "nothing", tmp_path / "nothing", "folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    everywhere(empty, empty / "config.json", "Hugging Face")
    says(service("decode"), "no model", "--model DIR")


def test_a_folder_is_no_file(tmp_path):
    says(tsctl("codec", "encode", tmp_path), "cannot read", tmp_path, "Is a directory")
    says(tsctl("quality", "--model", DEMO, "--device", "cpu", "--text", tmp_path), "cannot read", tmp_path, "Is a directory")


def test_truncated_weights(model):
    weights = model / "model.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, size - 1)
    everywhere(model, weights, "truncated", "get it again")
    os.truncate(weights, 1000)
    everywhere(model, weights, "truncated", "get it again")
    os.truncate(weights, 3)
    everywhere(model, weights, "truncated", "get it again")


def test_unknown_family(model):
    config = json.loads((model / "config.json").read_text())
    config.update(model_type="mamba", architectures=["MambaForCausalLM"])
    (model / "config.json").write_text(json.dumps(config))
    everywhere(model, model / "config.json", "model_type", "mamba", "llama")


def test_prompt_longer_than_the_context():
    tokens = ",".join(["5"] * 3000)
    says(tsctl("engine", "--model", DEMO, "--tokens", tokens), "3000", "2048", "shorten")
    with Cluster() as cluster:
        says(tsctl("generate", "--router", cluster.router, "--tokens", tokens), "3000", "2048", "shorten")


def test_occupied_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        says(tsctl("up", CONF, "--port", port), port, "--port")
        says(service("router", "--listen", f"tcp://127.0.0.1:{port}"), port, "in use", "another address")
        says(service("decode", "--model", DEMO, "--kv-listen", f"tcp://127.0.0.1:{port}", "--log-level", "error"),
             port, "in use", "another address")


def test_an_occupied_path(tmp_path):
    path = tmp_path / "relay"

    def start():
        return subprocess.Popen([BUILD / "bin" / "ts-relay", "--router", "tcp://127.0.0.1:9", "--listen", f"ipc://{path}"], stderr=subprocess.DEVNULL)

    def listens():
        with socket.socket(socket.AF_UNIX) as dialled:
            return dialled.connect_ex(str(path)) == 0

    first = start()
    try:
        wait_for(listens)
        says(service("relay", "--listen", f"ipc://{path}"), path, "in use", "another address")
        assert listens()
    finally:
        first.kill()
        first.wait()
    assert path.exists() and not listens()
    second = start()  # the path is still there, and nobody listens
    try:
        wait_for(listens)
    finally:
        second.terminate()
    assert second.wait(TIMEOUT) == 0


def test_a_name_is_no_address_to_bind():
    says(service("router", "--listen", "tcp://localhost:9"), "cannot bind tcp://localhost:9", "no such address or network interface")


def test_a_pool_larger_than_the_machine():
    says(service("decode", "--model", DEMO, "--device", "cpu", "--kv-cache-mib", 10000000), "the KV pool needs 10000", "MiB", "lower kv_cache_mib")


def test_a_context_longer_than_the_model_has():
    says(service("decode", "--model", DEMO, "--device", "cpu", "--max-model-len", 99999), "max_model_len = 99999", "the model's context is")


def test_a_full_disk_is_said_once():
    with Cluster(env={"TS_TRACE": "/dev/full"}) as cluster:
        for _ in range(3):
            cluster.generate("--prompt", "x", "--max-tokens", 1)
        assert cluster.log().count("event=trace_ended reason=write_failed") == 1
    router = f"tcp://127.0.0.1:{free_ports()}"
    recorded = subprocess.Popen([BUILD / "bin" / "ts-router", "--listen", router, "--record", "/dev/full", "--log-level", "error"], stderr=subprocess.PIPE, text=True)
    run("status", "--router", router)
    recorded.terminate()
    assert recorded.communicate(timeout=TIMEOUT)[1].count("event=recording_ended reason=write_failed") == 1


def test_missing_relay():
    says(tsctl("up", CONF, "--relay", 0), "relay", "--relay must be at least 1")
    says(service("prefill", "--model", DEMO), "no relay", "--relay ID", "--pool ENDPOINT")
    pool = "ipc:///tmp/thunderserve-nobody"
    says(service("prefill", "--model", DEMO, "--relay", "r", "--pool", pool, "--relay-wait-ms", 300, "--log-level", "warn"),
         pool, "300 ms", "start ts-relay")


def test_relay_that_died():
    with Cluster(env={"TS_NO_WORKER_MS": "1000", "TS_TIMEOUT_MS": "500", "TS_HEARTBEAT_MS": "100"}) as cluster:
        cluster.kill("relay0")
        says(tsctl("generate", "--router", cluster.router, "--prompt", "x"), "relay", "tsctl status")


def test_router_that_does_not_answer():
    with socket.socket() as silent:  # accepts and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        router = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        says(tsctl("generate", "--router", router, "--prompt", "x", "--give-up-ms", 500), router, "is it running")
    says(tsctl("generate", "--router", router, "--prompt", "x", "--give-up-ms", 500), router, "is it running")
    says(tsctl("status", "--router", router, "--timeout-ms", 300), router, "is it running")


def test_printed_settings_load_again(tmp_path):
    for name in SERVICES:
        program = BUILD / "bin" / f"ts-{name}"
        run = lambda *args: subprocess.run([program, *args], capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, check=True).stdout
        first = run("--config", CONF, "--print-conf", "--heartbeat-ms", "250")
        assert "heartbeat_ms = 250; # command line\n" in first and f'log_level = "warn"; # {CONF}:' in first
        path = conf_file(tmp_path, first)
        assert run("--config", path, "--check-conf") == f"{name}: configuration ok\n"
        values = lambda text: [line.split("; #")[0] for line in text.splitlines()]
        assert values(run("--config", path, "--print-conf")) == values(first)


@pytest.mark.parametrize("name, flags", [
    ("router", ("--codec", "i9")), ("router", ("--cluster", "nope")), ("router", ("--listen", "foo")), ("planner", ("--algorithm", "magic")),
    ("relay", ("--router", "a")), ("decode", ("--max-num-batched-tokens", 20)), ("prefill", ("--heartbeat-ms", 1000, "--timeout-ms", 1999)),
])
def test_what_is_not_well_is_not_called_so(name, flags):
    done = subprocess.run([BUILD / "bin" / f"ts-{name}", "--check-conf", *map(str, flags)], capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_the_manual_lists_every_setting():
    text = (ROOT / "conf" / "README.md").read_text()
    sections = {title: body for title, body in (part.split("\n", 1) for part in text.split("\n## ")[1:])}
    for name in SERVICES:
        printed = subprocess.run([BUILD / "bin" / f"ts-{name}", "--print-conf"], capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout
        keys = [line.split()[0] for line in printed.splitlines()[1:-1]]
        section = next(body for title, body in sections.items() if name in title.split())
        assert keys == [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")], name


def test_experiments_say_what_is_missing(tmp_path):
    drawing = [ROOT / "scripts/plot-simulation", "run.json", "out.svg"]
    done = subprocess.run(["/usr/bin/python3", "-B", "-S", *drawing], capture_output=True, text=True, cwd=tmp_path, check=False)  # without Debian's packages
    assert done.returncode == 1 and done.stderr == "matplotlib draws the pictures and is missing: scripts/setup --experiments installs it\n"
    (tmp_path / "matplotlib.py").touch()
    done = subprocess.run(["/usr/bin/python3", "-B", ROOT / "scripts/experiments/optimum"], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(tmp_path), "TS_BUILD": str(tmp_path)})
    assert done.returncode == 1 and done.stderr == f"{tmp_path}/bin/tsctl is missing: scripts/run or scripts/test build it\n"
