"""The base class of all configuration structs, and the bounded types of their fields."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from mcp_manager.config._secret_forms import plain_forms
from mcp_manager.config._url import redact_url

__all__ = ["Count", "Jitter", "PositiveSeconds", "Rate", "RpcCode", "Seconds", "Settings"]

_YEAR_S: Final = 31_536_000.0
_MASK: Final = "***"

Seconds = Annotated[float, Meta(ge=0.0, le=_YEAR_S)]
"""A duration in seconds, at most one year; the field says what zero means."""
PositiveSeconds = Annotated[float, Meta(gt=0.0, le=_YEAR_S)]
"""A duration in seconds, above zero and at most one year."""
Rate = Annotated[float, Meta(gt=0.0, le=1.0)]
"""A share of calls, above 0 and at most 1."""
Jitter = Annotated[float, Meta(ge=0.0, lt=1.0)]
"""The fraction by which a delay varies at random in both directions: 0.2 is ±20 %."""
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
"""A number of things, at least one."""
RpcCode = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
"""The code of a JSON-RPC error."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of the configuration structs; ``repr`` masks every field that may hold a credential.

    Masking goes by field name, so that no caller can forget it.
    """

    _masked: ClassVar[frozenset[str]] = frozenset(
        {
            "key",
            "key_password",
            "token",
            "token_command",
            "headers_command",
            "headers",
            "env",
            "args",
            "extras",
            "client_secret",
            "private_key",
            "assertion",
            "idp_client_secret",
            "parameters",
            "hidden_texts",
        }
    )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in self._masked:
                value = _mask(value)
            elif name == "url" and value is not None:
                value = redact_url(value) if isinstance(value, str) else tuple(map(redact_url, value))
            elif name == "server" and value is not None:
                value = type(value).__name__
            elif name == "proxy" and value not in (None, "", "env"):
                value = redact_url(value)
            fields.append((name, value))
        return fields

    def __repr__(self) -> str:
        text = f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"
        # They may be part of any field, such as a path. The longest first, because one may contain another.
        for secret in sorted(getattr(self, "hidden_texts", ()), key=len, reverse=True):
            for form in dict.fromkeys((*plain_forms(secret), repr(secret)[1:-1])):
                text = text.replace(form, _MASK)
        return text


def _mask(value: object) -> object:
    """Show that a value is set, and the names of its members, without the value itself."""
    if isinstance(value, dict):
        return dict.fromkeys(value, _MASK)
    if isinstance(value, tuple):
        return (_MASK,) * len(value)
    return _MASK if value is not None else None
