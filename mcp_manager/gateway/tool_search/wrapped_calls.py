"""Calls of ``call_tool``, put into the form of the call that they are for."""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager._core.splicing import UnclearMemberError, member_range, with_params
from mcp_manager.errors import RpcError
from mcp_manager.gateway.tool_search.meta_tools import CALL
from mcp_manager.protocol.error_codes import INVALID_PARAMS

__all__ = ["unwrapped"]

_NO_ARGUMENTS: Final = b"{}"
_FRAME: Final = b'{"jsonrpc":"2.0","method":"-","params":%b}'
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
    params, name, arguments = _named(message.params or b"{}")
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
    wrapper, name, arguments = _named(wrapper)
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
        text = _text_decoder.decode(arguments).strip().encode()
        # It must be what a client may send, and one object: the message must not get other members.
        if text.startswith(b"{") and scan(_FRAME % text).params == text:
            return text
    except ValueError:
        pass
    raise _malformed(f"{_FORM}; the arguments are no object")


def _named(members: bytes) -> tuple[bytes, tuple[int, int] | None, tuple[int, int] | None]:
    """Return an object, and where its ``name`` and its ``arguments`` are.

    It is written again, each member once, if readers may take different members for these.
    """
    try:
        try:
            return members, member_range(members, b"name"), member_range(members, b"arguments")
        except UnclearMemberError:
            members = msgspec.json.encode(_members_decoder.decode(members))
            return members, member_range(members, b"name"), member_range(members, b"arguments")
    except (ValueError, RecursionError):
        raise _malformed("Invalid params: they are no object, or one with too many members") from None


def _malformed(why: str) -> RpcError:
    return RpcError(INVALID_PARAMS, why, {"source": "gateway"})
