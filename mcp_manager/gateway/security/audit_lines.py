"""The lines of the audit log: what they say of a request, read from its bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, TypeVar

import msgspec

from mcp_manager._core.jsonrpc import FrameError, Message, scan
from mcp_manager.config.redaction import is_credential, masked
from mcp_manager.protocol.methods import CALL_TOOL

__all__ = [
    "CANCELLED",
    "LONGEST",
    "AuditLine",
    "Named",
    "Outcome",
    "address_of",
    "between_time_and_numbers",
    "digest",
    "encoded",
    "is_of",
    "may_have_secrets",
    "named",
    "outcome_of",
    "rfc3339",
    "shown_arguments",
    "shown_name",
    "trace_id",
]

_LONGEST_ARGUMENTS: Final = 16_384
_MASK: Final = "***"
_URI: Final = "://"
# Clients and sessions send many requests in a row.
_MOST_KEPT: Final = 1_024
_T = TypeVar("_T")
LONGEST: Final = 512
"""The most characters of a text that clients choose."""


class AuditLine(msgspec.Struct, omit_defaults=True):
    """One line, as JSON; members that say nothing are left out.

    Parameters
    ----------
    time
        When the request came (RFC 3339, in UTC, with milliseconds).
    principal
        Whom the client acts for; "" if nobody knows.
    client
        The address of the other end of the connection, which may be a proxy.
    endpoint
        ``fleet``, ``view/{name}`` or ``server/{id}``; the path, if there is no such endpoint.
    era
        ``handshake`` or ``stateless``.
    session
        A digest of the id of the session: equal for equal sessions.
    method
        The method of MCP, or that of HTTP and the path for what is no message.
    name, server_name
        The tool, the prompt, the URI or the task, as the client and as the server names it.
    server
        The id of the server.
    outcome
        ``ok``; ``tool_error``, for a result that says that the tool failed; ``error``; ``refused``, by the gateway; or
        ``cancelled``.
    code
        The code of the error.
    reason
        Why it was refused: ``limit``, ``authentication``, ``scope``, ``host``, ``origin``, ``rule``, ``pin``,
        ``session``, for one that is not there for this principal, or ``malformed``.
    delivery
        Whether the server got the request: ``answered``, ``not_sent`` or ``unknown``.
    duration_ms
        Milliseconds from the request to the reply.
    bytes_in, bytes_out
        The bytes of the message and of the reply.
    trace_id
        The trace that the request belongs to (W3C Trace Context).
    arguments
        The arguments of the call, if they are to be written.
    """

    time: str
    principal: str = ""
    client: str = ""
    endpoint: str = ""
    era: str = ""
    session: str = ""
    method: str = ""
    name: str | None = None
    server: str = ""
    server_name: str | None = None
    outcome: str = ""
    code: int | None = None
    reason: str = ""
    delivery: str = ""
    duration_ms: float = -1.0
    bytes_in: int = -1
    bytes_out: int = -1
    trace_id: str = ""
    arguments: msgspec.Raw | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How a request ended."""

    outcome: str
    code: int | None = None
    delivery: str = "answered"


OK: Final = Outcome("ok")
CANCELLED: Final = Outcome("cancelled", None, "unknown")


class _Data(msgspec.Struct):
    source: Any = None
    delivery: Any = None


class _Error(msgspec.Struct):
    code: int = 0
    data: Any = None


class _Result(msgspec.Struct):
    is_error: Any = msgspec.field(name="isError", default=None)


class _Reply(msgspec.Struct):
    error: _Error | None = None
    result: msgspec.Raw = msgspec.Raw()


class _Reference(msgspec.Struct):
    name: Any = None
    uri: Any = None


class _Meta(msgspec.Struct):
    traceparent: Any = None


class _Params(msgspec.Struct):
    name: Any = None
    uri: Any = None
    task_id: Any = msgspec.field(name="taskId", default=None)
    # Whatever they are, the request has its name, which limits need.
    ref: msgspec.Raw = msgspec.Raw()
    meta: msgspec.Raw = msgspec.field(name="_meta", default=msgspec.Raw())
    arguments: msgspec.Raw = msgspec.Raw()


class Named(msgspec.Struct, frozen=True):
    """What a request names."""

    name: str | None = None
    trace_id: str = ""
    arguments: msgspec.Raw = msgspec.Raw()

    def small(self) -> Named:
        """Return it without the arguments, which refer to the whole message."""
        return Named(self.name, self.trace_id)


_encoder = msgspec.json.Encoder()
_reply_decoder = msgspec.json.Decoder(_Reply)
_result_decoder = msgspec.json.Decoder(_Result)
_params_decoder = msgspec.json.Decoder(_Params)
_reference_decoder = msgspec.json.Decoder(_Reference)
_meta_decoder = msgspec.json.Decoder(_Meta)


def encoded(line: AuditLine) -> bytes:
    """Return a line as JSON."""
    return _encoder.encode(line)


def between_time_and_numbers(line: AuditLine) -> bytes:
    """Return what a line says between its time, which is "", and the numbers, which it does not have."""
    return _encoder.encode(line).removeprefix(b'{"time":""').removesuffix(b"}")


def outcome_of(reply: bytes) -> Outcome:
    """Return what a reply says of its request."""
    if b'"isError"' not in reply and b'"error"' not in reply:
        return OK
    try:
        read = _reply_decoder.decode(reply)
        if read.error is None:
            is_error = _result_decoder.decode(read.result).is_error is True
            return Outcome("tool_error") if is_error else OK
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # It is no object: such a result says nothing of errors.
        return OK
    data = read.error.data
    delivery = "answered"
    if isinstance(data, dict) and data.get("source") == "gateway":
        told = data.get("delivery")
        delivery = told if isinstance(told, str) else "not_sent"
    return Outcome("error", read.error.code, delivery)


def named(request: Message | bytes) -> Named:
    """Return what a request names."""
    try:
        message = scan(request) if isinstance(request, bytes) else request
        params = _params_decoder.decode(message.params or b"{}")
    except (FrameError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Named()
    found = params.name if params.name is not None else params.uri if params.uri is not None else params.task_id
    if found is None and (ref := _read(_reference_decoder, params.ref)) is not None:
        found = ref.name if ref.name is not None else ref.uri
    meta = _read(_meta_decoder, params.meta) if b"traceparent" in bytes(params.meta) else None
    trace = "" if meta is None else trace_id(meta.traceparent)
    arguments = params.arguments if message.method == CALL_TOOL else msgspec.Raw()
    return Named(found[:LONGEST] if isinstance(found, str) else None, trace, arguments)


def is_of(request: Message | bytes, method: str) -> bool:
    """Tell whether a request has a method."""
    if isinstance(request, Message):
        return request.method == method
    try:
        # The method may be written with escapes.
        return method.encode() in request or scan(request).method == method
    except FrameError:
        return False


def _read(decoder: msgspec.json.Decoder[_T], value: msgspec.Raw) -> _T | None:
    """Return a value that may be of any kind, if it is of that of a decoder."""
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def shown_arguments(arguments: msgspec.Raw, secrets: Sequence[str] = ()) -> msgspec.Raw | None:
    """Return the arguments of a call with ``***`` for credentials: values with such names, and texts that are known.

    Parameters
    ----------
    arguments
        The arguments.
    secrets
        The texts that are not shown, wherever they are, the longest first.

    Returns
    -------
    ``None`` if there are none, or they are longer than 16 KiB.
    """
    if not 0 < len(bytes(arguments)) <= _LONGEST_ARGUMENTS:
        return None
    try:
        shown = _hidden(msgspec.json.decode(arguments))
        text = _encoder.encode(shown)
        # Written anew, so that no escape hides one.
        found = [each for each in secrets if _encoder.encode(each)[1:-1] in text]
        return msgspec.Raw(_encoder.encode(_masked(shown, found)) if found else text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _MASK if is_credential(name) else _hidden(each) for name, each in value.items()}
    return [_hidden(each) for each in value] if isinstance(value, list) else value


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return masked(value, secrets)
    if isinstance(value, dict):
        return {masked(name, secrets): _masked(each, secrets) for name, each in value.items()}
    if isinstance(value, list):
        return [_masked(each, secrets) for each in value]
    return _MASK if not isinstance(value, bool) and str(value) in secrets else value


def shown_name(name: str | None, secrets: Callable[[], Sequence[str]]) -> str | None:
    """Return a name or a URI without the texts that are not shown, which a URI may have."""
    return name if name is None or not may_have_secrets(name) else masked(name, secrets())


def may_have_secrets(name: str) -> bool:
    """Tell whether a name is a URI, which may have secrets in it."""
    return _URI in name


def trace_id(traceparent: Any) -> str:
    """Return the id of a trace (W3C Trace Context, section 3.2); "" if it has none."""
    parts = traceparent.split("-") if isinstance(traceparent, str) and len(traceparent) <= LONGEST else ()
    if len(parts) < 4 or len(parts[1]) != 32 or not parts[1].isalnum() or not parts[1].isascii():
        return ""
    return str(parts[1])


@lru_cache(_MOST_KEPT)
def address_of(peer: object) -> str:
    """Return the address and the port of a client, as sockets name it; "" if it has none, as on a unix socket.

    A text is such an address already.
    """
    if isinstance(peer, str):
        return peer[:LONGEST]
    if not isinstance(peer, tuple) or len(peer) < 2:
        return ""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


@lru_cache(_MOST_KEPT)
def digest(session: str) -> str:
    """Return what stands for the id of a session, which is a secret."""
    return blake2b(session.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() if session else ""


def rfc3339(time_ns: int) -> str:
    """Return a time in UTC with milliseconds (RFC 3339)."""
    return f"{_to_the_second(time_ns // 1_000_000_000)}.{time_ns // 1_000_000 % 1000:03d}Z"


@lru_cache(2)
def _to_the_second(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
