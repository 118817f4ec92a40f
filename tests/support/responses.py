"""Random well-formed HTTP responses of every kind, with what a client must read from them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Final

import h11
from hypothesis import strategies as st
from support.wires import chunked, cut, response

__all__ = ["SHAPES", "Made", "Shape", "h11_reads", "mark"]

_STATUSES: Final = st.sampled_from([200, 200, 200, 202, 204, 307, 400, 404, 429, 500, 503, 999])
_EXTRA_NAMES: Final = ["x-a", "server", "date", "set-cookie", "vary", "mcp-session-id", "retry-after", "allow"]
_VALUES: Final = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="<"), max_size=12)
_EXTENSIONS: Final = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b;c"', b";a=b;c"])
_TRAILERS: Final = st.sampled_from([b"", b"", b"X-Trailer: 1\r\n", b"X-A: 1\r\nLocation: /elsewhere\r\n"])
# Long bodies are received directly into their final buffer.
_SIZES: Final = st.one_of(st.integers(0, 300), st.integers(32_000, 34_000), st.integers(60_000, 150_000))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The properties of a response, apart from the exchange that it is for."""

    status: int
    form: str
    """``length``, ``chunked``, ``eof``, ``stream`` or ``stream-length``."""
    size: int
    noise: bytes
    content_type: str
    extra: tuple[tuple[str, str], ...]
    interims: tuple[int, ...]
    chunk_places: tuple[int, ...]
    extension: bytes
    trailers: bytes
    line_end: bytes
    others: int
    after: int
    close: bool

    def make(self, number: int) -> Made:
        """Build the response to the exchange with this number."""
        streams = self.form.startswith("stream")
        shape = replace(self, status=200) if streams else self
        body = shape._stream(number) if streams else shape._body(number)
        fields = [("Content-Type", "text/event-stream" if streams else shape.content_type), *shape.extra]
        if shape.close:
            fields.append(("Connection", "close"))
        in_chunks = shape.form in ("chunked", "stream") and shape.status != 204
        if in_chunks:
            fields.append(("transfer-Encoding", "Chunked"))
        has_length = shape.form in ("length", "stream-length") and shape.status != 204
        raw = b"".join(response(status=status, headers=(("Link", "</x>"),), length=None) for status in shape.interims)
        raw += response(status=shape.status, headers=fields, length=len(body) if has_length else None)
        if in_chunks:
            raw += chunked(*cut(body, shape.chunk_places), extension=shape.extension, trailers=shape.trailers)
        else:
            raw += body
        until_eof = shape.form == "eof" and shape.status != 204
        result = mark(number) + shape.noise if streams else body
        return Made(raw, shape.status, body, result, streams, until_eof, shape.close or until_eof)

    def _body(self, number: int) -> bytes:
        if self.status == 204:
            return b""
        return (self.noise + mark(number) * (self.size // len(mark(number)) + 1))[: self.size]

    def _stream(self, number: int) -> bytes:
        lines = [b"id: 1", b": comment", b"retry: 5", b""]
        lines += [b"data: other", b""] * self.others
        lines += [b"event: message", b"data: " + mark(number) + self.noise, b""]
        lines += [b"data: " + mark(number) + b" again", b""] * self.after
        return self.line_end.join([*lines, b""])


@dataclass(frozen=True)
class Made:
    """A response and its content: ``result`` is the body, or the data of the event with the reply."""

    raw: bytes
    status: int
    body: bytes
    result: bytes
    is_stream: bool
    until_eof: bool
    closes: bool


def mark(number: int) -> bytes:
    """Return bytes that occur only in responses to one exchange."""
    return b"<%d>" % number


def _in_any_case(name: str, choices: int) -> str:
    return "".join(each.upper() if choices >> at & 1 else each for at, each in enumerate(name))


_EXTRA: Final = st.lists(
    st.tuples(st.builds(_in_any_case, st.sampled_from(_EXTRA_NAMES), st.integers(0, 2**14)), _VALUES), max_size=4
).map(tuple)
_NOISE: Final = st.binary(max_size=20).map(lambda noise: bytes(each for each in noise if each not in b"<\r\n"))

SHAPES: Final = st.builds(
    Shape,
    status=_STATUSES,
    form=st.sampled_from(["length", "length", "chunked", "eof", "stream", "stream-length"]),
    size=_SIZES,
    noise=_NOISE,
    content_type=st.sampled_from(["application/json", "Application/JSON; charset=utf-8", "text/html", "a/b"]),
    extra=_EXTRA,
    interims=st.lists(st.sampled_from([100, 102, 103]), max_size=2).map(tuple),
    chunk_places=st.lists(st.integers(0, 150_000), max_size=5).map(tuple),
    extension=_EXTENSIONS,
    trailers=_TRAILERS,
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    others=st.integers(0, 2),
    after=st.integers(0, 1),
    close=st.sampled_from([False, False, False, True]),
)


def h11_reads(raw: bytes, *, ended: bool) -> tuple[int, bytes] | None:
    """Return status and body of the first final response as h11 reads them; ``None`` if it is invalid or incomplete."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Content-Length", "0")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    # Empty bytes tell h11 that the connection has ended.
    for piece in itertools.chain([raw] if raw else [], [b""] if ended else []):
        try:
            client.receive_data(piece)
            while True:
                event = client.next_event()
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    return status, body
                elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                    break
        except (h11.RemoteProtocolError, RuntimeError):
            return None
    return None
