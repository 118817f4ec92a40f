"""The trace context (W3C) that a request carries: in ``_meta``, and over HTTP in header fields, too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from mcp_manager._core.http_message import Request
from mcp_manager._core.jsonrpc import Message

__all__ = ["BAGGAGE", "TRACEPARENT", "TRACESTATE", "TraceContext", "in_trace", "read_trace"]

_log = logging.getLogger(__name__)

TraceContext = Callable[[], Mapping[str, str]]
"""Returns the trace context of the current request (W3C: ``traceparent``, ``tracestate``, ``baggage``)."""

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
BAGGAGE: Final = "baggage"

_FIELDS: Final = (TRACEPARENT, TRACESTATE, BAGGAGE)
# Bytes of header fields: many servers refuse a field, or all together, from 8 KiB on.
_MOST_BYTES: Final = 8_192 - 64
_META_MEMBER: Final = b'"_meta"'
_params_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_meta_decoder = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def read_trace(trace_context: TraceContext) -> Mapping[str, str]:
    """Return the trace context of a request, without what cannot be sent; empty if the callback fails."""
    try:
        given = msgspec.convert(trace_context(), dict[str, str])
        return {name: value for name, value in given.items() if _is_unicode(name) and _is_unicode(value)}
    except Exception:
        # The callback is user code, and its failure must not fail the call.
        _log.exception("trace_context failed; the request is sent without it")
        return {}


def in_trace(request: Message | Request, trace: Mapping[str, str], *, replaces: bool) -> Request:
    """Return the request with a trace context in its ``_meta`` and in header fields of its own.

    Parameters
    ----------
    request
        The request. Params that are an array, or whose ``_meta`` is not an object, have no room for a trace context;
        then only the header fields have it.
    trace
        The trace context.
    replaces
        Whether it replaces members of the same name that the request has already.
    """
    method_raw = request.method if type(request) is Request else request.method_raw
    assert isinstance(method_raw, bytes)
    params = request.params
    if params is None or (params.startswith(b"{") and _META_MEMBER not in params and b"\\u" not in params):
        return Request(method_raw, params, _encode(trace)[1:-1], _lines(trace))
    try:
        members = _params_decoder.decode(params)
        given = _meta_decoder.decode(members.pop("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return Request(method_raw, params, None, _lines(trace))
    meta = {**given, **trace} if replaces else {**trace, **given}
    return Request(method_raw, _encode({"_meta": meta, **members}), None, _lines(meta))


def _is_unicode(text: str) -> bool:
    """Tell whether a text has no lone surrogates, which cannot be encoded."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(trace: Mapping[str, Any]) -> bytes:
    """Render the header fields of a trace context, without values that would be more than one, or would be too long."""
    lines = ""
    for name in _FIELDS:
        value = trace.get(name)
        if type(value) is str and value and value.isascii() and value.isprintable():
            line = f"{name}: {value}\r\n"
            if len(lines) + len(line) <= _MOST_BYTES:
                lines += line
    return lines.encode()
