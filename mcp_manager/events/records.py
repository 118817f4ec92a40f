"""The events of a manager: one record for each thing that happens to a server."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec

from mcp_manager.serialization import Serializable
from mcp_manager.types import ServerState

__all__ = [
    "ChildExited",
    "ChildStarted",
    "CircuitChanged",
    "ConfigApplied",
    "Event",
    "EventsMissed",
    "ServerDeployed",
    "ServerEvent",
    "ServerRedeployed",
    "ServerScaled",
    "ServerStateChanged",
    "ServerUndeployed",
    "SessionLost",
    "SessionReplaced",
    "ToolsChanged",
]


def _now() -> datetime:
    return datetime.now(UTC)


class Event(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened.

    Attributes
    ----------
    at
        When, in UTC.
    monotonic_ns
        The same moment of :func:`time.monotonic_ns`, which tells how far events are apart even if the clock is set.
    """

    at: datetime = msgspec.field(default_factory=_now)
    monotonic_ns: int = msgspec.field(default_factory=time.monotonic_ns)


class ServerEvent(Event, frozen=True, kw_only=True):
    """Something that happened to one server.

    Attributes
    ----------
    server_id
        The server.
    """

    server_id: str


class ServerStateChanged(ServerEvent, frozen=True, kw_only=True):
    """The state of a server changed.

    Each server begins as ``Initializing``. ``previous`` is always the ``state`` of the event before.

    Attributes
    ----------
    previous, state
        The state before and after.
    reasons
        Why it is not ``Healthy``, as in ``server(id).reasons``.
    error
        The error behind it, without credentials; ``None`` if there is none.
    duration_s
        How many seconds the previous state lasted.
    outage_s
        For a server that is ``Healthy`` again: how many seconds it was ``Degraded`` or ``Unhealthy``; else ``None``.
    """

    previous: ServerState
    state: ServerState
    reasons: tuple[str, ...] = ()
    error: str | None = None
    duration_s: float = 0.0
    outage_s: float | None = None


class ChildStarted(ServerEvent, frozen=True, kw_only=True):
    """A program was started and is ready for calls.

    Attributes
    ----------
    instance
        The index of the instance.
    pid
        Its process id.
    revision
        The revision of the protocol that it speaks.
    outage_s
        Seconds since the instance last had a program; ``None`` for the first one.
    """

    instance: int
    pid: int
    revision: str | None = None
    outage_s: float | None = None


class ChildExited(ServerEvent, frozen=True, kw_only=True):
    """A program ended without being asked to, ended while it was being started, or was killed because it hung.

    Attributes
    ----------
    instance
        The index of the instance.
    pid
        The id that its process had, 0 if it is not known.
    reason
        How it ended, in words.
    was_ready
        Whether it was ready for calls; ``False`` if it ended while it was being started.
    exit_status
        Its exit status; ``None`` if a signal ended it, or if it hung.
    signal
        The name of the signal that ended it, such as ``SIGKILL``; ``None`` without one.
    stderr
        The end of what it wrote that may explain it, without credentials.
    restart_in_s
        Seconds until it is started again; ``None`` if it is not.
    uptime_s
        How many seconds it was ready for calls; ``None`` if it never was.
    """

    instance: int
    pid: int
    reason: str
    was_ready: bool = True
    exit_status: int | None = None
    signal: str | None = None
    stderr: str = ""
    restart_in_s: float | None = None
    uptime_s: float | None = None


class CircuitChanged(ServerEvent, frozen=True, kw_only=True):
    """The circuit of an instance opened, became half open, or closed.

    Attributes
    ----------
    instance
        The index of the instance.
    previous, circuit
        The state before and after: ``Closed``, ``Open`` or ``HalfOpen``. From ``HalfOpen`` to ``Open``, a trial failed.
    reason
        ``failures``, ``trial failed``, ``trial due``, ``recovered``, or ``restart`` (its program has ended, or a new
        one was started).
    retry_after_s
        Seconds until an open circuit admits a trial; 0 otherwise.
    """

    instance: int
    previous: str
    circuit: str
    reason: str
    retry_after_s: float = 0.0


class SessionLost(ServerEvent, frozen=True, kw_only=True):
    """The session with a URL was lost. For programs, see :class:`ChildExited`.

    Attributes
    ----------
    instance
        The index of the instance.
    reason
        Why, without credentials.
    """

    instance: int
    reason: str


class SessionReplaced(ServerEvent, frozen=True, kw_only=True):
    """A new session with a URL took the place of a lost one. For programs, see :class:`ChildStarted`.

    Attributes
    ----------
    instance
        The index of the instance.
    revision
        The revision of the protocol that it speaks.
    outage_s
        Seconds since the instance last had a session.
    """

    instance: int
    revision: str | None = None
    outage_s: float | None = None


class ServerDeployed(ServerEvent, frozen=True, kw_only=True):
    """A server was added.

    Attributes
    ----------
    instances
        How many instances it should have.
    transport
        As configured: ``stdio``, ``http`` or ``sse``.
    """

    instances: int
    transport: str


class ServerUndeployed(ServerEvent, frozen=True, kw_only=True):
    """A server was removed: the last event of a server, unless it is deployed again."""


class ServerRedeployed(ServerEvent, frozen=True, kw_only=True):
    """A new configuration of a server took over.

    Attributes
    ----------
    instances
        How many instances it should have.
    """

    instances: int


class ServerScaled(ServerEvent, frozen=True, kw_only=True):
    """The number of instances that a server should have was set.

    Attributes
    ----------
    previous, instances
        The number before and after.
    """

    previous: int
    instances: int


class ToolsChanged(ServerEvent, frozen=True, kw_only=True):
    """A server said that its list of tools has changed."""


class ConfigApplied(Event, frozen=True, kw_only=True):
    """``apply()`` has ended; see :class:`Applied` for what the names mean.

    Attributes
    ----------
    deployed, redeployed, updated, undeployed, failed, starting, invalid
        Server ids, sorted.
    """

    deployed: tuple[str, ...] = ()
    redeployed: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    undeployed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    starting: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


class EventsMissed(Event, frozen=True, kw_only=True):
    """A listener was too slow, so that its oldest events were dropped.

    Attributes
    ----------
    count
        How many events are missing at this place.
    """

    count: int
