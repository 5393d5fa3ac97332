"""The C and the Python client against real services and against a router that misbehaves: the same calls, the same tokens, one stream
without gap or repeat whatever happens."""

import json
import os
import socket
import subprocess
import threading
import time

import pytest

import harness
from harness import BUILD, DEMO, ROOT, TSCTL, Cluster, engine, free_ports, random_requests, run

harness.use_python_client()

import thunderserve
from fake_router import FakeRouter, text_of
from thunderserve._wire import ts_common_pb2 as common
from thunderserve._wire.ts_envelope_pb2 import Envelope

PROMPT = "First Citizen:"
VOCAB = json.load(open(os.path.join(DEMO, "config.json")))["vocab_size"]
GREEDY = {"max_tokens": 40, "temperature": 0.0, "seed": 1}


@pytest.fixture(scope="module")
def cluster():
    with Cluster("--codec", "none") as started:
        yield started


@pytest.fixture
def client(cluster):
    with thunderserve.Client(cluster.router) as opened:
        yield opened


def flags_of(options):
    flags = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        flags += [flag] if value is True else [flag, ",".join(value) if isinstance(value, list) else value]
    return flags


def c_generate(routers, *flags, check=True):
    done = run("generate", "--router", ",".join(routers), "--json", *flags, check=check, timeout=60)
    return json.loads(done.stdout)


# --- against real services


def test_blocking_equals_the_c_client_and_one_process(cluster, client):
    options = {**GREEDY, "logprobs": 3}
    got = client.generate(PROMPT, **options)
    want = cluster.generate("--prompt", PROMPT, *flags_of(options))
    alone = json.loads(run("engine", "--model", DEMO, "--json", "--prompt", PROMPT, *flags_of(options)).stdout)
    assert got.ids == want["tokens"] == alone["tokens"] and len(got.ids) == 40
    assert got.text == want["text"] == alone["text"]
    for token, c in zip(got.tokens, want["logprobs"]):
        assert token.token == c["token"] and token.logprob == pytest.approx(c["logprob"])
        assert [t for t, _ in token.top] == [t["token"] for t in c["top"]]
    assert got.finish == "length" and got.error == "" and got.prompt_tokens == want["prompt_tokens"] > 0
    assert (got.codec, got.prefill, got.relay, got.decode) == ("none", "prefill0", "relay0", "decode0")
    assert got.kv_bytes_raw == want["kv_bytes_raw"] > 0 and got.attempts == 1
    assert 0 < got.ttft_ms and got.gap01_ms <= got.max_gap_ms and got.tpot_ms > 0


def test_stream_of_tokens(client):
    stream = client.stream(PROMPT, **GREEDY)
    tokens = list(stream)
    assert [t.index for t in tokens] == list(range(40))
    assert tokens == stream.result.tokens == client.generate(PROMPT, **GREEDY).tokens
    assert stream.result.text == "".join(t.text for t in tokens) and stream.ended
    assert client.poll(0) is None


def test_many_streams_at_once(client):
    received, receive = [], client._receive
    client._receive = lambda data: (received.append(Envelope.FromString(data)), receive(data))
    requests = random_requests(5, 20, VOCAB, prompt=(1, 80), output=(4, 16))
    streams = [client.stream(r["tokens"], **{k: v for k, v in r.items() if k != "tokens"}) for r in requests]
    seen, ended = {id(s): [] for s in streams}, set()
    while event := client.poll(60):
        stream, token = event
        assert id(stream) not in ended
        if token is None:
            ended.add(id(stream))
        else:
            assert token.index == len(seen[id(stream)])
            seen[id(stream)].append(token.token)
    assert len(ended) == len(streams)
    batches = [m.tokens_batch.streams for m in received if m.WhichOneof("body") == "tokens_batch"]
    assert max(len(streams_of_one) for streams_of_one in batches) > 1  # the router sends what comes in one step at once
    for stream, want in zip(streams, engine(requests, "--threads", 1)):
        assert seen[id(stream)] == stream.result.ids == want["tokens"] and stream.result.finish == want["finish_reason"]


def test_sampling_options_reach_the_engine(client):
    options = {"max_tokens": 30, "temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1,
               "presence_penalty": 0.1, "frequency_penalty": 0.2, "seed": 77, "min_tokens": 2, "stop": ["ing"], "ignore_eos": True}
    alone = json.loads(run("engine", "--model", DEMO, "--json", "--prompt", PROMPT, *flags_of(options)).stdout)
    got = client.generate(PROMPT, **options)
    assert (got.ids, got.text, got.finish) == (alone["tokens"], alone["text"], alone["finish_reason"])
    with pytest.raises(TypeError, match="temperatur'"):
        client.stream(PROMPT, temperatur=1)


def test_one_digest(cluster):
    """What one client started the other attaches to; another body under the same id is refused."""
    options = {"max_tokens": 20, "temperature": 0.7, "top_k": 5, "seed": 9, "stop": ["zz", "\u00e9"], "min_tokens": 1, "logprobs": 1,
               "ignore_eos": True, "codec": "none", "presence_penalty": -0.0}
    with thunderserve.Client(cluster.router, client="c") as client:
        got = client.generate("d\u00e9j\u00e0 vu", request_id="text", **options)
        same = ["--client", "c", "--request-id", "text", "--prompt", "d\u00e9j\u00e0 vu"]
        assert cluster.generate(*same, *flags_of(options))["tokens"] == got.ids
        other = c_generate([cluster.router], *same, *flags_of({**options, "seed": 10}), check=False)
        assert other["reason"] == "id_conflict"
        ids = cluster.generate("--client", "c", "--request-id", "ids", "--tokens", "1,2,300", "--max-tokens", 5, "--seed", 3)["tokens"]
        assert client.generate([1, 2, 300], request_id="ids", max_tokens=5, seed=3).ids == ids
        with pytest.raises(thunderserve.RequestFailed, match="id_conflict"):
            client.generate([1, 2, 301], request_id="ids", max_tokens=5, seed=3)


def test_cancel_deadline_and_timeout(cluster, client):
    stream = client.stream(PROMPT, max_tokens=1900, ignore_eos=True)
    next(stream)
    stream.cancel()
    assert len(list(stream)) < 1899 and stream.result.finish == "cancelled"
    assert client.generate(PROMPT, max_tokens=1900, ignore_eos=True, deadline_ms=30).finish == "deadline"
    with pytest.raises(TimeoutError):
        client.generate(PROMPT, max_tokens=1900, ignore_eos=True, timeout=0.05)
    cluster.settle()


def test_refusals_say_why(cluster, client):
    with pytest.raises(thunderserve.RequestFailed, match="3000.*2048") as failed:
        client.generate([5] * 3000)
    assert failed.value.result.reason == "prompt_too_long"
    with pytest.raises(thunderserve.RequestFailed, match="model_unknown"):
        client.generate(PROMPT, model="nobody")
    with pytest.raises(thunderserve.RequestFailed, match="bad_request"):
        list(client.stream(""))
    with pytest.raises(thunderserve.Error, match="tcp://HOST:PORT"):
        thunderserve.Client("localhost")
    with pytest.raises(thunderserve.Error, match="at least one"):
        thunderserve.Client([])


def test_examples(cluster):
    """Everything a newcomer copies works as it stands."""
    env = {**os.environ, "PYTHONPATH": str(BUILD / "python")}
    want = json.loads(run("engine", "--model", DEMO, "--json", "--prompt", PROMPT, *flags_of(GREEDY)).stdout)["text"] + "\n"
    call = lambda *args: subprocess.run([*map(str, args)], capture_output=True, text=True, timeout=60, check=True, env=env)
    assert call(BUILD / "examples" / "generate", cluster.router, PROMPT).stdout == want
    python = call("/usr/bin/python3", "-B", ROOT / "common/client/python/examples/stream.py", cluster.router, PROMPT)
    assert python.stdout == want and python.stderr.startswith("40 tokens")
    lines = call(BUILD / "examples" / "stream", cluster.router, "ROMEO:", "To be").stdout
    assert lines.count("ROMEO: [") == 20 == lines.count("To be [") and lines.count(" -> ") == 2


# --- against a router that misbehaves; each script is played to both clients


def python_generate(routers, prompt="hello", **options):
    with thunderserve.Client(routers, silence_ms=600) as client:
        result = client.generate(prompt, timeout=40, **options)
        return {"tokens": result.ids, "text": result.text, "finish_reason": result.finish}


def both(play):
    """Runs the test once with each client."""
    def c(routers, **options):
        return c_generate(routers, "--prompt", "hello", *flags_of(options))
    return pytest.mark.parametrize("generate", [python_generate, c], ids=["python", "c"])(play)


def good(result, count):
    assert result["tokens"] == [100 + i for i in range(count)] and result["text"] == text_of(count) and result["finish_reason"] == "length"


@both
def test_resumes_at_the_next_router(generate):
    def first(router, peer, ask):
        router.accept(peer, ask)
        router.tokens(peer, ask, 0, 5)
        router.silent = True

    def second(router, peer, ask):
        router.accept(peer, ask)
        router.tokens(peer, ask, ask.next_index, 12)
        router.end(peer, ask, 12)

    with FakeRouter(first, 11) as a, FakeRouter(second, 22) as b:
        good(generate([a.endpoint, b.endpoint], max_tokens=12, seed=4), 12)
        (before, prompt), (after, again) = a.asked[0], b.asked[-1]
        assert prompt == again == b"hello"
        assert (before.next_index, before.resume_epoch, list(before.produced)) == (0, 0, [])
        assert (after.next_index, after.resume_epoch, list(after.produced)) == (5, 11, [100, 101, 102, 103, 104])
        assert after.digest == before.digest and after.request_id == before.request_id and after.sampling == before.sampling


@both
def test_what_is_named_is_marked(generate):
    """Zero is a value like others; what is not named is not on the wire."""

    def script(router, peer, ask):
        router.accept(peer, ask)
        router.tokens(peer, ask, 0, 1)
        router.end(peer, ask, 1)

    names = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"]
    with FakeRouter(script, 5) as router:
        for options in [{}, *({name: 1} for name in names), {"temperature": 0, "top_k": 0, "min_p": 0}]:
            good(generate([router.endpoint], max_tokens=1, seed=4, **options), 1)
            sampling = router.asked[-1][0].sampling
            assert sampling.given == sum(1 << names.index(name) for name in options)
            assert [getattr(sampling, name) for name in names] == [options.get(name, 0) for name in names]
    with thunderserve.Client("tcp://127.0.0.1:9") as client, pytest.raises(TypeError, match="'given'"):
        client.stream("x", given=3)


@both
def test_a_restarted_router_gets_the_stream_back(generate):
    routers = []

    def dying(router, peer, ask):
        router.accept(peer, ask)
        router.tokens(peer, ask, 0, 3)
        router.stopped = True

    def reborn(router, peer, ask):
        router.accept(peer, ask)
        router.tokens(peer, ask, ask.next_index, 6)
        router.end(peer, ask, 6)

    with FakeRouter(dying, 1) as first:
        def restart():
            first.thread.join()
            routers.append(FakeRouter(reborn, 2, first.endpoint))

        restarter = threading.Thread(target=restart)
        restarter.start()
        good(generate([first.endpoint], max_tokens=6), 6)
        restarter.join()
        with routers[0] as second:
            assert (second.asked[-1][0].next_index, second.asked[-1][0].resume_epoch) == (3, 1)


@both
def test_repeats_gaps_and_strangers(generate):
    def script(router, peer, ask):
        router.accept(peer, ask)
        if len(router.asked) == 1:
            router.socket.send_multipart([peer, b"\xff\xff not a message"])
            router.tokens(peer, ask, 0, 4)
            router.tokens(peer, ask, 0, 4)
            router.tokens(peer, ask, 2, 5)
            router.tokens(peer, ask, 5, 9, epoch=99, wrong=50)
            router.end(peer, ask, 5, epoch=99)
            router.tokens(peer, ask, 7, 9)  # 5 and 6 were lost
        elif len(router.asked) == 2:
            assert ask.next_index == 5
            router.tokens(peer, ask, 4, 8)
            router.end(peer, ask, 10)  # 8 and 9 were lost
        else:
            assert ask.next_index == 8
            router.tokens(peer, ask, 8, 10)
            router.end(peer, ask, 10)
            router.end(peer, ask, 10)

    with FakeRouter(script, 5) as router:
        good(generate([router.endpoint], max_tokens=10), 10)
        assert len(router.asked) == 3


@both
def test_tokens_of_several_streams_in_one_message(generate):
    def script(router, peer, ask):
        router.accept(peer, ask)
        if len(router.asked) == 1:
            assert ask.token_batches
            router.batch(peer)
            router.batch(peer, ("stranger", 0, 9), (ask.request_id, 0, 2))
            router.batch(peer, (ask.request_id, 1, 4), ("stranger", 9, 10))
            router.batch(peer, (ask.request_id, 6, 8))  # 4 and 5 were lost
        else:
            assert ask.next_index == 4 and ask.digest == router.asked[0][0].digest
            router.tokens(peer, ask, 4, 6)
            router.batch(peer, (ask.request_id, 6, 8))
            router.end(peer, ask, 8)

    with FakeRouter(script, 5) as router:
        good(generate([router.endpoint], max_tokens=8), 8)
        assert len(router.asked) == 2


@both
def test_a_resumed_stream_waits_for_a_full_router(generate):
    def first(router, peer, ask):
        router.accept(peer, ask)
        router.tokens(peer, ask, 0, 2)
        router.silent = True

    def full(router, peer, ask):
        if len(router.asked) == 1:
            router.refuse(peer, ask, common.REASON_QUEUE_FULL, retry_after_ms=300)
            return
        router.accept(peer, ask)
        router.tokens(peer, ask, 2, 4)
        router.end(peer, ask, 4)

    with FakeRouter(first, 7) as a, FakeRouter(full, 8) as b:
        good(generate([a.endpoint, b.endpoint], max_tokens=4), 4)
        assert len(b.asked) == 2


@both
def test_text_may_hold_nul(generate):
    text = "\0" + "x" * 900 + "\0z"

    def script(router, peer, ask):
        router.accept(peer, ask)
        message = Envelope()
        message.tokens.request_id, message.tokens.epoch = ask.request_id, router.incarnation
        message.tokens.items.add(token=7, text=text.encode())
        router.send(peer, message)
        router.end(peer, ask, 1)

    with FakeRouter(script, 5) as router:
        assert generate([router.endpoint], max_tokens=1)["text"] == text


def test_a_refusal_at_first_is_final():
    def script(router, peer, ask):
        router.refuse(peer, ask, common.REASON_QUEUE_FULL, retry_after_ms=1500, text="later")

    with FakeRouter(script, 7) as router, thunderserve.Client(router.endpoint) as client:
        with pytest.raises(thunderserve.RequestFailed, match="queue_full: later") as failed:
            client.generate("x", timeout=10)
        assert failed.value.result.retry_after_ms == 1500
        c = c_generate([router.endpoint], "--prompt", "x", check=False)
        assert (c["reason"], c["error"], c["finish_reason"]) == ("queue_full", "later", "error")


@both
def test_a_stream_that_the_router_lost_sight_of_is_asked_for_again(generate):
    """Its connection was replaced unseen, or its End was lost: only the count in the answer to a heartbeat tells."""

    def script(router, peer, ask):
        router.accept(peer, ask)
        router.tokens(peer, ask, ask.next_index, 3)
        if len(router.asked) == 1:
            router.running = 0
        else:
            router.end(peer, ask, 3)

    with FakeRouter(script, 5) as router:
        good(generate([router.endpoint], max_tokens=3), 3)
        assert [ask.next_index for ask, _ in router.asked] == [0, 3]


def test_an_idle_program_attaches_its_streams_again():
    def script(router, peer, ask):
        router.accept(peer, ask)
        router.tokens(peer, ask, ask.next_index, 1 if len(router.asked) == 1 else 3)
        if len(router.asked) > 1:
            router.end(peer, ask, 3)

    with FakeRouter(script, 3) as router, thunderserve.Client(router.endpoint, silence_ms=60000) as client:
        stream = client.stream("x")
        assert next(stream).token == 100
        time.sleep(3.2)  # the program thinks, and polls nothing
        assert [t.token for t in stream] == [101, 102]
        assert router.asked[1][0].next_index == 1


def test_a_request_that_is_never_answered():
    with FakeRouter(lambda router, peer, ask: None, 3) as router:
        with thunderserve.Client(router.endpoint, give_up_ms=1500) as client:
            with pytest.raises(thunderserve.RequestFailed, match="bad_request: the router answers, but not to this"):
                client.generate("x", timeout=20)
        c = c_generate([router.endpoint], "--prompt", "x", "--give-up-ms", 1500, check=False)
        assert c["reason"] == "bad_request" and "not to this request" in c["error"]


@pytest.mark.parametrize("options", [{"request_id": "i" * 129}, {"model": "m" * 129}, {"stop": ["s" * 257]}, {"stop": ["s"] * 17}])
def test_requests_out_of_bounds_are_not_sent(options):
    with FakeRouter(lambda router, peer, ask: None, 3) as router:
        with thunderserve.Client(router.endpoint) as client, pytest.raises(thunderserve.Error, match="out of bounds"):
            client.stream("x", **options)
        done = run("generate", "--router", router.endpoint, "--prompt", "x", *flags_of(options), check=False)
        assert done.returncode == 1 and "out of bounds" in done.stderr and done.stderr.count("\n") == 1
        assert not router.asked


def test_numbers_are_finite():
    with thunderserve.Client("tcp://127.0.0.1:9") as client:
        for value in (float("nan"), float("inf")):
            with pytest.raises(thunderserve.Error, match="finite"):
                client.stream("x", temperature=value)


def test_nobody_answers():
    def script(router, peer, ask):
        router.silent = True

    with FakeRouter(script, 3) as router, thunderserve.Client([router.endpoint] * 2, silence_ms=200, give_up_ms=700) as client:
        started = time.monotonic()
        with pytest.raises(thunderserve.RequestFailed, match="no router answers at .* is it running"):
            client.generate("x")
        assert time.monotonic() - started < 10


def test_a_client_keeps_nothing_of_ended_streams():
    def script(router, peer, ask):
        router.accept(peer, ask)
        for i in range(4):
            router.tokens(peer, ask, i, i + 1)
        router.end(peer, ask, 4)

    with FakeRouter(script, 3) as router, thunderserve.Client(router.endpoint) as client:
        for _ in range(5):
            assert client.generate("x").text == text_of(4)
            assert len(list(client.stream("x"))) == 4
            stream = client.stream("x")
            while client.poll():
                pass
            assert stream.ended and list(stream) == []
        assert not client._streams and not client._ready


def test_closing_cancels():
    def script(router, peer, ask):
        router.accept(peer, ask)

    with FakeRouter(script, 3) as router:
        with thunderserve.Client(router.endpoint) as client:
            name = client.stream("x").request_id
            client.poll(0.2)
        until = time.monotonic() + 5
        while router.cancelled != [name]:
            assert time.monotonic() < until
            time.sleep(0.01)


# --- a real router is killed


class TwoRouters:
    """Services that know two routers. `tsctl up` starts one alone."""

    def __init__(self, folder):
        self.processes, bin_folder = {}, BUILD / "bin"
        self.routers = []

        def start(name, program, *flags):
            log = open(folder / f"{name}.log", "w")
            args = [bin_folder / f"ts-{program}", "--id", name, "--log-level", "warn", *map(str, flags)]
            self.processes[name] = subprocess.Popen(args, stdout=log, stderr=log, cwd=ROOT)

        for name in ("router0", "router1"):
            port = free_ports()
            self.routers.append(f"tcp://127.0.0.1:{port}")
            start(name, "router", "--listen", self.routers[-1], "--codec", "none")
        both_routers = ["--router", ",".join(self.routers)]
        pool = ["--relay", "relay0", "--pool", f"ipc://{folder}/relay0"]
        start("planner0", "planner", *both_routers)
        start("relay0", "relay", *both_routers, "--listen", f"ipc://{folder}/relay0")
        for phase in ("decode", "prefill"):
            start(f"{phase}0", phase, *both_routers, *pool, "--model", DEMO, "--threads", 1)
        for router in self.routers:
            self.wait(router)

    def wait(self, router):
        until = time.monotonic() + 60
        while True:
            done = run("status", "--router", router, "--json", "--timeout-ms", 500, check=False)
            if done.returncode == 0:
                status = json.loads(done.stdout)
                if sum(s["ready"] for s in status["services"]) == 5:
                    return
            assert time.monotonic() < until, done.stdout + done.stderr
            time.sleep(0.05)

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_streams_outlive_their_router(tmp_path):
    requests = random_requests(21, 8, VOCAB, prompt=(4, 40), output=(300, 400))
    path = harness.requests_file(requests[:4])
    with TwoRouters(tmp_path) as cloud, thunderserve.Client(cloud.routers, silence_ms=1000) as client:
        with subprocess.Popen([TSCTL, "generate", "--router", ",".join(cloud.routers), "--requests", path], stdout=subprocess.PIPE,
                              text=True, cwd=ROOT) as c:
            streams = [client.stream(r["tokens"], **{k: v for k, v in r.items() if k != "tokens"}) for r in requests[4:]]
            while not all(s.result.tokens for s in streams):
                assert client.poll(60)
            under_way = sum(not s.ended for s in streams)
            cloud.kill("router0")
            while client.poll(120):
                pass
            c_results = [json.loads(line) for line in c.communicate(timeout=120)[0].splitlines()]
    os.unlink(path)
    assert under_way >= 2
    want = engine(requests, "--threads", 1)
    for stream, w in zip(streams, want[4:]):
        assert stream.result.finish == w["finish_reason"], stream.result.error
        assert stream.result.ids == w["tokens"] and stream.result.text == w["text"]
    harness.same_tokens(c_results, want[:4])
