"""The interface between a transport and credentials that change during its life."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from mcp_manager.auth.challenge import Challenge

__all__ = ["Authorization", "Authorizations", "UnreachableError"]


class UnreachableError(OSError):
    """A host that authorization needs cannot be reached; the text says why, ``hint`` what to do about it."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class Authorization(Protocol):
    """The changing credentials of one protected resource."""

    @property
    def pending_hint(self) -> str:
        """What a caller may do whose deadline passes while credentials are obtained."""

    @property
    def per_request(self) -> bool:
        """Whether every request needs its own header fields (a DPoP proof), so that none can be prepared in advance."""

    @property
    def generation(self) -> int:
        """The number of credentials obtained so far; new ones increment it."""

    def headers(self) -> Mapping[str, str]:
        """Return the header fields that all requests share; none without credentials, and with ``per_request``."""

    def fields(self, verb: str, url: str) -> dict[str, str]:
        """Return the header fields of one request, credentials included; use them once only."""

    def take_nonce(self, nonce: str) -> None:
        """Use a nonce from the server's ``DPoP-Nonce`` header from now on (RFC 9449, section 8.2)."""

    async def make_ready(self) -> None:
        """Load stored credentials, and renew expired ones if that needs no user consent.

        Raises
        ------
        AuthError
            There are none, and there is no point in a request without.
        """

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


class Authorizations(Protocol):
    """The changing credentials of one server, which its instances share."""

    @property
    def pending_hint(self) -> str:
        """What a caller may do whose deadline passes while credentials are obtained."""

    @property
    def is_pending(self) -> bool:
        """Whether credentials are being obtained."""

    def of(self, url: str) -> Authorization:
        """Return the authorization for an endpoint."""

    async def aclose(self) -> None:
        """Stop obtaining credentials; idempotent."""
