"""What a request of a client came with, for whatever the gateway does for that request."""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import Final

import msgspec

from mcp_manager.gateway.security.principal import Principal

__all__ = ["Presented", "present", "presented"]


class Presented(msgspec.Struct, frozen=True):
    """The credentials of one request.

    Parameters
    ----------
    principal
        Whom the client acts for, with the credential that came with this very request.
    fields
        The header fields that some server gets, by their names in lower case.
    """

    principal: Principal
    fields: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Presented({self.principal!r}, fields={sorted(self.fields)})"


_current: Final[ContextVar[Presented | None]] = ContextVar("presented", default=None)


def present(context: Context, request: Presented) -> None:
    """Let what runs in a context know what its request came with."""
    context.run(_current.set, request)


def presented() -> Presented | None:
    """Return what the request came with that is answered in this context; ``None`` outside of requests."""
    return _current.get()
