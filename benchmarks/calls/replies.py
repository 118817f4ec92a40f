"""The replies of the loopback server: the path says their framing, size and era of the protocol."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import orjson

from mcp_manager._version import __version__

__all__ = ["STATELESS", "Answer", "Endpoint", "render", "rows_result", "text_result"]

STATELESS: Final = "/stateless"
"""The end of the path of a stateless server."""
_PATH: Final = re.compile(rb"/(json|sse|rows)/(\d{1,8})(?:/(\d{1,6}))?(/stateless)?")
_MAX_TOOLS: Final = 100_000
_JSON_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%sContent-Length: "
_SSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n%sTransfer-Encoding: chunked\r\n"
)
_SESSION: Final = b"Mcp-Session-Id: loopback\r\n"
_TYPE: Final = b'"resultType":"complete",'
# The number of digits of an id that a body's size allows for.
_ID_DIGITS: Final = 4
# A line as in logs and files; its end is an escape, as in real text.
_LINE: Final = "The quick brown fox jumps over the lazy dog while the sun sets behind the hills\n"


class Answer(NamedTuple):
    """The answer to a method: ``head`` ends before the body's length, ``counted`` bytes of ``suffix`` are body."""

    method: bytes
    head: bytes
    suffix: bytes
    counted: int


class Endpoint(NamedTuple):
    """The answers of a path; a body is ``prefix``, the request's id and the answer's ``suffix``."""

    chunked: bool
    prefix: bytes
    answers: tuple[Answer, ...]


def render(path: bytes) -> Endpoint | None:
    """Return the replies of ``/{json|sse|rows}/{bytes of a call's reply}[/{tools}][/stateless]``, or ``None``.

    ``rows`` is JSON whose result has ``structuredContent`` of small objects; the other two have one text. A stateless
    server speaks revision 2026-07-28, every other one 2025-11-25. Stateless replies have the same content, and their
    type.
    """
    found = _PATH.fullmatch(path)
    if found is None or int(found[3] or 1) > _MAX_TOOLS:
        return None
    kind, size, tools, stateless = found[1], int(found[2]), int(found[3] or 1), found[4] is not None
    chunked = kind == b"sse"
    prefix = b'{"jsonrpc":"2.0","id":'
    end = b"}"
    if chunked:
        prefix, end = b"event: message\ndata: " + prefix, b"}\n\n"
    rest = size - len(prefix) - len(end) - _ID_DIGITS - len(b',"result":')
    result = rows_result(rest) if kind == b"rows" else text_result(rest)
    answers = {
        b"": b',"error":{"code":-32601,"message":"Method not found"}',
        b"tools/call": b',"result":' + result,
        b"tools/list": b',"result":' + orjson.dumps({"tools": [_tool(number) for number in range(tools)]}),
        b"ping": b',"result":{}',
    }
    if stateless:
        answers = {method: body.replace(b',"result":{', b',"result":{' + _TYPE, 1) for method, body in answers.items()}
        answers[b"server/discover"] = b',"result":' + orjson.dumps(_DISCOVERED)
    else:
        answers[b"initialize"] = b',"result":' + orjson.dumps(_INITIALIZED)
    return Endpoint(chunked, prefix, tuple(_answer(method, body + end, chunked) for method, body in answers.items()))


def text_result(size: int) -> bytes:
    """Return the result of a call, about ``size`` bytes of JSON, with one text of short lines."""
    frame = b'{"content":[{"type":"text","text":"%s"}],"isError":false}'
    line = orjson.dumps(_LINE)[1:-1]
    room = max(1, size - len(frame) + 2)
    lines, letters = divmod(room, len(line))
    return frame % (line * lines + b"x" * letters)


def rows_result(size: int) -> bytes:
    """Return the result of a call, about ``size`` bytes of JSON, with rows of structured content."""
    frame = b'{"content":[],"structuredContent":{"rows":[%s]},"isError":false}'
    rows: list[bytes] = []
    left = size - len(frame) + 2
    while left > 0 or not rows:
        number = len(rows)
        row = {"id": number, "name": f"row {number}", "value": number / 7, "tags": ["a", "b"]}
        rows.append(orjson.dumps(row))
        left -= len(rows[-1]) + 1
    return frame % b",".join(rows)


def _answer(method: bytes, suffix: bytes, chunked: bool) -> Answer:
    head = (_SSE_HEAD if chunked else _JSON_HEAD) % (_SESSION if method == b"initialize" else b"")
    return Answer(b'"%s"' % method, head, suffix + b"\r\n0\r\n\r\n" if chunked else suffix, len(suffix))


def _tool(number: int) -> dict[str, Any]:
    return {
        "name": "echo" if number == 0 else f"tool_{number}",
        "title": f"Tool {number}",
        "description": "Return the text, or what becomes of it when the options are applied to it in their order.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "text": {"type": "string", "description": "What to return."},
                "limit": {"type": "integer", "minimum": 0, "default": 10},
                "options": {"type": "array", "items": {"type": "string", "enum": ["upper", "lower", "strip"]}},
            },
            "required": ["text"],
        },
        "annotations": {"readOnlyHint": True},
    }


_INITIALIZED: Final[dict[str, Any]] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "loopback", "version": __version__},
}
_DISCOVERED: Final[dict[str, Any]] = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "loopback", "version": __version__}},
}
