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
        The file that lines are appended to, or ``stderr``. Default: no audit log. A file that was renamed is opened
        anew.
    arguments
        Whether to write the arguments of calls as well, which may be secrets.
    max_queue
        Lines that wait to be written; further ones are dropped and counted.
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
        ``off``; ``warn``, which logs it; or ``block``, which hides the tool and refuses its calls.
    path
        The file with the pins, which ``mcp-manager pin`` writes.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[PinsFields]) -> None: ...

    mode: Literal["off", "warn", "block"] = "off"
    path: str | None = None
