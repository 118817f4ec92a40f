"""Calls of ``call_tool``, put into the form of the call that they are for."""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.splicing import UnclearMemberError, member_range, with_params
from mcp_manager.errors import RpcError
from mcp_manager.gateway.tool_search.meta_tools import CALL
from mcp_manager.protocol.error_codes import INVALID_PARAMS

__all__ = ["unwrapped"]

_NO_ARGUMENTS: Final = b"{}"
_FORM: Final = f'{CALL} takes {{"name": the name of the tool, "arguments": an object}}'

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)


def unwrapped(message: Message) -> Message:
    """Return the call of a tool that a call of ``call_tool`` is for; all else in its params stays byte for byte.

    Parameters
    ----------
    message
        A ``tools/call`` for ``call_tool``.

    Raises
    ------
    RpcError
        The arguments do not say which tool to call with which arguments.
    """
    params = message.params or b"{}"
    try:
        name, arguments = member_range(params, b"name"), member_range(params, b"arguments")
    except UnclearMemberError:
        params = _once(params)
        name, arguments = member_range(params, b"name"), member_range(params, b"arguments")
    if name is None or arguments is None:
        raise _malformed(f"{_FORM}; there is neither")
    own_name, own_arguments = _inner(params[slice(*arguments)])
    (first, one), (second, other) = sorted(((name, own_name), (arguments, own_arguments)))
    parts = (params[: first[0]], one, params[first[1] : second[0]], other, params[second[1] :])
    return with_params(message, b"".join(parts))


def _inner(wrapper: bytes) -> tuple[bytes, bytes]:
    """Return the name and the arguments in the arguments of ``call_tool``, as JSON."""
    if not wrapper.startswith(b"{"):
        raise _malformed(_FORM)
    try:
        name, arguments = member_range(wrapper, b"name"), member_range(wrapper, b"arguments")
    except UnclearMemberError:
        wrapper = _once(wrapper)
        name, arguments = member_range(wrapper, b"name"), member_range(wrapper, b"arguments")
    if name is None or not wrapper.startswith(b'"', name[0]):
        raise _malformed(f"{_FORM}; the name is missing, or no string")
    if arguments is None:
        if len(_members_decoder.decode(wrapper)) > 1:
            # Models put them beside the name at times; an optional one must not get lost.
            raise _malformed(f"{_FORM}; put what is beside the name into arguments")
        return wrapper[slice(*name)], _NO_ARGUMENTS
    return wrapper[slice(*name)], _object(wrapper[slice(*arguments)])


def _object(arguments: bytes) -> bytes:
    """Return arguments that are an object, or that a model has written as the text of one."""
    if arguments.startswith(b"{"):
        return arguments
    if arguments == b"null":
        return _NO_ARGUMENTS
    try:
        text = _text_decoder.decode(arguments).strip()
        _members_decoder.decode(text)
        return text.encode()
    except (ValueError, RecursionError):
        raise _malformed(f"{_FORM}; the arguments are no object") from None


def _once(members: bytes) -> bytes:
    """Return an object whose members are there once each, and whose names have no escapes."""
    try:
        return msgspec.json.encode(_members_decoder.decode(members))
    except (ValueError, RecursionError):
        raise _malformed("Invalid params") from None


def _malformed(why: str) -> RpcError:
    return RpcError(INVALID_PARAMS, why, {"source": "gateway"})
