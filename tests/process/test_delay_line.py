"""The wire that the tests of slow links stand on does what it is asked: delay, jitter, loss, bytes, order, bounds, and no trace of it."""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import shaped
from shaped import ADDRESS, LINE, NAMESPACES, Missing

PORT = 4000
MIB = 1 << 20
SO_RCVBUFFORCE = 33  # of Linux; Python does not name it

def draws(**flags):
    """[direction][packet] -> whether it passes and how much later it comes, in us."""
    args = [text for flag, value in flags.items() for text in (f"--{flag.replace('_', '-')}", str(value))]
    lines = subprocess.run([LINE, *args], capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    words = [line.split() for line in lines]
    return [[(w[2] == "passes", int(w[3])) for w in words if w[0] == str(d)] for d in range(2)]

def connect(net):
    """A TCP connection from a to b: (sender, receiver)."""
    listener = net.socket("b", socket.SOCK_STREAM)
    listener.bind((ADDRESS["b"], PORT))
    listener.listen(1)
    sender = net.socket("a", socket.SOCK_STREAM)
    sender.settimeout(60)
    sender.connect((ADDRESS["b"], PORT))
    receiver = listener.accept()[0]
    receiver.settimeout(60)
    listener.close()
    return sender, receiver

def datagrams(net):
    """Connected sockets (sender at a, receiver at b) whose queue holds all that a test sends."""
    pair = net.socket("a", socket.SOCK_DGRAM), net.socket("b", socket.SOCK_DGRAM)
    for s, side in zip(pair, "ab"):
        s.bind((ADDRESS[side], PORT))
        s.settimeout(60)
        s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * MIB)
    pair[0].connect((ADDRESS["b"], PORT))
    pair[1].connect((ADDRESS["a"], PORT))
    return pair

def transfer(net, data):
    """Sends it from a to b. Returns (what arrived, seconds)."""
    sender, receiver = connect(net)
    begin = time.monotonic()

    def send():
        sender.sendall(data)
        sender.close()

    thread = threading.Thread(target=send)
    thread.start()
    got = bytearray()
    while part := receiver.recv(MIB):
        got += part
    seconds = time.monotonic() - begin
    thread.join()
    receiver.close()
    return bytes(got), seconds

def test_fates_follow_from_the_seed():
    flags = {"draws": 20000, "delay_us": 5000, "jitter_us": 2000, "loss_ppm": 10000}
    first = draws(seed=7, **flags)
    assert first == draws(seed=7, **flags)
    assert first[0] != first[1] and first != draws(seed=8, **flags)
    for direction in first:
        lost = sum(not passes for passes, _ in direction)
        assert 140 <= lost <= 260, lost  # 200 +- 4.3 standard deviations
        extra = [us for _, us in direction]
        assert min(extra) >= -2000 and max(extra) <= 2000
        assert -60 <= sum(extra) / len(extra) <= 60  # 0 +- 7

def test_wrong_flags_are_refused():
    for args in [[], ["--netns-a", "x"], ["--draws", "1", "--loss-ppm", "1000001"], ["--draws", "1", "--jitter-us", "1"], ["--draws", "-1"]]:
        assert subprocess.run([LINE, *args], capture_output=True, timeout=20).returncode == 2, args
    done = subprocess.run([LINE, "--netns-a", "ts-none", "--netns-b", "ts-none"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "ts-none" in done.stderr

@pytest.mark.parametrize("delay,jitter", [(1, 0), (10, 0), (50, 0), (10, 5)])
def test_round_trips_take_the_delay_twice(delay, jitter):
    with shaped.net(delay=delay, jitter=jitter, rate="1gbit") as net:
        near, far = datagrams(net)
        trips = []
        for i in range(20):
            begin = time.monotonic()
            near.send(i.to_bytes(4, "little"))
            far.send(far.recv(64))
            assert near.recv(64) == i.to_bytes(4, "little")
            trips.append(1e3 * (time.monotonic() - begin))
    trips.sort()
    print(f"round trips over {delay} +- {jitter} ms: {trips[0]:.2f} to {trips[-1]:.2f} ms, median {trips[10]:.2f}")
    assert trips[0] >= 2 * (delay - jitter)
    assert trips[5] <= 2 * delay + 5, trips  # a busy machine wakes late, but not each time
    if jitter:
        assert trips[-1] - trips[0] >= jitter / 2, trips

def test_those_are_lost_that_were_drawn():
    count, loss = 4000, 0.01
    with shaped.net(delay=1, loss=loss, seed=5) as net:
        near, far = datagrams(net)
        for i in range(count):
            near.send(i.to_bytes(4, "little") * 50)
            if i % 100 == 99:
                time.sleep(0.001)
        far.settimeout(2)
        got = []
        while not got or got[-1] < count - 1:
            try:
                data = far.recv(2048)
            except TimeoutError:
                break
            assert data == data[:4] * 50
            got.append(int.from_bytes(data[:4], "little"))
        counts = net.close_line()
    fates = draws(seed=5, delay_us=1000, loss_ppm=round(loss * 1e6), draws=count)[0]
    assert got == [i for i, (passes, _) in enumerate(fates) if passes]
    assert counts[0]["seen"] == count and counts[0]["lost"] == count - len(got) and counts[0]["passed"] == len(got)
    assert counts[1]["seen"] == 0

@pytest.mark.parametrize("delay,loss", [(0, 0), (1, 0.01), (10, 0.01)])
def test_bytes_arrive_as_they_were_sent(delay, loss):
    size = MIB if delay == 10 else 8 * MIB
    data = random.Random(3).randbytes(size)
    with shaped.net(delay=delay, loss=loss, rate="1gbit") as net:
        got, seconds = transfer(net, data)
    print(f"{size / MIB:.0f} MiB over {delay} ms, loss {loss}: {size / seconds / 1e6:.1f} MB/s")
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()

def test_the_line_carries_more_than_the_links_that_it_stands_for():
    """100 Mbit/s, on a machine where other tests run. It does 1 Gbit/s when it has a core."""
    data = bytes(16 * MIB)
    with shaped.net(delay=0.1) as net:
        _, seconds = transfer(net, data)
    print(f"without a rate: {len(data) / seconds / 1e6:.0f} MB/s")
    assert len(data) / seconds > 12.5e6

@pytest.mark.parametrize("rate,bytes_per_s", [("1gbit", 125e6), ("100mbit", 12.5e6)])
def test_a_rate_is_not_exceeded(rate, bytes_per_s):
    data = bytes(int(bytes_per_s / 4))
    with shaped.net(rate=rate) as net:
        _, seconds = transfer(net, data)
        sent = net.sent_bytes("a")
    print(f"{rate}: {len(data) / seconds / 1e6:.1f} MB/s of payload")
    assert sent >= len(data)
    assert len(data) / seconds <= 1.15 * bytes_per_s  # tbf lets a burst pass at once
    assert len(data) / seconds >= 0.5 * bytes_per_s

def test_a_full_queue_drops_and_counts():
    count, queue = 1000, 100
    with shaped.net(delay=300, queue=queue) as net:
        near, far = datagrams(net)
        for i in range(count):
            near.send(i.to_bytes(4, "little"))
        far.settimeout(1)
        got = 0
        try:
            while True:
                far.recv(64)
                got += 1
        except TimeoutError:
            pass
        counts = net.close_line()[0]
    assert counts["seen"] == count and counts["dropped"] == count - got and counts["passed"] == got
    assert queue <= got < count

def test_nothing_is_left_of_a_net():
    with shaped.net(rate="1gbit") as net:
        names = list(net.names.values())
        sleeper = net.start("a", ["sleep", "600"])
        stray = net.start("b", ["sh", "-c", "sleep 600 & wait"])
        other = net.start("b", ["sleep", "600"])
        assert net.stop(other) == -signal.SIGTERM
        assert sleeper.poll() is None and stray.poll() is None
        assert all((NAMESPACES / name).exists() for name in names)
    assert sleeper.poll() is not None and stray.poll() is not None
    assert not any((NAMESPACES / name).exists() for name in names)

KILLED = """
import shaped, sys, time
net = shaped.Net(delay=1)
net.start("a", ["sleep", "600"])
net.start("b", ["sh", "-c", "sleep 600 & echo; wait"])
print(*net.names.values(), flush=True)
time.sleep(600)
"""

def test_a_killed_run_is_swept_away():
    shaped.net().close()  # or skips
    owner = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, cwd=os.path.dirname(__file__))
    try:
        names = next(line.split() for line in owner.stdout if line.strip())
        assert all(name not in shaped.sweep() for name in names), "its owner lives"
    finally:
        owner.kill()
        owner.wait()
    assert all((NAMESPACES / name).exists() for name in names)
    with shaped.net() as net:
        assert not any((NAMESPACES / name).exists() for name in names)
        assert all((NAMESPACES / name).exists() for name in net.names.values())

def has_rights():
    """CAP_NET_ADMIN and CAP_SYS_ADMIN in effect."""
    with open("/proc/self/status") as status:
        mask = int(next(line.split()[1] for line in status if line.startswith("CapEff:")), 16)
    return os.geteuid() == 0 and mask >> 12 & 1 and mask >> 21 & 1


def test_with_rights_and_features_nothing_skips():
    """So a skip of the tests of slow links is the machine's, never a mistake of theirs."""
    for wire in ({"rate": "1gbit"}, {"rate": "1gbit", "delay": 1}):
        try:
            shaped.Net(**wire).close()
        except Missing as reason:
            without = "veth" in str(reason) or "tbf" in str(reason) or not os.path.exists(shaped.TUN)
            assert not has_rights() or (str(reason).startswith("no-kernel-feature") and without), reason


def test_what_skips_and_what_fails(monkeypatch):
    """No rights and no such feature of the kernel skip; anything else is a failure, never a skip."""
    assert shaped.missing("RTNETLINK answers: Operation not permitted").startswith("no-privilege ")
    assert shaped.missing("Error: Unknown device type.").startswith("no-kernel-feature ")
    assert shaped.missing("Error: Specified qdisc kind is unknown.").startswith("no-kernel-feature ")
    assert shaped.missing("RTNETLINK answers: File exists") is None
    with pytest.raises(AssertionError):
        shaped.call("ip", "link", "no-such-word")
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    with pytest.raises(Missing, match="^no-privilege "):
        shaped.Net()
