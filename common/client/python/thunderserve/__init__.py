"""ThunderServe client: send a prompt to a router, get tokens as they are produced.

    import thunderserve

    with thunderserve.Client("tcp://127.0.0.1:5555") as client:
        print(client.generate("First Citizen:", max_tokens=40).text)     # blocking
        for token in client.stream("First Citizen:", max_tokens=40):     # streaming
            print(token.text, end="", flush=True)

Several routers may be given. When one falls silent the client goes to the next with the tokens it has; a stream comes in order, without
gap or repeat, whatever dies in between. Needs pyzmq and protobuf (Debian: python3-zmq, python3-protobuf). One client, one thread at a time.
"""

from ._client import Client, Error, RequestFailed, Result, Stream, Token

__all__ = ["Client", "Error", "RequestFailed", "Result", "Stream", "Token"]
