"""What the examination of a credential found."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from mcp_manager.gateway.security.principal import Principal

__all__ = ["Rejected", "Verdict", "Verified"]


class Verified(msgspec.Struct, frozen=True, eq=False):
    """A credential that is in force.

    Parameters
    ----------
    principal
        Who has shown it.
    until
        How long this holds without another examination, in seconds since the epoch.
    paths
        The paths of the endpoints that it is for; ``None`` for all (RFC 8707, section 2).
    """

    principal: Principal
    until: float
    paths: Collection[str] | None = None


class Rejected(msgspec.Struct, frozen=True):
    """A credential that is not accepted.

    Parameters
    ----------
    error
        The error code (RFC 6750, section 3.1), or ``unavailable`` if it cannot be examined at present.
    text
        Why, for the client: never with a part of the credential.
    retry_after_s
        When to try again, if it cannot be examined at present.
    """

    error: Literal["invalid_request", "invalid_token", "insufficient_scope", "unavailable"]
    text: str
    retry_after_s: int = 0


Verdict = Verified | Rejected
