"""The seam between a transport and the credentials of its requests, where these change while it lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mcp_manager.auth.challenge import Challenge

__all__ = ["Authorization", "UnreachableError"]


class UnreachableError(OSError):
    """A place that authorization needs cannot be reached; the text says why, ``hint`` is the way out."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class Authorization(Protocol):
    """What one protected resource is asked with."""

    @property
    def per_request(self) -> bool:
        """Whether every request needs header fields of its own (a DPoP proof): such requests cannot be prepared."""

    @property
    def generation(self) -> int:
        """Counts the tokens: it rises with each new one."""

    def header(self) -> tuple[str, str] | None:
        """Return the header that all requests share, ``None`` before there is a token, and where ``per_request``."""

    def fields(self, verb: str, url: str) -> dict[str, str]:
        """Return the header fields of one request, credentials included; they must not be used for a second one."""

    def take_nonce(self, nonce: str) -> None:
        """Use a nonce that the server gave in ``DPoP-Nonce`` from now on (RFC 9449, section 8.2)."""

    async def make_ready(self) -> None:
        """Take up a token that was kept, and renew one that expires, where that needs nobody's consent."""

    async def challenged(self, challenge: Challenge, generation: int) -> bool:
        """Obtain what a refused request lacked; ``False``: there is no more to be had, the refusal stands.

        ``generation`` is that of the token it was sent with. Raises :class:`AuthError` if authorizing failed.
        """

    def refused_again(self) -> None:
        """Learn that a token just obtained was refused: another one is not asked for at once."""

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have ``changed`` called with every new token until the returned function is called."""

    async def aclose(self) -> None:
        """End what is under way; idempotent."""
