"""The configuration of what the gateway keeps for clients that reconnect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Unpack

from msgspec import Meta

from mcp_manager.config._struct import Seconds, Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.resume import ResumeFields

__all__ = ["ResumeConfig"]


class ResumeConfig(Settings, frozen=True, kw_only=True):
    """Bound what the gateway keeps of a call's event stream for a client that reconnects (``Last-Event-ID``).

    Parameters
    ----------
    max_events
        How many of the latest events of a call's stream the gateway keeps; 0 keeps none.
    keep_s
        How long the gateway keeps them after the client has disconnected.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ResumeFields]) -> None: ...

    max_events: Annotated[int, Meta(ge=0, le=1_000_000)] = 256
    keep_s: Seconds = 60.0
