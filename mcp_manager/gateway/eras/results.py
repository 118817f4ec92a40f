"""Responses of servers, adapted to the era of the client; all that does not belong to one era stays byte for byte."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from mcp_manager._core.jsonrpc import ERROR, FrameError, scan_reply
from mcp_manager.gateway import messages
from mcp_manager.protocol.caching import CACHEABLE, READ_RESOURCE
from mcp_manager.protocol.discover import SERVER_INFO_KEY
from mcp_manager.protocol.error_codes import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    PARSE_ERROR,
    STATELESS_ERRORS,
    UNSUPPORTED_VERSION,
)

__all__ = ["STATUSES", "for_handshake", "for_stateless", "is_complete", "members_of_result", "server_info_member"]

STATUSES: Final = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}
"""The HTTP status of an error response by its code; 200 for all others (2026-07-28, streamable HTTP)."""

_HEAD: Final = b'{"jsonrpc":"2.0","id":'
_RESULT: Final = b',"result":{'
_RESULT_FIRST: Final = b'{"result":{'
_TYPE: Final = b'"resultType"'
_ERROR: Final = b'"error"'
_STATELESS_CODE: Final = b"-3202"
# An error begins within this many bytes.
_ERROR_WITHIN: Final = 128
# To search a megabyte takes longer than to pass it on.
_NEAR: Final = 8_192
_TYPE_FIRST: Final = b'"resultType":"complete",'
_TYPE_LAST: Final = b',"resultType":"complete"}}'
_META: Final = b'"_meta"'
_COMPLETE: Final = b'"resultType":"complete"'
_TTL: Final = b'"ttlMs":0'
_SCOPE: Final = b'"cacheScope":"private"'
# SEP-2640: lists of skills and single ones have the hints as well; directories do not.
_WITH_HINTS: Final = CACHEABLE | {"skills/list", "skills/get"}
_OF_CACHEABLE: Final = ((b'"ttlMs"', "ttlMs", _TTL), (b'"cacheScope"', "cacheScope", _SCOPE))
_STATELESS_ONLY: Final = ("resultType", "ttlMs", "cacheScope")
_INFO_KEY: Final = SERVER_INFO_KEY.encode()
# 2025-11-25, server/resources, error handling; 2026-07-28 has INVALID_PARAMS for it.
_NO_RESOURCE: Final = -32002

# Searching a longer one costs more than all the rest.
_LONG: Final = 64 * 1024

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    data: Any = None


_error_decoder = msgspec.json.Decoder(_Error)


def server_info_member(server_info: dict[str, Any]) -> bytes:
    """Return the member of a result's ``_meta`` that names the server (2026-07-28, basic, ``_meta``), as JSON."""
    return b'"%b":%b' % (_INFO_KEY, msgspec.json.encode(server_info))


def is_complete(response: bytes, id_raw: bytes) -> bool:
    """Tell whether a response says at first sight that its result is complete, as most do in the stateless era."""
    return response.endswith(_TYPE_LAST) or response.startswith(_COMPLETE, max(_opening(response, id_raw), 0))


def for_stateless(
    response: bytes, id_raw: bytes, method: str, server_info: bytes, *, is_of_handshake: bool = False
) -> tuple[bytes, int]:
    """Return a response as clients of 2026-07-28 expect it, and the HTTP status that it has.

    A result gets ``resultType``, and ``_meta`` with the server's name; those that may be cached get ``ttlMs: 0`` and
    ``cacheScope: "private"``. What the server says itself stays.

    Parameters
    ----------
    response
        The response to the request, as the server or the gateway gave it.
    id_raw, method
        The id of the request as JSON, and its method.
    server_info
        See :func:`server_info_member`.
    is_of_handshake
        Whether a server of the handshake era has made it. Then a long result is not searched for members of this era:
        it gets ``resultType`` alone.
    """
    at = _opening(response, id_raw)
    if at < 0:
        found = _read(response)
        if isinstance(found, _Error):
            return _stateless_error(response, id_raw, method, found)
        if found is None:
            return response, 200
        response = messages.response(id_raw, found)
        at = _opening(response, id_raw)
    cacheable = method in _WITH_HINTS
    if not cacheable and (response.startswith(_TYPE, at) or response.endswith(_TYPE_LAST)):
        # A server of this era has made it.
        return response, 200
    if is_of_handshake and not cacheable and len(response) > _LONG:
        return _with_members(response, at, [_COMPLETE]), 200
    added = [] if _TYPE in response else [_COMPLETE]
    names_server = _META in response
    if not names_server:
        added.append(b'"_meta":{%b}' % server_info)
    if cacheable:
        added += [member for needle, _, member in _OF_CACHEABLE if needle not in response]
    if len(added) < (4 if cacheable else 2):
        # Some are there, perhaps within other members only.
        members = members_of_result(response)
        if members is None:
            return response, 200
        if "_meta" in members and "resultType" not in members and _INFO_KEY not in bytes(members["_meta"]):
            return _rebuilt(id_raw, members, cacheable, server_info), 200
        added = [] if "resultType" in members else [_COMPLETE]
        if "_meta" not in members:
            added.append(b'"_meta":{%b}' % server_info)
        if cacheable:
            added += [member for _, name, member in _OF_CACHEABLE if name not in members]
    return _with_members(response, at, added), 200


def for_handshake(response: bytes, id_raw: bytes, method: str) -> bytes:
    """Return a response as clients of the revisions with a handshake expect it.

    ``resultType``, ``ttlMs`` and ``cacheScope`` of a server of 2026-07-28 are left out, unless they are in the middle of
    a long result: clients ignore members that they do not know. Errors that only that revision has become
    ``INVALID_REQUEST``. Parameters as for :func:`for_stateless`.
    """
    if not (_TYPE in response if len(response) <= _NEAR else _is_near_the_ends(response)):
        if response.find(_ERROR, 0, _ERROR_WITHIN) >= 0 and _STATELESS_CODE in response:
            found = _read(response)
            if isinstance(found, _Error) and found.code in STATELESS_ERRORS:
                return messages.error(id_raw, INVALID_REQUEST, found.message, found.data)
        if method == READ_RESOURCE and b"-32602" in response:
            found = _read(response)
            if isinstance(found, _Error) and found.code == INVALID_PARAMS and _names_uri(found.data):
                return messages.error(id_raw, _NO_RESOURCE, found.message, found.data)
        return response
    at = _opening(response, id_raw)
    if at >= 0 and method not in _WITH_HINTS:
        if response.startswith(_TYPE_FIRST, at):
            return b"".join((response[:at], memoryview(response)[at + len(_TYPE_FIRST) :]))
        if response.startswith(_HEAD) and response.endswith(_TYPE_LAST):
            # The first brace closes the result: that of a nested object would be followed by another one.
            return b"".join((memoryview(response)[: -len(_TYPE_LAST)], b"}}"))
    members = members_of_result(response)
    if members is None or "resultType" not in members:
        return response
    dropped = _STATELESS_ONLY if method in _WITH_HINTS else _STATELESS_ONLY[:1]
    return messages.response(id_raw, _joined({name: raw for name, raw in members.items() if name not in dropped}))


def _is_near_the_ends(response: bytes) -> bool:
    """Tell whether a long response has the name ``resultType`` near its beginning or its end."""
    return _TYPE in response[:_NEAR] or _TYPE in response[-_NEAR:]


def members_of_result(response: bytes) -> dict[str, msgspec.Raw] | None:
    """Return the members of a response's result, each as JSON; ``None`` if it has no result, or no object as result."""
    found = _read(response)
    if not isinstance(found, bytes):
        return None
    try:
        return _members_decoder.decode(found)
    except (msgspec.DecodeError, RecursionError):
        return None


def _opening(response: bytes, id_raw: bytes) -> int:
    """Return where the members of the result begin, -1 if the response is not in one of the usual forms."""
    if response.startswith(_RESULT_FIRST):
        return len(_RESULT_FIRST)
    if not response.startswith(_HEAD):
        return -1
    after_id = len(_HEAD) + len(id_raw)
    # Spaces may follow an id that is shorter than the one that the server had.
    at = response.find(_RESULT, after_id, after_id + 64)
    if at < 0 or response[len(_HEAD) : at].rstrip(b" ") != id_raw:
        return -1
    return at + len(_RESULT)


def _read(response: bytes) -> bytes | _Error | None:
    """Return the result of a response if it is an object, or the error; ``None`` for anything else."""
    try:
        reply = scan_reply(response)
        if reply.kind == ERROR:
            return _error_decoder.decode(reply.error or b"")
    except (FrameError, msgspec.DecodeError, RecursionError):
        return None
    result = reply.result
    return result if result is not None and result.startswith(b"{") else None


def _with_members(response: bytes, at: int, added: list[bytes]) -> bytes:
    if not added:
        return response
    is_empty = response[at : at + 32].lstrip()[:1] == b"}"
    # One copy of the response, which may be large: a slice of it, and formatting, would each make another one.
    return b"".join((response[:at], b",".join(added), b"" if is_empty else b",", memoryview(response)[at:]))


def _rebuilt(id_raw: bytes, members: dict[str, msgspec.Raw], cacheable: bool, server_info: bytes) -> bytes:
    """Return the response with the name of the server added to the ``_meta`` that its result has."""
    meta = bytes(members["_meta"])
    if meta.startswith(b"{"):
        inner = meta[1:].lstrip()
        members["_meta"] = msgspec.Raw(b"{%b%b%b" % (server_info, b"" if inner[:1] == b"}" else b",", inner))
    result = _joined(members)
    added = [_COMPLETE]
    if cacheable:
        added += [member for _, name, member in _OF_CACHEABLE if name not in members]
    return messages.response(id_raw, _with_members(result, 1, added))


def _joined(members: dict[str, msgspec.Raw]) -> bytes:
    return b"{%b}" % b",".join(b"%b:%b" % (msgspec.json.encode(name), raw) for name, raw in members.items())


def _stateless_error(response: bytes, id_raw: bytes, method: str, error: _Error) -> tuple[bytes, int]:
    if method == READ_RESOURCE and error.code == _NO_RESOURCE:
        return messages.error(id_raw, INVALID_PARAMS, error.message, error.data), STATUSES[INVALID_PARAMS]
    return response, STATUSES.get(error.code, 200)


def _names_uri(data: object) -> bool:
    return isinstance(data, dict) and isinstance(data.get("uri"), str)
