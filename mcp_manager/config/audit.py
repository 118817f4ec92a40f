"""The configuration of the audit log of the gateway, and of the tool definitions that it pins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack

from mcp_manager.config._struct import Count, Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.audit import AuditFields, PinsFields

__all__ = ["AuditConfig", "PinsConfig"]


class AuditConfig(Settings, frozen=True, kw_only=True):
    """Configure the audit log: one JSON line for each request that a server gets or that is refused.

    Parameters
    ----------
    path
        The file to append lines to, or ``stderr``. Default: no audit log. If you rename the file, the gateway
        opens a new one.
    arguments
        Whether to write the arguments of calls too. They may contain secrets.
    max_queue
        How many lines may wait to be written. The gateway drops and counts further ones.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[AuditFields]) -> None: ...

    path: str | None = None
    arguments: bool = False
    max_queue: Count = 10_000


class PinsConfig(Settings, frozen=True, kw_only=True):
    """Configure what happens when the definition of a tool or a prompt is not the one that was pinned.

    Parameters
    ----------
    mode
        ``off``; ``warn``, which logs a difference; or ``block``, which also hides the tool and refuses its
        calls.
    path
        The file with the pins. ``mcp-manager pin`` writes it.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[PinsFields]) -> None: ...

    mode: Literal["off", "warn", "block"] = "off"
    path: str | None = None
