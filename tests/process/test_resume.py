"""A stream that another router began: what a resumed request may bring, said on the wire by hand."""

import struct

import harness

harness.use_python_client()

import pytest
import zmq
from harness import Cluster
from thunderserve._wire import ts_common_pb2 as common
from thunderserve._wire.ts_envelope_pb2 import Envelope

PROMPT = [1, 2, 3, 4, 5]
STOP = common.FINISH_STOP
LENGTH = common.FINISH_LENGTH


def ask(socket, request_id, max_tokens, produced=(), stops=()):
    """Sends a Generate; returns the tokens that came, the index of the first, and the End."""
    message = Envelope(version=1, incarnation=7)
    g = message.generate
    g.client, g.request_id, g.digest, g.prompt_kind = "by-hand", request_id, 1, common.PROMPT_KIND_TOKENS
    g.sampling.temperature, g.sampling.given = 0, 1
    g.sampling.max_tokens, g.sampling.ignore_eos = max_tokens, True
    g.next_index = len(produced)
    g.produced.extend(produced)
    for text in stops:
        g.stops.add(text=text.encode())
    socket.send_multipart([message.SerializeToString(), struct.pack(f"<{len(PROMPT)}I", *PROMPT)])
    tokens, first, text = [], None, b""
    while True:
        assert socket.poll(20000), "no answer"
        body = Envelope.FromString(socket.recv())
        kind = body.WhichOneof("body")
        if kind == "tokens":
            first = body.tokens.first_index if first is None else first
            tokens += [item.token for item in body.tokens.items]
            text += b"".join(item.text for item in body.tokens.items)
        elif kind == "end":
            return tokens, first, text.decode(), body.end
        else:
            assert kind == "accepted"


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def socket(cluster):
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(cluster.router)
        yield socket


def test_goes_on_where_it_was(socket):
    whole, first, _, end = ask(socket, "whole", 20)
    assert (len(whole), first, end.finish) == (20, 0, LENGTH)
    rest, first, _, end = ask(socket, "rest", 20, produced=whole[:8])
    assert (rest, first, end.finish, end.next_index) == (whole[8:], 8, LENGTH, 20)


def test_complete_by_length_adds_nothing(socket):
    whole, _, _, _ = ask(socket, "long", 10)
    rest, _, _, end = ask(socket, "long again", 10, produced=whole)
    assert (rest, end.finish, end.next_index) == ([], LENGTH, 10)


def test_complete_by_stop_adds_nothing(cluster, socket):
    _, _, text, _ = ask(socket, "text", 30)
    stop = text[8:10]
    whole, _, _, end = ask(socket, "stopped", 30, stops=[stop])
    assert end.finish == STOP and len(whole) < 30
    # The second one has a token too many: the stream ended before it.
    for number, produced in enumerate((whole, whole + whole[:1])):
        rest, _, _, end = ask(socket, f"stopped again {number}", 30, produced=produced, stops=[stop])
        assert (rest, end.finish, end.next_index) == ([], STOP, len(produced))
    assert all(s["pid"] == cluster.pid(s["id"]) for s in cluster.status()["services"]), "a service was started again"
    assert ask(socket, "after all", 3)[3].finish == LENGTH
