"""Prints the text as it is produced.
    python3 stream.py tcp://127.0.0.1:5555 "First Citizen:"
"""

import sys

import thunderserve

router, prompt = sys.argv[1:3]
with thunderserve.Client(router) as client:
    stream = client.stream(prompt, max_tokens=40, temperature=0)  # greedy: the same text each time
    for token in stream:
        print(token.text, end="", flush=True)
    print()
    print(f"{len(stream.result.tokens)} tokens, first after {stream.result.ttft_ms:.0f} ms", file=sys.stderr)
