"""The request to the admin API that the running task serves."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from mcp_manager.gateway.security.principal import EVERYBODY, Principal

__all__ = ["FROM_SIBLING", "MISSED", "PRINCIPAL", "SERVER"]

PRINCIPAL: Final[ContextVar[Principal]] = ContextVar("principal", default=EVERYBODY)
"""Who sends it, once that is known."""
SERVER: Final[ContextVar[list[str]]] = ContextVar("server")
"""The server that it is about, for the audit log: the only member of a list, which all of its tasks share."""

FROM_SIBLING: Final[ContextVar[bool]] = ContextVar("from_sibling", default=False)
"""Whether another worker sends it."""

MISSED: Final[ContextVar[tuple[int, ...]]] = ContextVar("missed", default=())
"""The workers that did not do what it asks for."""
