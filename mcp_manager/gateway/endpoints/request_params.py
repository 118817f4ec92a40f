"""What merged endpoints read in the params of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.splicing import UnclearMemberError, text_param, with_params
from mcp_manager.errors import RpcError
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.protocol.methods import CALL_TOOL, SUBSCRIBE, UNSUBSCRIBE

__all__ = ["Reference", "check_clear", "check_names", "cursor_in", "is_clear", "plain_text_in", "text_in"]

_OWN: Final = {"source": "gateway"}

_MEMBERS: Final = {
    CALL_TOOL: b"name",
    "prompts/get": b"name",
    "resources/read": b"uri",
    SUBSCRIBE: b"uri",
    UNSUBSCRIBE: b"uri",
}
"""What requests name."""

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)


class _WithCursor(msgspec.Struct):
    cursor: str | None = None


_cursor_decoder = msgspec.json.Decoder(_WithCursor)


def cursor_in(message: Message) -> str | None:
    """Return the cursor of a list, ``None`` for the first page; raises :class:`RpcError` if it is not a string."""
    params = message.params
    if params is None or b"cursor" not in params:
        return None
    try:
        return _cursor_decoder.decode(params).cursor
    except (msgspec.DecodeError, RecursionError):
        raise RpcError(INVALID_PARAMS, "Invalid params: cursor must be a string", _OWN) from None


def plain_text_in(message: Message, name: bytes) -> tuple[str, int, int] | None:
    """Return a param that is a string, and its range; ``None`` if it takes :func:`text_in` to find it."""
    try:
        return text_param(message, name)
    except UnclearMemberError:
        return None


def text_in(message: Message, name: bytes) -> tuple[Message, str, int, int] | None:
    """Return a param that is a string, with its range and the message that the range is of; ``None`` if there is none.

    Raises
    ------
    RpcError
        The params cannot be read, or the string has half of a surrogate pair.
    """
    try:
        found = text_param(message, name)
    except UnclearMemberError:
        message = _written_again(message, name.decode())
        found = text_param(message, name)
    if found is None:
        return None
    try:
        found[0].encode()
    except UnicodeEncodeError:
        raise RpcError(INVALID_PARAMS, f"Invalid params: {name.decode()} has half of a surrogate pair", _OWN) from None
    return message, *found


def is_clear(message: Message) -> bool:
    """Tell whether nobody can take what a request names for something else; see :func:`check_names`."""
    name = _MEMBERS.get(message.method or "")
    try:
        if name is not None:
            text_param(message, name)
    except UnclearMemberError:
        return False
    return True


def check_clear(message: Message) -> None:
    """Raise :class:`RpcError` if a member of the params has the name of the one that matters, but in other letters."""
    if not is_clear(message):
        _written_again(message, _MEMBERS[message.method or ""].decode())


class Reference:
    """What a completion refers to: a prompt or a template (2025-11-25, server/utilities/completion).

    Parameters
    ----------
    message
        The request.

    Attributes
    ----------
    kind
        ``ref/prompt`` or ``ref/resource``, if the client knows the protocol.
    given
        The name of the prompt, or the URI of the template.

    Raises
    ------
    RpcError
        There is no such reference in the params.
    """

    def __init__(self, message: Message) -> None:
        self._message = message
        try:
            self._params = _members_decoder.decode(message.params or b"{}")
            self._members = _members_decoder.decode(self._params["ref"])
            self.kind: str = _text_decoder.decode(self._members["type"])
            self._member = "uri" if self.kind == "ref/resource" else "name"
            self.given: str = _text_decoder.decode(self._members[self._member])
        except (KeyError, msgspec.DecodeError, RecursionError):
            raise RpcError(INVALID_PARAMS, "Invalid params: ref must refer to a prompt or a resource", _OWN) from None
        check_names(self._params, "ref")
        check_names(self._members, "type", "name", "uri")

    def renamed(self, own: str) -> Message:
        """Return the request with what the server calls it."""
        members = {**self._members, self._member: msgspec.Raw(msgspec.json.encode(own))}
        params = {**self._params, "ref": msgspec.Raw(msgspec.json.encode(members))}
        return with_params(self._message, msgspec.json.encode(params))


def check_names(members: Iterable[str], *names: str) -> None:
    """Raise :class:`RpcError` if a member has one of the names, but in other letters.

    Some libraries for JSON do not mind case, ``encoding/json`` of Go among them: a server that uses one would take the
    last of ``name`` and ``Name``, and what the gateway has checked would be another tool than the one that is called.
    """
    folded = {each.casefold(): each for each in names}
    for member in members:
        name = folded.get(member.casefold())
        if name is not None and member != name:
            text = f"Invalid params: a member is called {name}, but in other letters"
            raise RpcError(INVALID_PARAMS, text, {**_OWN, "hint": f"write {name}"})


def _written_again(message: Message, name: str) -> Message:
    """Return a request whose params have every member once, and names without escapes."""
    try:
        members: Mapping[str, msgspec.Raw] = _members_decoder.decode(message.params or b"{}")
    except (ValueError, RecursionError):
        raise RpcError(INVALID_PARAMS, "Invalid params", _OWN) from None
    check_names(members, name)
    try:
        return with_params(message, msgspec.json.encode(members))
    except (ValueError, RecursionError):
        raise RpcError(INVALID_PARAMS, "Invalid params", _OWN) from None
