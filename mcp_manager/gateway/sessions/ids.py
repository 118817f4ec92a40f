"""Ids of sessions that carry all that the gateway has to know of them: no memory is kept for a session as such."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from mcp_manager.errors import RpcError
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.protocol.revisions import HANDSHAKE_REVISIONS, Era

__all__ = ["SessionIds"]

_PURPOSE: Final = b"session"
_FORMAT: Final = 1
_LONGEST_ID: Final = 6_144
_MOST_CAPABILITY_BYTES: Final = 2_048
_MOST_KNOWN: Final = 20_000
_MOST_ENDED: Final = 100_000
_MOST_DECLARED: Final = 256
_DISPENSABLE: Final = ("experimental", "extensions")


class _Content(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed into an id."""

    format: int
    issued_at: float
    principal: bytes
    revision: str
    capabilities: dict[str, Any]
    nonce: bytes
    endpoint: str
    worker: int


class _Known(msgspec.Struct, frozen=True):
    """The facts of an id that was opened."""

    client: Client
    endpoint: str
    expires_at: float


_decoder = msgspec.msgpack.Decoder(_Content)


class SessionIds:
    """Make ids of sessions, and tell whose session an id names.

    An id is valid for one principal at one endpoint, until it expires or the client ends its session.

    Parameters
    ----------
    sealer
        Encrypts the ids.
    ttl_s
        Seconds that an id is valid.
    worker
        The number of this worker process, which keeps the streams of the sessions that it begins.
    clock
        Returns the seconds since the epoch.
    """

    def __init__(
        self, sealer: Sealer, ttl_s: float = 86_400.0, worker: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self._sealer = sealer
        self._ttl_s = ttl_s
        self._worker = worker
        self._clock = clock
        # The ids used last are in the first one; both have at most half of what may be known.
        self._newer: dict[str, _Known] = {}
        self._older: dict[str, _Known] = {}
        # Most clients declare what others do as well.
        self._declared: dict[bytes, dict[str, Any]] = {}
        self.ended: dict[str, float] = {}
        """The sessions that their clients have ended, by name: when the id expires."""

    def replace_ttl(self, ttl_s: float) -> None:
        """Let ids be valid for so many seconds from now on, also those that were made before."""
        longer_s, self._ttl_s = ttl_s - self._ttl_s, ttl_s
        if longer_s > 0:
            # What has ended stays so for as long as its id would be valid by now.
            for session in self.ended:
                self.ended[session] += longer_s
        # What is known of an id is in the id, and when it expires is found again.
        self._newer, self._older = {}, {}

    def begin(
        self, endpoint: str, principal: str, revision: str, capabilities: Mapping[str, Any]
    ) -> tuple[str, Client]:
        """Begin a session, and return its id with the client that it stands for.

        Parameters
        ----------
        endpoint
            The name of the endpoint.
        principal
            Whom the client acts for.
        revision
            The revision that was agreed on.
        capabilities
            What the client declares.

        Raises
        ------
        RpcError
            The client declares more than fits into an id.
        """
        nonce = os.urandom(12)
        kept = _fitting(capabilities)
        content = _Content(_FORMAT, self._clock(), _digest(principal), revision, kept, nonce, endpoint, self._worker)
        session_id = self._sealer.seal(_PURPOSE, msgspec.msgpack.encode(content))
        return session_id, self._keep(session_id, content, principal).client

    def find(self, session_id: str, endpoint: str, principal: str) -> Client | None:
        """Return the client of a session; ``None`` unless the id is valid for this endpoint and principal."""
        known = self._newer.get(session_id)
        if known is None:
            known = self._recall(session_id, principal)
            if known is None:
                return None
        client = known.client
        if known.endpoint != endpoint or client.principal != principal or known.expires_at <= self._clock():
            return None
        # The same id can be written in several ways, and each of them may be known.
        return None if client.session in self.ended else client

    def end(self, session_id: str, client: Client) -> None:
        """Make the id of a client's session invalid.

        That is kept in memory alone: after a restart with the same keys, an id that was ended is valid again until it
        expires. It then names a session of the same principal in which nothing is under way, and nothing is set.
        """
        known = self._newer.pop(session_id, None) or self._older.get(session_id)
        self._older.pop(session_id, None)
        now = self._clock()
        # In the order in which sessions ended, which is roughly that in which their ids expire.
        while self.ended and (len(self.ended) >= _MOST_ENDED or next(iter(self.ended.values())) <= now):
            del self.ended[next(iter(self.ended))]
        self.ended[client.session] = now + self._ttl_s if known is None else known.expires_at

    def valid_until_ns(self, session_id: str) -> int:
        """Return until when an id is valid that was found before, in nanoseconds of the monotonic clock."""
        known = self._newer.get(session_id) or self._older.get(session_id)
        left_s = 0.0 if known is None else known.expires_at - self._clock()
        return time.monotonic_ns() + int(left_s * 1e9)

    def worker_of(self, session_id: str) -> int | None:
        """Return the number of the worker that began a session; ``None`` if the id was not made with these keys."""
        known = self._newer.get(session_id) or self._older.get(session_id)
        if known is not None:
            return known.client.worker
        content = self._open(session_id)
        return None if content is None else content.worker

    def _recall(self, session_id: str, principal: str) -> _Known | None:
        known = self._older.get(session_id)
        if known is not None:
            self._remember(session_id, known)
            return known
        content = self._open(session_id)
        if content is None or content.principal != _digest(principal):
            return None
        return self._keep(session_id, content, principal)

    def _open(self, session_id: str) -> _Content | None:
        if len(session_id) > _LONGEST_ID:
            return None
        plain = self._sealer.open(_PURPOSE, session_id)
        if plain is None:
            return None
        try:
            content = _decoder.decode(plain)
        except msgspec.DecodeError:
            # Made by another version of this program.
            return None
        is_current = content.format == _FORMAT and content.revision in HANDSHAKE_REVISIONS
        return content if is_current and content.issued_at + self._ttl_s > self._clock() else None

    def _keep(self, session_id: str, content: _Content, principal: str) -> _Known:
        declared = self._shared(content.capabilities)
        client = Client(Era.HANDSHAKE, content.revision, declared, principal, _name(content.nonce), content.worker)
        known = _Known(client, content.endpoint, content.issued_at + self._ttl_s)
        self._remember(session_id, known)
        return known

    def _shared(self, capabilities: dict[str, Any]) -> dict[str, Any]:
        """Return the same object for the same capabilities, as far as there is room."""
        key = msgspec.msgpack.encode(capabilities)
        if len(self._declared) >= _MOST_DECLARED:
            return self._declared.get(key, capabilities)
        return self._declared.setdefault(key, capabilities)

    def _remember(self, session_id: str, known: _Known) -> None:
        if len(self._newer) >= _MOST_KNOWN // 2:
            self._older, self._newer = self._newer, {}
        self._newer[session_id] = known


def _name(nonce: bytes) -> str:
    return base64.urlsafe_b64encode(nonce).decode("ascii")


def _digest(principal: str) -> bytes:
    return hashlib.blake2b(principal.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _fitting(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Return the capabilities without what no server needs to know, if they do not fit into an id."""
    kept = dict(capabilities)
    for name in ("", *_DISPENSABLE):
        kept.pop(name, None)
        if _size(kept) <= _MOST_CAPABILITY_BYTES:
            return kept
    raise RpcError(
        INVALID_PARAMS,
        f"The capabilities of the client are longer than {_MOST_CAPABILITY_BYTES:,} bytes",
        {"source": "gateway"},
    )


def _size(capabilities: dict[str, Any]) -> float:
    try:
        return len(msgspec.msgpack.encode(capabilities))
    except OverflowError:
        # JSON has integers that MessagePack does not.
        return math.inf
