"""``Client``: who sends a request to the gateway, and what that program can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_manager.protocol.revisions import Era

__all__ = ["ANONYMOUS", "Client"]

ANONYMOUS: Final = "anonymous"
"""The principal of clients that do not authenticate."""


class Client(msgspec.Struct, frozen=True):
    """A program that sends requests to the gateway.

    Parameters
    ----------
    era
        Whether it has made a handshake, or sends what it can with every request.
    revision
        The revision of the protocol that it speaks.
    capabilities
        What it can do, as it declared it.
    principal
        Whom it acts for.
    session
        Names its session; "" in the stateless era, which has none.
    worker
        The number of the worker process that keeps its session.
    """

    era: Era
    revision: str
    capabilities: Mapping[str, Any] = {}
    principal: str = ANONYMOUS
    session: str = ""
    worker: int = 0

    @property
    def can_be_asked(self) -> bool:
        """Whether servers can ask it anything: for input, for text of a model, or for its roots."""
        declared = self.capabilities
        return "elicitation" in declared or "sampling" in declared or "roots" in declared
