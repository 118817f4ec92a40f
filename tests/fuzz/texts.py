"""Texts to parse: valid ones at random, and what mutations make of them."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

__all__ = ["mutated", "pieces", "some_json", "some_message"]

_TOKENS: Final = [
    b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b"\\ud800", b"\\udc00", b",", b":", b"null", b"true", b"NaN", b"-",
    b"Infinity", b"1e999", b"\0", b"\x1f", b"\x7f", b"\x80", b"\xc3", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"\xff",
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b'"id":', b'"result":', b'"error":', b'"method":', b'"params":',
    b'"jsonrpc":"2.0"', b"data: ", b"event: ", b"id: ", b"retry: ", b":", b"\xef\xbb\xbf", b"0", b"9" * 30,
    b"Content-Length: 3\r\n", b"Content-Length: 999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b"HTTP/1.1 200 OK\r\n", b"Content-Type: text/event-stream\r\n", b"Set-Cookie: a=b\r\n", b"ffffffffffffffff\r\n",
]  # fmt: skip
_STRINGS: Final = ["", "x", '"', "\\", "\u2028", "\U0001f600", "\ud800", "\0", "é", "id", "result", "a" * 70, "/" * 300]


def some_json(dice: Random, depth: int = 3) -> Any:
    """Draw a value of JSON."""
    kind = dice.randrange(8 if depth else 6)
    match kind:
        case 0:
            return None
        case 1:
            return dice.random() < 0.5
        case 2:
            return dice.choice([0, -1, 7, 10**17, 10**18, 2**63, -(2**63), 10**25, dice.randrange(10**9)])
        case 3:
            return dice.choice([0.5, -1e300, 1e-300, 3.0])
        case 4 | 5:
            return dice.choice(_STRINGS)
        case 6:
            return [some_json(dice, depth - 1) for _ in range(dice.randrange(5))]
    return {dice.choice(_STRINGS): some_json(dice, depth - 1) for _ in range(dice.randrange(5))}


def _spelled(dice: Random, value: Any) -> bytes:
    separators = dice.choice([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")])
    as_ascii = dice.random() < 0.5
    text = json.dumps(value, ensure_ascii=as_ascii, separators=separators, indent=dice.choice([None, None, 1]))
    return text.encode("utf-8", "surrogatepass")


def some_message(dice: Random, *, replies: bool = False) -> bytes:
    """Write a JSON-RPC message, or one that nearly is; ``replies``: only those that answer."""
    number = dice.choice([0, 1, -1, 7, 2**53, 10**30, "1", "", "é", None, 1.0, 1.5, 1e300])
    message: dict[str, Any] = {"jsonrpc": "2.0"} if dice.random() < 0.8 else {}
    kind = dice.randrange(2 if replies else 4)
    if kind == 0:
        message |= {"id": number, "result": some_json(dice)}
    elif kind == 1:
        code = dice.choice([-32601, 5, "5", "x", 1.0, None, 10**30])
        error = {"code": code, "message": dice.choice(["no", None, 5])}
        message |= {"id": number, "error": dice.choice([error, {**error, "data": some_json(dice)}, some_json(dice)])}
    else:
        message |= {"method": dice.choice(["m", "tools/call", "é", 5]), "params": some_json(dice)}
        if kind == 2:
            message["id"] = number
    members = list(message.items())
    dice.shuffle(members)
    return _spelled(dice, dict(members))


def mutated(dice: Random, text: bytes) -> bytes:
    """Change a text in a few places, or leave it as it is."""
    for _ in range(dice.choice([0, 0, 1, 1, 2, 4])):
        at, size = dice.randrange(len(text) + 1), dice.choice([1, 1, 2, 8, 64])
        match dice.randrange(5):
            case 0:
                text = text[:at] + dice.choice(_TOKENS) + text[at:]
            case 1:
                text = text[:at] + dice.choice(_TOKENS) + text[at + size :]
            case 2:
                text = text[:at] + text[at + size :]
            case 3:
                text = text[: at + size] + text[at:]
            case _:
                text = text[:at] + bytes(dice.randrange(256) for _ in range(size)) + text[at + size :]
    return text


def pieces(dice: Random, text: bytes) -> list[bytes]:
    """Cut a text anywhere, often enough into single bytes."""
    if dice.random() < 0.2 and len(text) < 2000:
        return [text[at : at + 1] for at in range(len(text))]
    places = sorted(dice.randrange(len(text) + 1) for _ in range(dice.choice([0, 1, 2, 5, 20])))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
