"""The same KV by others: Mooncake's transfer engine and NIXL over TCP, between two processes, on loopback or on the two sides of a Net.

Their wheels go into build/peers, beside libraries of Debian that they want and that need not be installed. measure() returns MB/s of
16-bit KV; NotRun says why there is no figure. As a program it is one of the two processes: relay_peers.py PEER receive|send.
"""

import base64
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ADDRESSES = {"receive": "127.0.0.1", "send": "127.0.0.1"}
PEERS = {
    "mooncake": ["mooncake-transfer-engine-non-cuda==0.3.13.post1"],
    "nixl": ["nixl==1.5.1", "nixl-cu12==1.5.1", "numpy", "msgpack"],
}
DEBIAN = {"mooncake": ["libibverbs1", "libnl-3-200", "libnl-route-3-200"], "nixl": []}
TOKEN_BYTES = 12 * 12 * 64 * 2 * 2  # as ts-relay-bench: 110 M parameters
PIECES = [512 * TOKEN_BYTES // 12, 16 << 20]  # a chunk of ours; large ones. The better one counts
REPEATS = 3


class NotRun(Exception):
    """Why a peer was not measured, in one line."""


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no word of it"


def install(folder, peer):
    """Its wheels and libraries, once. Returns (python, environment)."""
    home = folder / peer
    python, done = home / "venv" / "bin" / "python", home / "done"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        steps = [[sys.executable, "-m", "venv", str(home / "venv")],
                 [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *PEERS[peer]]]
        if DEBIAN[peer]:
            steps.append(["apt-get", "download", "-q", *DEBIAN[peer]])
        for step in steps:
            ran = subprocess.run(step, cwd=home, capture_output=True, text=True)
            if ran.returncode != 0:
                raise NotRun(f"{' '.join(step[:3])}: {last_line(ran.stderr)}")
        for package in home.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(home / "root")], check=True)
        done.touch()
    libraries = ":".join(str(path) for lib in ("lib", "usr/lib") for path in (home / "root" / lib).glob("*-linux-gnu"))
    return python, {**os.environ, "LD_LIBRARY_PATH": libraries, "UCX_TLS": "tcp", "PYTHONDONTWRITEBYTECODE": "1"}


class Process:
    """One of the two. Its errors go to a file: what its libraries print may be long."""

    def __init__(self, args, env):
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.run = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=env)

    def fault(self):
        self.errors.seek(0)
        return NotRun(f"it ended: {last_line(self.errors.read())}")

    def tell(self, words):
        try:
            self.run.stdin.write(words + "\n")
            self.run.stdin.flush()
        except BrokenPipeError:
            raise self.fault() from None

    def answer(self):
        """The next line of JSON that it says, among whatever its libraries print."""
        while line := self.run.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        raise self.fault()

    def end(self):
        self.run.kill()
        self.run.wait()


def measure(folder, peer, net, tokens):
    """MB/s from the sending to the receiving side; net = None is loopback."""
    import shaped

    python, env = install(folder, peer)
    sides = {"send": "a", "receive": "b"}
    processes = {}
    try:
        for role, side in sides.items():
            address = shaped.ADDRESS[side] if net else ADDRESSES[role]
            args = [str(python), __file__, peer, role, address, str(tokens * TOKEN_BYTES)]
            device = {"UCX_NET_DEVICES": shaped.DEVICE if net else "lo"}
            processes[role] = Process(net.inside(side, args) if net else args, {**env, **device})
        processes["send"].tell(json.dumps(processes["receive"].answer()))
        rate = processes["send"].answer()["mb_per_s"]
        processes["receive"].tell("done")
        if not processes["receive"].answer()["whole"]:
            raise NotRun("the bytes that arrived are not those that were sent")
        return rate
    finally:
        for process in processes.values():
            process.end()


# --- the processes ---------------------------------------------------------------------------------------------------------------


def buffer(size, value):
    data = bytearray(bytes([value])) * size
    return data, ctypes.addressof((ctypes.c_char * size).from_buffer(data))


def say(**words):
    print(json.dumps(words), flush=True)


def best(size, move):
    """move(piece) sends all of it. MB/s of the better piece, as the median of its repeats."""
    medians = []
    for piece in PIECES:
        rates = []
        move(piece)  # connects, and touches the memory
        for _ in range(REPEATS):
            begin = time.monotonic()
            move(piece)
            rates.append(size / (time.monotonic() - begin) / 1e6)
        medians.append(sorted(rates)[REPEATS // 2])
    return max(medians)


def spans(size, piece):
    return [(at, min(piece, size - at)) for at in range(0, size, piece)]


def mooncake(role, address, size):
    from mooncake.engine import TransferEngine

    engine = TransferEngine()
    if engine.initialize(address, "P2PHANDSHAKE", "tcp", "") != 0:
        raise SystemExit("initialize failed")
    data, at = buffer(size, 0 if role == "receive" else 7)
    engine.register_memory(at, size)
    if role == "receive":
        say(host=f"{address}:{engine.get_rpc_port()}", at=at)
        sys.stdin.readline()
        say(whole=data.count(7) == size)
        return
    target = json.loads(sys.stdin.readline())

    def move(piece):
        parts = spans(size, piece)
        if engine.batch_transfer_sync_write(target["host"], [at + begin for begin, _ in parts], [target["at"] + begin for begin, _ in parts],
                                            [length for _, length in parts]) != 0:
            raise SystemExit("a transfer failed")

    say(mb_per_s=best(size, move))


def nixl(role, address, size):
    from nixl._api import nixl_agent, nixl_agent_config

    agent = nixl_agent(role, nixl_agent_config(backends=["UCX"]))
    data, at = buffer(size, 0 if role == "receive" else 7)
    agent.register_memory(agent.get_reg_descs([(at, size, 0, "")], "DRAM"))
    if role == "receive":
        say(metadata=base64.b64encode(agent.get_agent_metadata()).decode(), at=at)
        sys.stdin.readline()
        say(whole=data.count(7) == size)
        return
    target = json.loads(sys.stdin.readline())
    remote = agent.add_remote_agent(base64.b64decode(target["metadata"]))

    def move(piece):
        near, far = ([(base + begin, length, 0) for begin, length in spans(size, piece)] for base in (at, target["at"]))
        handle = agent.initialize_xfer("WRITE", agent.get_xfer_descs(near, "DRAM"), agent.get_xfer_descs(far, "DRAM"), remote, b"x")
        state = agent.transfer(handle)
        while state not in ("DONE", "ERR"):
            time.sleep(0.0002)
            state = agent.check_xfer_state(handle)
        if state == "ERR":
            raise SystemExit("a transfer failed")
        agent.release_xfer_handle(handle)

    say(mb_per_s=best(size, move))


if __name__ == "__main__":
    {"mooncake": mooncake, "nixl": nixl}[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
