"""Small requests that the demo answers, from which the fuzzers start."""

from __future__ import annotations

import json
from typing import Any

_CHAT = [{"role": "user", "content": "Hi"}]
_TEXT = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a film"]}

GENERATOR = "smollm2:int4"
"""A variant of the demo that is small and fast."""

BODIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/embeddings", {"model": "minilm:int4", "input": ["a film", "another"]}),
    ("/minilm/int8-dynamic/v1/embeddings", {"input": "a film", "encoding_format": "base64"}),
    ("/v1/classify", {"model": "sentiment:bf16", "input": "a film"}),
    ("/sentiment/int4/v1/classify", {"input": ["a film"]}),
    ("/v1/completions", {"model": GENERATOR, "prompt": "a", "max_tokens": 2}),
    ("/v1/completions", {"model": GENERATOR, "prompt": "a", "max_tokens": 3, "stream": True}),
    ("/smollm2/int4/v1/chat/completions", {"messages": _CHAT, "max_tokens": 2, "stream": True}),
    ("/v1/chat/completions", {"model": GENERATOR, "messages": _CHAT, "max_tokens": 1}),
    ("/v2/models/minilm/versions/int4/infer", {"inputs": [_TEXT]}),
    ("/tokenize", {"model": GENERATOR, "prompt": "a"}),
    ("/detokenize", {"model": GENERATOR, "tokens": [28]}),
    ("/v2/repository/index", {}),
)
PAGES = ("/v1/models", "/v2/health/ready", "/health", "/openapi.json", "/minilm/int4/v1/models")


def right_requests(key: str) -> list[bytes]:
    """Each request as bytes, framed by its length or in pieces."""
    always = f"Host: localhost\r\nAuthorization: Bearer {key}\r\n"
    made = [f"GET {page} HTTP/1.1\r\n{always}\r\n".encode() for page in PAGES]
    for path, content in BODIES:
        body = json.dumps(content).encode()
        head = f"POST {path} HTTP/1.1\r\n{always}Content-Type: application/json\r\n"
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        pieces = b"".join(
            b"%x\r\n%s\r\n" % (len(part), part)
            for part in (body[at : at + 16] for at in range(0, len(body), 16))
        )
        made.append(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + pieces + b"0\r\n\r\n")
    return made
