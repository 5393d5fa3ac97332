"""A router of one page, for what real ones seldom do: fall silent, come back as another, repeat, skip, refuse. Serves clients alone; token i
of every request is 100 + i with the text "<i>"."""

import threading
import time

import harness

harness.use_python_client()

import zmq
from thunderserve._wire import ts_common_pb2 as common
from thunderserve._wire.ts_envelope_pb2 import Envelope


def text_of(count):
    return "".join(f"<{i}>" for i in range(count))


class FakeRouter:
    """`script(router, peer, generate)` is called for each Generate. Everything received is kept in `asked`."""

    def __init__(self, script, incarnation, endpoint="tcp://127.0.0.1:*"):
        self.script, self.incarnation = script, incarnation
        self.asked, self.heartbeats, self.cancelled = [], 0, []
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        deadline = time.monotonic() + 5
        while True:
            try:
                self.socket.bind(endpoint)
                break
            except zmq.ZMQError:  # the port of one that was just closed
                assert time.monotonic() < deadline
                time.sleep(0.02)
        self.endpoint = self.socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self.silent = self.stopped = False
        self.running = 1000  # streams that it says to have under way: all there can be
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopped:
            if not self.socket.poll(20):
                continue
            peer, data, *rest = self.socket.recv_multipart()
            message = Envelope.FromString(data)
            kind = message.WhichOneof("body")
            if self.silent:
                continue
            if kind == "generate":
                self.asked.append((message.generate, rest[0]))
                self.script(self, peer, message.generate)
            elif kind == "heartbeat":
                self.heartbeats += 1
                answer = Envelope()
                answer.heartbeat.load.running = self.running
                self.send(peer, answer)
            elif kind == "cancel":
                self.cancelled.append(message.cancel.request_id)
        self.socket.close()
        self.context.term()

    def close(self):
        self.stopped = True
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, peer, message):
        message.version, message.incarnation = 1, self.incarnation
        self.socket.send_multipart([peer, message.SerializeToString()])

    def accept(self, peer, generate):
        message = Envelope()
        message.accepted.request_id, message.accepted.epoch = generate.request_id, self.incarnation
        message.accepted.next_index = generate.next_index
        self.send(peer, message)

    def fill(self, tokens, request_id, begin, end, epoch=None, wrong=0):
        tokens.request_id, tokens.epoch, tokens.first_index = request_id, epoch or self.incarnation, begin
        for i in range(begin, end):
            tokens.items.add(token=100 + i + wrong, text=f"<{i + wrong}>".encode())

    def tokens(self, peer, generate, begin, end, **options):
        message = Envelope()
        self.fill(message.tokens, generate.request_id, begin, end, **options)
        self.send(peer, message)

    def batch(self, peer, *parts):
        """One TokensBatch; a part is (request id, begin, end)."""
        message = Envelope()
        message.tokens_batch.SetInParent()
        for part in parts:
            self.fill(message.tokens_batch.streams.add(), *part)
        self.send(peer, message)

    def end(self, peer, generate, count, epoch=None, finish=common.FINISH_LENGTH):
        message = Envelope()
        message.end.request_id, message.end.epoch, message.end.next_index = generate.request_id, epoch or self.incarnation, count
        message.end.finish, message.end.reason = finish, common.REASON_FINISHED
        message.end.trace.prefill, message.end.trace.attempts = "p", 1
        self.send(peer, message)

    def refuse(self, peer, generate, reason, retry_after_ms=0, text="no"):
        message = Envelope()
        message.refused.request_id, message.refused.reason, message.refused.text = generate.request_id, reason, text
        message.refused.retry_after_ms = retry_after_ms
        self.send(peer, message)
