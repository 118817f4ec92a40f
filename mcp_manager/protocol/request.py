"""The checking and encoding of callers' requests, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from mcp_manager._core.jsonrpc import FrameError
from mcp_manager.errors import InvalidRequestError

__all__ = [
    "Operation",
    "encode_method",
    "encode_params",
    "encode_text",
    "invalid_request",
    "may_have_progress_token",
    "replace_progress_token",
    "with_progress_token",
]


class Operation(NamedTuple):
    """What a request asks for: a method, the tool if it calls one, and the key that it belongs to."""

    method: str
    tool: str | None = None
    key: str | None = None


_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SHAPE: Final = 'a request is {"method": "tools/list", "params": {}}, and params may be left out'


def invalid_request(error: FrameError | None) -> InvalidRequestError:
    """Make the error for request bytes that are not JSON-RPC, or, for ``None``, have no method."""
    if error is not None:
        return InvalidRequestError(f"Invalid request: {error}", hint=_SHAPE)
    return InvalidRequestError("Invalid request: it has no method", hint=_SHAPE)


def encode_text(request: str) -> bytes:
    """Encode a request given as text; raises :class:`InvalidRequestError`."""
    try:
        return request.encode()
    except AttributeError:
        raise InvalidRequestError(f"Invalid request: it must be JSON text, not {type(request).__name__}") from None
    except UnicodeEncodeError:
        raise InvalidRequestError("Invalid request: the text has lone surrogates and is not Unicode") from None


def with_progress_token(params: object, token: str) -> dict[str, Any]:
    """Return a copy of ``params`` whose ``_meta`` requests progress (2025-11-25, basic/utilities/progress)."""
    if params is not None and not isinstance(params, Mapping):
        raise InvalidRequestError("Invalid request: params must be an object to carry a progress token")
    with_meta = dict(params or {})
    with_meta["_meta"] = {**with_meta.get("_meta", {}), "progressToken": token}
    return with_meta


def may_have_progress_token(params: bytes) -> bool:
    """Tell whether encoded params may have a progress token."""
    return b'"progressToken"' in params or b"\\u" in params


def replace_progress_token(params: bytes, token: str) -> tuple[bytes, msgspec.Raw] | None:
    """Return encoded params with another progress token, and the one that they had; ``None`` if they have none."""
    try:
        members = _members_decoder.decode(params)
        meta = _members_decoder.decode(members.get("_meta", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return None
    given = meta.get("progressToken")
    if given is None or bytes(given) == b"null":
        return None
    meta["progressToken"] = msgspec.Raw(msgspec.json.encode(token))
    members["_meta"] = msgspec.Raw(msgspec.json.encode(meta))
    return msgspec.json.encode(members), given


def encode_params(params: object) -> bytes:
    """Encode params given as Python data; raises :class:`InvalidRequestError`."""
    if not isinstance(params, Mapping | list | tuple):
        raise InvalidRequestError(f"Invalid request: params must be an object or array, not {type(params).__name__}")
    try:
        return msgspec.json.encode(params)
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequestError(f"Invalid request: params cannot be encoded as JSON: {error}") from None


def encode_method(method: str) -> bytes:
    """Encode a method name as a JSON string; raises :class:`InvalidRequestError`."""
    if not isinstance(method, str) or not method:
        raise InvalidRequestError("Invalid request: method must be a non-empty string")
    try:
        return orjson.dumps(method)
    except orjson.JSONEncodeError as error:
        raise InvalidRequestError(f"Invalid request: method cannot be encoded: {error}") from None
