"""Plain data of errors, for logs and the replies of services."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import msgspec

__all__ = ["MEMBERS", "SerializableError"]

# Of a value that no server sent, and that JSON does not know.
_LONGEST_UNKNOWN: Final = 2000

MEMBERS: Final = (
    "message",
    "hint",
    "server_id",
    "delivery",
    "retryable",
    "retry_after_s",
    "attempts",
    "http_status",
    "rpc_code",
    "is_local",
    "is_starting",
    "has_hung",
    "exit_code",
    "is_challenged",
    "limit",
    "tool",
    "code",
    "data",
    "elicitations",
    "missing",
    "field",
    "problems",
)
"""The attributes of errors that are in their plain data, in this order, where a class has them.

``result`` of a ``ToolError`` is left out, because nothing is masked in it.
"""


class SerializableError:
    """Give an error the methods of all public records: ``to_dict`` and ``to_json``."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain data: ``type``, the name of its class, and the attributes that the class has.

        It holds no credential, as ``str()`` does not. ``result`` of a ``ToolError`` is left out.
        """
        found = {name: _plain(getattr(self, name)) for name in MEMBERS if hasattr(self, name)}
        return {"type": type(self).__name__, **found}

    def to_json(self) -> bytes:
        """Return the error as JSON."""
        return msgspec.json.encode(self.to_dict())


def _plain(value: Any) -> Any:
    """Return a value as plain data, whatever it is: telling of a failure must not fail."""
    if isinstance(value, str):
        # What a caller or a program gave may be no UTF-8.
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, tuple):
        return [_plain(each.to_dict() if hasattr(each, "to_dict") else each) for each in value]
    if isinstance(value, MappingProxyType):
        value = dict(value)
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return _shown(value)


def _shown(value: Any) -> str:
    try:
        return ascii(value)[:_LONGEST_UNKNOWN]
    except Exception:
        # It is nested too deeply, or its own __repr__ fails.
        return f"a value of type {type(value).__name__} that cannot be shown"
