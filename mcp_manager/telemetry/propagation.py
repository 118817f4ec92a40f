"""The trace context (W3C) of requests: what a caller gives, and what is written into ``_meta`` for the server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from mcp_manager.transports.base import Request, Sendable

__all__ = ["BAGGAGE", "TRACEPARENT", "TRACESTATE", "Parent", "given_in", "parse", "traceparent", "with_context"]

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"

_META_MEMBER: Final = b'"_meta"'
_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
# 32 entries of at most 256 characters each, with commas.
_LONGEST_STATE: Final = 8_224
_params_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_meta_decoder = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class Parent(NamedTuple):
    """A span that a call is made in."""

    trace_id: int
    span_id: int
    is_sampled: bool
    trace_state: str
    is_remote: bool


def traceparent(trace_id: int, span_id: int, *, sampled: bool) -> str:
    """Return the value of ``traceparent``."""
    return f"00-{trace_id:032x}-{span_id:016x}-{'01' if sampled else '00'}"


def parse(given: Mapping[str, str]) -> Parent | None:
    """Return the span that a trace context names; ``None`` if there is none, or it is invalid."""
    text = given.get(TRACEPARENT)
    found = None if text is None else _FORM.fullmatch(text)
    if found is None:
        return None
    state = given.get(TRACESTATE, "")
    sampled = bool(int(found[3], 16) & 1)
    return Parent(int(found[1], 16), int(found[2], 16), sampled, state if len(state) <= _LONGEST_STATE else "", True)


def given_in(params: bytes | None) -> dict[str, str]:
    """Return the trace context that the ``_meta`` of a request has already."""
    if params is None or b'"traceparent"' not in params:
        return {}
    try:
        meta = _meta_decoder.decode(_params_decoder.decode(params).get("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {name: meta[name] for name in (TRACEPARENT, TRACESTATE, BAGGAGE) if isinstance(meta.get(name), str)}


def with_context(request: Sendable, context: Mapping[str, str]) -> Sendable:
    """Return the request with this trace context in its ``_meta``, or unchanged if its params have no room for one."""
    method_raw = request.method if type(request) is Request else request.method_raw
    assert isinstance(method_raw, bytes)
    params = request.params
    if params is None:
        return Request(method_raw, b'{"_meta":%b}' % _encode(context))
    if params.startswith(b'{"') and _META_MEMBER not in params and b"\\u" not in params:
        return Request(method_raw, b'{"_meta":%b,%b' % (_encode(context), params[1:]))
    try:
        members = _params_decoder.decode(params)
        meta = _meta_decoder.decode(members.pop("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return request
    return Request(method_raw, msgspec.json.encode({"_meta": {**meta, **context}, **members}))
