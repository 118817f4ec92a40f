"""Answers with hostile values, one for each place where a server's value could be used without a check."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from mcp_manager.testing.scripted import Connection, Fault, Request

__all__ = ["ANSWERS", "Answer"]

_JSON: Final = ("Content-Type", "application/json")
_EVENTS: Final = ("Content-Type", "text/event-stream")


@dataclass(frozen=True)
class Answer:
    """A whole response; ``@ID`` in its body becomes the id of the request, and ``None`` is the proper body."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes | None = b""

    async def play(self, connection: Connection, request: Request | None) -> None:
        """Send it; see :class:`Fault`."""
        fields, body = list(self.fields), self.body
        if body is None:
            assert request is not None
            _, proper, reply = connection.server.answer(request)
            names = {name.lower() for name, _ in fields}
            fields += [each for each in proper.items() if each[0].lower() not in names]
            body = b"" if reply is None else json.dumps(reply).encode()
        request_id = request.id if request is not None else None
        body = body.replace(b"@ID", json.dumps(request_id).encode())
        lines = [f"HTTP/1.1 {self.status} Hostile", *(f"{name}: {value}" for name, value in fields)]
        lines.append(f"Content-Length: {len(body)}")
        await connection.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)


@dataclass(frozen=True)
class _Bytes:
    data: bytes

    async def play(self, connection: Connection, request: Request | None) -> None:
        await connection.write(self.data)
        connection.close()


def _redirect(location: str) -> Answer:
    return Answer(307, (("Location", location),))


def _unauthorized(challenge: str) -> Answer:
    return Answer(401, (("WWW-Authenticate", challenge),))


def _busy(retry_after: str) -> Answer:
    return Answer(503, (("Retry-After", retry_after),))


def _cookie(cookie: str) -> Answer:
    return Answer(200, (_JSON, ("Set-Cookie", cookie)), None)


def _events(event_id: bytes, retry: bytes = b"1") -> Answer:
    note = b'data: {"jsonrpc":"2.0","method":"notifications/x"}\n\n'
    return Answer(200, (_EVENTS,), b"id: %b\nretry: %b\n%b" % (event_id, retry, note))


def _reply(body: bytes) -> Answer:
    return Answer(200, (_JSON,), body)


_RESULT: Final = b'{"jsonrpc":"2.0","id":@ID,"result":%b}'
_ERROR: Final = b'{"jsonrpc":"2.0","id":@ID,"error":%b}'

ANSWERS: Final[dict[str, Fault]] = {
    "a redirect with credentials": _redirect("http://user:password@127.0.0.1/mcp"),
    "a redirect to a port that is none": _redirect("http://127.0.0.1:99999/"),
    "a redirect to a host that is none": _redirect("http://[::1/"),
    "a redirect to a bad name": _redirect("http://xn--\xff..\xe9/"),
    "a redirect to a socket": _redirect("unix:///run/server.sock"),
    "a redirect with control characters": _redirect("/\x01\x7f"),
    "a redirect without end": _redirect("/" + "a" * 9000),
    "an event id with a control character": _events(b"\x01"),
    "an event id with an escape sequence": _events(b"\x1b[31m"),
    "an event id that is too long": _events(b"x" * 5000, retry=b"9" * 400),
    "a session id with a control character": Answer(200, (_JSON, ("Mcp-Session-Id", "a\x01b")), None),
    "a wait without end": _busy("1" + "0" * 400),
    "a wait that is negative": _busy("-5"),
    "a wait that is no number": _busy("NaN"),
    "a wait until the year 99999": _busy("Wed, 21 Oct 99999 07:28:00 GMT"),
    "a wait in a zone that is none": _busy("Fri, 31 Dec 9999 23:59:59 -2359"),
    "a challenge that is broken off": _unauthorized('Bearer error="\\'),
    "a challenge with a bad address": _unauthorized('Bearer resource_metadata="http://[::1"'),
    "a cookie that lasts for ever": _cookie("a=b; Max-Age=" + "9" * 500),
    "a cookie until the year 99999": _cookie("a=b; Expires=Wed, 21 Oct 99999 07:28:00 GMT"),
    "a cookie with control characters": _cookie("a=\x01; Path=\x02; Domain=\xff"),
    "a charset that is none": Answer(200, (("Content-Type", "text/html; charset=a\x01b"),), b"\xff\xfe{}"),
    "a coding that is none": Answer(200, (_JSON, ("Content-Encoding", "gzip")), b"no gzip"),
    "a revision that is a header": _reply(
        _RESULT
        % b'{"protocolVersion":"2025-11-25\\r\\nX: 1","capabilities":{},"serverInfo":{"name":"x","version":"1"}}'
    ),
    "capabilities that are none": _reply(
        _RESULT % b'{"protocolVersion":"2025-11-25","capabilities":{"tools":5,"resources":[]},"serverInfo":null}'
    ),
    "an error code without end": _reply(_ERROR % (b'{"code":' + b"9" * 5000 + b',"message":"x"}')),
    "an error code that is infinite": _reply(_ERROR % b'{"code":1e400,"message":5}'),
    "elicitations that are none": _reply(_ERROR % b'{"code":-32042,"message":"x","data":{"elicitations":5}}'),
    "an id without end": _reply(b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"result":{}}'),
    "a body without end of its depth": _reply(b"[" * 100_000),
    "half of a surrogate pair": _reply(b'"\xed\xa0\x80"'),
    "an upgrade": _Bytes(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "a length that is none": _Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
    "no HTTP": _Bytes(b"\x00\x01\x02\x03\x04\x05\x06\x07"),
}
