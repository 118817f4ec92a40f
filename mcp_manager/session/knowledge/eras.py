"""The era of the protocol that each endpoint of one server speaks, as far as it is known."""

from __future__ import annotations

import asyncio

from mcp_manager.protocol.discover import Stateless
from mcp_manager.protocol.revisions import Era

__all__ = ["EraMemory"]


class EraMemory:
    """Remember the era of a server's endpoints, and whether they need HTTP+SSE.

    An endpoint is named by the key that :meth:`SessionTemplate.endpoint_key` returns.
    """

    __slots__ = ("_confirmed", "_eras", "_probe_locks", "_silent", "_verdicts")

    def __init__(self) -> None:
        self._eras: dict[str, tuple[Era, bool]] = {}
        self._verdicts: dict[str, Stateless] = {}
        self._probe_locks: dict[str, asyncio.Lock] = {}
        # Endpoints whose handshake era was doubted, and whether a handshake has confirmed it since.
        self._confirmed: dict[str, bool] = {}
        # Endpoints that completed a handshake without answering the probe, which does not prove their era.
        self._silent: frozenset[str] = frozenset()

    def without_answers(self) -> EraMemory:
        """Return a copy for another principal: stateless endpoints are left out, because their answers are kept."""
        copy = EraMemory()
        copy._eras = {endpoint: known for endpoint, known in self._eras.items() if known[0] is Era.HANDSHAKE}
        copy._confirmed = dict(self._confirmed)
        copy._silent = self._silent
        return copy

    def recall(self, endpoint: str) -> tuple[Era, bool] | None:
        """Return the era and whether the endpoint needs HTTP+SSE, ``None`` if they are not known."""
        return self._eras.get(endpoint)

    def verdict(self, endpoint: str) -> Stateless | None:
        """Return the verdict on a stateless endpoint, ``None`` if there is none."""
        return self._verdicts.get(endpoint)

    def probe_lock(self, endpoint: str) -> asyncio.Lock:
        """Return the lock under which one session probes an endpoint while the others wait for the result."""
        return self._probe_locks.setdefault(endpoint, asyncio.Lock())

    def keep(self, endpoint: str, era: Era, *, sse: bool = False, verdict: Stateless | None = None) -> None:
        """Remember the outcome of a negotiation.

        Parameters
        ----------
        endpoint
            The endpoint's key.
        era
            The era that it speaks.
        sse
            Whether it needs HTTP+SSE.
        verdict
            The verdict of the probe on a stateless endpoint.
        """
        if endpoint in self._silent:
            self._silent -= {endpoint}
        self._eras[endpoint] = (era, sse)
        if verdict is not None:
            self._verdicts[endpoint] = verdict
        if era is Era.STATELESS:
            self._confirmed.pop(endpoint, None)
        elif endpoint in self._confirmed:
            self._confirmed[endpoint] = True

    def keep_silent(self, endpoint: str) -> None:
        """Remember that an endpoint completed a handshake without answering the probe; it is probed again."""
        self._silent |= {endpoint}

    def is_silent(self, endpoint: str) -> bool:
        """Tell whether an endpoint left the probe unanswered, so that the handshake need not wait for it."""
        return endpoint in self._silent

    def forget(self, endpoint: str) -> None:
        """Forget the era of an endpoint, so that it is probed again."""
        self._eras.pop(endpoint, None)
        self._verdicts.pop(endpoint, None)

    def doubt(self, endpoint: str) -> None:
        """Forget the era of an endpoint that sent an error which only stateless servers should send."""
        self._confirmed[endpoint] = False
        self.forget(endpoint)

    def is_certain(self, endpoint: str) -> bool:
        """Tell whether a handshake has succeeded since such an error: the server uses the code in its own sense."""
        return self._confirmed.get(endpoint, False)
