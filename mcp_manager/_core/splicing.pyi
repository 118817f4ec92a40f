"""Finds a member in JSON text and puts another value in its place, so that all other bytes stay as they are."""

from mcp_manager._core.jsonrpc import Message

__pyx_capi__: dict[str, object]

class UnclearMemberError(ValueError):
    """Readers may take different members for the one that is sought: it is there twice, or a name has escapes."""

def member_range(text: bytes, name: bytes) -> tuple[int, int] | None:
    """Return where the value of an object's member begins and ends; ``None`` if it has none of that name.

    Parameters
    ----------
    text
        An object, as valid JSON.
    name
        The name, without escapes.

    Raises
    ------
    UnclearMemberError
        The member is there twice, a name in the object has escapes, or it has more than 1,024 members.
    """

def text_param(message: Message, name: bytes) -> tuple[str, int, int] | None:
    """Return a param of a request that is a string, decoded, and its range; ``None`` if it has no such param.

    The range is that of the message's own bytes, for :func:`with_range`.

    Raises
    ------
    UnclearMemberError
        As for :func:`member_range`.
    """

def with_range(message: Message, start: int, end: int, value: bytes) -> Message:
    """Return a request with another value, as JSON, at a range that :func:`text_param` has found in it."""

def with_params(message: Message, params: bytes) -> Message:
    """Return a request with other params, as JSON; raises ``ValueError`` if it has none."""
