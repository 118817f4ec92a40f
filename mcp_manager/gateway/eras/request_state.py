"""``requestState``: what clients of 2026-07-28 get back with their input, sealed so that nobody can change it."""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_manager.errors import RpcError
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.protocol.error_codes import INVALID_PARAMS

__all__ = ["Place", "RequestStates", "State"]

_PURPOSE: Final = b"requestState"
_LONGEST: Final = 1024 * 1024


class Place(msgspec.Struct, frozen=True, array_like=True):
    """What a state belongs to: it is worthless anywhere else."""

    principal: str
    endpoint: str
    method: str
    name: str


class State(msgspec.Struct, frozen=True, array_like=True):
    """What a state says.

    Parameters
    ----------
    place
        What it belongs to.
    server_id
        The server that asked.
    state
        The state that the server gave, as JSON; "" for a call that waits here.
    suspended
        Names the call that waits here; "" without one.
    worker
        The worker that made it. A call that waits is there; and where a program of another worker has asked, ``state``
        is one that only this way leads back to.
    """

    place: Place
    server_id: str
    state: str = ""
    suspended: str = ""
    worker: int = 0


_state_decoder = msgspec.msgpack.Decoder(State)


class RequestStates:
    """Seal states for clients, and open them again.

    Parameters
    ----------
    sealer
        Seals and opens.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, state: State) -> str:
        """Return a state for a client."""
        return self._sealer.seal(_PURPOSE, msgspec.msgpack.encode(state))

    def open(self, sealed: str, place: Place) -> State:
        """Return what a client's state says.

        Raises
        ------
        RpcError
            -32602: the gateway has not made it, or it belongs to another principal, endpoint or request.
        """
        state = self._read(sealed)
        if state is None or state.place != place:
            raise RpcError(
                INVALID_PARAMS,
                "Invalid params: requestState was not made for this request, or has been changed",
                {"source": "gateway"},
            )
        return state

    def worker_of(self, sealed: str) -> int | None:
        """Return the worker that made a state; ``None`` if none has."""
        state = self._read(sealed)
        return None if state is None else state.worker

    def _read(self, sealed: str) -> State | None:
        if len(sealed) > _LONGEST:
            return None
        plain = self._sealer.open(_PURPOSE, sealed)
        if plain is None:
            return None
        try:
            return _state_decoder.decode(plain)
        except msgspec.DecodeError:
            return None
