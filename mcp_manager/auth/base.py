"""The interface between a transport and credentials that change during its life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mcp_manager.auth.challenge import Challenge

__all__ = ["Authorization", "UnreachableError"]


class UnreachableError(OSError):
    """A host that authorization needs cannot be reached; the text says why, ``hint`` what to do about it."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class Authorization(Protocol):
    """The changing credentials of one protected resource."""

    @property
    def per_request(self) -> bool:
        """Whether every request needs its own header fields (a DPoP proof), so that none can be prepared in advance."""

    @property
    def generation(self) -> int:
        """The number of tokens obtained so far; a new token increments it."""

    def header(self) -> tuple[str, str] | None:
        """Return the header that all requests share; ``None`` without a token, and with ``per_request``."""

    def fields(self, verb: str, url: str) -> dict[str, str]:
        """Return the header fields of one request, credentials included; use them once only."""

    def take_nonce(self, nonce: str) -> None:
        """Use a nonce from the server's ``DPoP-Nonce`` header from now on (RFC 9449, section 8.2)."""

    async def make_ready(self) -> None:
        """Load a stored token, and renew an expired one if that needs no user consent."""

    async def challenged(self, challenge: Challenge, generation: int) -> bool:
        """Obtain what a refused request lacked.

        Parameters
        ----------
        challenge
            What the refusal says.
        generation
            That of the token that the request was sent with.

        Returns
        -------
        Whether to send the request again; ``False`` if nothing more can be obtained.

        Raises
        ------
        AuthError
            The authorization failed.
        """

    def refused_again(self) -> None:
        """Record that the server refused a new token, so that the next one is not requested at once."""

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` with every new token, until the returned function is called."""

    async def aclose(self) -> None:
        """Cancel an authorization in progress; idempotent."""
