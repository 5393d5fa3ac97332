"""The client itself: the same rules as common/client/ts_client.c, which says why.

A request is known by (client, request id, digest of its body) and may be sent any number of times. The router answers with Accepted{epoch},
then Tokens with the index of their first item (those of several streams in one TokensBatch), then one End. What carries another epoch than the last Accepted is of an earlier router and
dropped; what is already there is dropped; a gap is closed by sending the request again with the tokens so far.
"""

import collections
import dataclasses
import hashlib
import math
import secrets
import time

import zmq
from google.protobuf.message import DecodeError

from ._wire import ts_common_pb2 as common
from ._wire.ts_envelope_pb2 import Envelope

PROTOCOL_VERSION = 1
HEARTBEAT_S = 1.0
RESEND_S = 2.0  # an unanswered request is sent again after that long
LAPSE_S = 3.0  # not polled for that long: the router may have let our streams go
TURN_S = 0.2
FRAME_BYTES_MAX = 256 << 20
QUEUE_MESSAGES = 100000
ID_BYTES_MAX, STOP_BYTES_MAX, STOPS_MAX = 128, 256, 16
MODEL_DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")  # the model's when absent; order of the bits of `given`


class Error(Exception):
    """Any failure that the client reports."""


class RequestFailed(Error):
    """The router refused the request, or it ended with an error; `result` says why and holds what came before."""

    def __init__(self, result):
        super().__init__(f"{result.reason}: {result.error}" if result.error else result.reason)
        self.result = result


@dataclasses.dataclass(frozen=True)
class Token:
    index: int
    token: int
    text: str  # what this token adds; may be empty
    logprob: float
    top: tuple  # of (token, logprob), as many as `logprobs` asked for


@dataclasses.dataclass
class Result:
    """All of a stream; complete once it has ended. Times are measured here, None = not defined for so few tokens."""

    request_id: str
    seed: int
    tokens: list = dataclasses.field(default_factory=list)  # of Token
    finish: str = ""  # "stop", "length", "cancelled", "deadline", "error"
    reason: str = "none"
    error: str = ""
    retry_after_ms: int = 0
    ttft_ms: float = None
    tpot_ms: float = None
    gap01_ms: float = None
    max_gap_ms: float = None
    prompt_tokens: int = 0
    attempts: int = 0
    kv_bytes_raw: int = 0
    kv_bytes_sent: int = 0
    codec: str = ""
    codec_why: str = ""
    prefill: str = ""
    relay: str = ""
    decode: str = ""

    @property
    def text(self):
        return "".join(token.text for token in self.tokens)

    @property
    def ids(self):
        return [token.token for token in self.tokens]


def _word(enum, prefix, value):
    known = enum.DESCRIPTOR.values_by_number
    return known[value].name[len(prefix):].lower() if value in known else f"unknown {value}"


class Stream:
    """One request. Iterate over it for its tokens; RequestFailed is raised at the end of one that failed."""

    def __init__(self, client, request, prompt):
        self.result = Result(request.request_id, request.sampling.seed)
        self.ended = False
        self._client = client
        self._request = request
        self._prompt = prompt
        self._epoch = 0  # of the router that accepted it; 0 = none yet
        self._sent_at = self._asked_at = time.monotonic()
        self._retry_at = self._refused_at = None  # of a resumed stream that its new router has no room for
        self._arrivals = []
        self._delivered = 0
        self._end_delivered = False
        self._queued = False  # in the client's list of streams with news

    @property
    def request_id(self):
        return self.result.request_id

    def __iter__(self):
        return self

    def __next__(self):
        while self._delivered == len(self.result.tokens) and not self.ended:
            self._client._turn(TURN_S)
        token = self._take()
        if token is not None:
            return token
        if self.result.finish == "error":
            raise RequestFailed(self.result)
        raise StopIteration

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def cancel(self):
        """Asks the router to end it; the end still comes."""
        if not self.ended:
            message = Envelope()
            message.cancel.client = self._request.client
            message.cancel.request_id = self.request_id
            self._client._send(message)

    def close(self):
        """Forgets it; cancels it if it still runs."""
        self.cancel()
        self.ended = self._end_delivered = True
        self._delivered = len(self.result.tokens)
        self._leave()

    def _take(self):
        """The next token that was not handed out; None when there is none."""
        if self._delivered < len(self.result.tokens):
            self._delivered += 1
            return self.result.tokens[self._delivered - 1]
        if self.ended and not self._end_delivered:
            self._end_delivered = True
            self._leave()
        return None

    def _news(self):
        if not self._queued:
            self._queued = True
            self._client._ready.append(self)

    def _leave(self):
        self._client._streams.pop(self.request_id, None)
        if self._queued:
            self._queued = False
            self._client._ready.remove(self)

    def _ask(self):
        """Sends the request, with the tokens that are there already."""
        now = time.monotonic()
        message = Envelope()
        generate = message.generate
        generate.CopyFrom(self._request)
        if generate.remaining_ms:
            generate.remaining_ms = max(1, generate.remaining_ms - int((now - self._sent_at) * 1000))
        generate.next_index = len(self.result.tokens)
        generate.resume_epoch = self._epoch
        generate.produced.extend(self.result.ids)
        self._asked_at = now
        self._retry_at = None
        self._client._send(message, self._prompt)

    def _on_accepted(self, message):
        self._epoch = message.epoch
        self._retry_at = self._refused_at = None

    def _on_tokens(self, message):
        if message.epoch != self._epoch:
            return
        if message.first_index > len(self.result.tokens):
            self._ask()
            return
        now = time.monotonic()
        for item in message.items[len(self.result.tokens) - message.first_index:]:
            top = tuple((t.token, t.logprob) for t in item.top)
            self.result.tokens.append(Token(len(self.result.tokens), item.token, item.text.decode(errors="replace"), item.logprob, top))
            self._arrivals.append(now)
        self._news()

    def _on_end(self, message):
        if message.epoch != self._epoch:
            return
        if message.next_index > len(self.result.tokens):
            self._ask()
            return
        for name in ("prompt_tokens", "attempts", "kv_bytes_raw", "kv_bytes_sent", "codec", "codec_why", "prefill", "relay", "decode"):
            setattr(self.result, name, getattr(message.trace, name))
        self._finish(_word(common.Finish, "FINISH_", message.finish), _word(common.Reason, "REASON_", message.reason), message.text)

    def _on_refused(self, message):
        now = time.monotonic()
        if self._epoch and message.retry_after_ms:
            self._refused_at = self._refused_at or now
            self._retry_at = now + message.retry_after_ms / 1000
            if now - self._refused_at <= self._client._give_up_s:
                return
        self.result.retry_after_ms = message.retry_after_ms
        self._finish("error", _word(common.Reason, "REASON_", message.reason), message.text)

    def _finish(self, finish, reason, words):
        result, at = self.result, self._arrivals
        result.finish, result.reason, result.error = finish, reason, words
        if at:
            result.ttft_ms = (at[0] - self._sent_at) * 1000
        if len(at) > 1:
            result.tpot_ms = (at[-1] - at[0]) / (len(at) - 1) * 1000
            result.gap01_ms = (at[1] - at[0]) * 1000
            result.max_gap_ms = max(b - a for a, b in zip(at, at[1:])) * 1000
        self.ended = True
        self._news()


class Client:
    """A connection to the first router of `routers` that answers. Use it in a `with` block, or call close()."""

    def __init__(self, routers, *, client=None, silence_ms=3000, give_up_ms=30000):
        self._routers = [routers] if isinstance(routers, str) else list(routers)
        if not self._routers:
            raise Error("no router given: routers needs at least one endpoint like tcp://127.0.0.1:5555")
        self._name = client or f"client-{secrets.token_hex(8)}"
        self._silence_s, self._give_up_s = silence_ms / 1000, give_up_ms / 1000
        self._incarnation = secrets.randbits(64)
        self._streams = {}  # request id -> stream, until its end was handed out
        self._ready = collections.deque()  # streams with news for poll(); some may have been read by other ways
        self._current = 0
        self._socket = None
        self._context = zmq.Context()
        self._last_rx = self._switched_at = self._last_heartbeat = time.monotonic()
        try:
            self._dial()
        except Error:
            self._context.term()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Cancels what still runs."""
        if self._socket is None:
            return
        for stream in list(self._streams.values()):
            stream.close()
        self._socket.close()
        self._socket = None
        self._context.term()

    def stream(self, prompt=None, **options):
        """Sends a request and returns its Stream at once. `prompt` is a text, or a list of token ids. Options, with the defaults of the
        C library: model, max_tokens=16, min_tokens, temperature (0 = greedy), top_k, top_p, min_p, repetition_penalty,
        presence_penalty, frequency_penalty, seed (0 = drawn), logprobs, ignore_eos, stop (a text or a list), deadline_ms, reattach_ms,
        codec, request_id. None is as good as absent. Absent temperature, top_k, top_p, min_p and repetition_penalty are the model's."""
        request, payload = self._request(prompt, options)
        if request.request_id in self._streams:
            raise Error("a stream with this request_id is open already: give another one")
        stream = Stream(self, request, payload)
        if not self._streams:
            self._last_rx = self._switched_at = self._last_heartbeat = stream._sent_at
        self._streams[request.request_id] = stream
        stream._ask()
        return stream

    def generate(self, prompt=None, *, timeout=None, **options):
        """One request, start to end; returns its Result. TimeoutError after `timeout` seconds, RequestFailed when it failed."""
        until = None if timeout is None else time.monotonic() + timeout
        with self.stream(prompt, **options) as stream:
            while not stream.ended:
                left = TURN_S if until is None else min(TURN_S, until - time.monotonic())
                if left <= 0:
                    raise TimeoutError("the request did not end within the given time and was cancelled")
                self._turn(left)
            if stream.result.finish == "error":
                raise RequestFailed(stream.result)
            return stream.result

    def poll(self, timeout=None):
        """The next event of any stream: (stream, Token), or (stream, None) at its end. None when `timeout` seconds passed or no stream is
        open."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            while self._ready:
                stream = self._ready[0]
                token = stream._take()
                if token is not None or stream._end_delivered:
                    return stream, token
                self._ready.popleft()
                stream._queued = False
            if not self._streams:
                return None
            left = TURN_S if until is None else min(TURN_S, until - time.monotonic())
            self._turn(max(0, left))
            if left <= 0 and not self._ready:
                return None

    def _request(self, prompt, options):
        options = {name: value for name, value in options.items() if value is not None}
        request = Envelope().generate
        request.client = self._name
        request.request_id = options.pop("request_id", None) or f"req-{secrets.token_hex(8)}"
        request.model = options.pop("model", None) or ""
        request.codec = options.pop("codec", None) or ""
        remaining_ms, reattach_ms = options.pop("deadline_ms", 0), options.pop("reattach_ms", 0)
        stop = options.pop("stop", ())
        for text in [stop] if isinstance(stop, str) else stop:
            request.stops.add().text = text.encode()
        sampling = {"max_tokens": 16, **options}
        sampling["seed"] = sampling.get("seed") or secrets.randbits(64)
        for name, value in sampling.items():
            if name not in request.sampling.DESCRIPTOR.fields_by_name or name == "given":
                raise TypeError(f"unknown option {name!r}")
            if name in MODEL_DEFAULTS:
                request.sampling.given |= 1 << MODEL_DEFAULTS.index(name)
            setattr(request.sampling, name, value + 0.0 if isinstance(value, float) else value)  # -0.0 would have a digest of its own
        if prompt is None:
            raise TypeError("the request has no prompt: give a text or a list of token ids")
        if isinstance(prompt, str):
            request.prompt_kind, payload = common.PROMPT_KIND_TEXT, prompt.encode()
        else:
            request.prompt_kind, payload = common.PROMPT_KIND_TOKENS, b"".join(int(t).to_bytes(4, "little") for t in prompt)
        names = (request.client, request.request_id, request.model, request.codec)
        numbers = (value for field, value in request.sampling.ListFields() if field.type == field.TYPE_FLOAT)
        if (max(len(name.encode()) for name in names) > ID_BYTES_MAX or len(request.stops) > STOPS_MAX
                or any(len(stop.text) > STOP_BYTES_MAX for stop in request.stops) or not all(map(math.isfinite, numbers))):
            raise Error("the request is out of bounds: names and ids have at most 128 bytes, stop strings 256 and there are at most 16, "
                        "and numbers are finite")
        packed = Envelope(version=PROTOCOL_VERSION, generate=request).SerializeToString(deterministic=True)
        digest = hashlib.blake2b(len(packed).to_bytes(8, "little") + packed, digest_size=8)
        digest.update(payload)
        request.digest = int.from_bytes(digest.digest(), "little")
        request.remaining_ms, request.reattach_ms, request.token_batches = remaining_ms, reattach_ms, True
        return request, payload

    def _dial(self):
        if self._socket is not None:
            self._socket.close()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 200), (zmq.SNDHWM, QUEUE_MESSAGES), (zmq.RCVHWM, QUEUE_MESSAGES), (zmq.IPV6, 1),
            (zmq.MAXMSGSIZE, FRAME_BYTES_MAX), (zmq.RECONNECT_IVL, 50), (zmq.RECONNECT_IVL_MAX, 1000),
        ):
            self._socket.setsockopt(option, value)
        router = self._routers[self._current]
        try:
            self._socket.connect(router)
        except zmq.ZMQError as e:
            self._socket.close()
            raise Error(f"cannot use the address {router}: {e.strerror}; expected tcp://HOST:PORT or ipc://PATH") from e

    def _send(self, message, payload=None):
        message.version = PROTOCOL_VERSION
        message.incarnation = self._incarnation
        frames = [message.SerializeToString()] + ([] if payload is None else [payload])
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            pass  # as good as lost on the way: repeated after silence

    def _turn(self, seconds):
        """Waits for messages for at most that long, takes all, and does what is due."""
        if self._socket.poll(int(seconds * 1000)):
            while True:
                try:
                    frames = self._socket.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break
                self._receive(frames[0])
        self._keep_alive(time.monotonic())

    def _receive(self, data):
        try:
            message = Envelope.FromString(data)
        except DecodeError:
            return
        if message.version != PROTOCOL_VERSION:
            return
        self._last_rx = self._switched_at = time.monotonic()
        kind = message.WhichOneof("body")
        if kind == "heartbeat":
            self._on_heartbeat(message.incarnation, message.heartbeat.load.running)
        elif kind == "tokens_batch":
            for tokens in message.tokens_batch.streams:
                self._pass_on("tokens", tokens)
        elif kind in ("accepted", "tokens", "end", "refused"):
            self._pass_on(kind, getattr(message, kind))

    def _pass_on(self, kind, body):
        stream = self._streams.get(body.request_id)
        if stream and not stream.ended:
            getattr(stream, f"_on_{kind}")(body)

    def _on_heartbeat(self, incarnation, running):
        """A router that was replaced shows by its incarnation. One that knows fewer streams on this connection than we asked for sees
        another connection than it knew, or has ended one whose End was lost."""
        waiting = [stream for stream in self._open_streams() if stream._retry_at is None]
        fewer = running < sum(stream._asked_at <= self._last_heartbeat for stream in waiting)
        for stream in waiting:
            known = not fewer and stream._epoch in (0, incarnation)
            if not known and self._last_rx - stream._asked_at >= HEARTBEAT_S / 2:
                stream._ask()

    def _open_streams(self):
        return [stream for stream in self._streams.values() if not stream.ended]

    def _keep_alive(self, now):
        if now - self._switched_at > self._give_up_s:
            others = " (and the others)" if len(self._routers) > 1 else ""
            for stream in self._open_streams():
                stream._finish("error", "peer_lost", f"no router answers at {self._routers[0]}{others}: is it running?")
            return
        if now - self._last_rx > self._silence_s:
            self._current = (self._current + 1) % len(self._routers)
            self._dial()
            self._last_rx = now
            for stream in self._open_streams():
                stream._ask()
        silent_s = now - self._last_heartbeat
        if silent_s < HEARTBEAT_S:
            return
        self._last_heartbeat = now
        message = Envelope()
        message.heartbeat.SetInParent()
        self._send(message)
        for stream in self._open_streams():
            if stream._epoch == 0 and now - stream._sent_at > self._give_up_s:
                stream._finish("error", "bad_request", "the router answers, but not to this request: its log says why")
                continue
            lost = stream._epoch == 0 and now - stream._asked_at > RESEND_S
            if now >= stream._retry_at if stream._retry_at is not None else lost or silent_s >= LAPSE_S:
                stream._ask()
