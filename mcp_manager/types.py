"""The enumerations of the package, the selector of servers, and the structs that the bindings return."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from mcp_manager.errors import InvalidRequestError
from mcp_manager.serialization import Serializable, View

__all__ = [
    "CIRCUIT_STATE_CLOSED",
    "CIRCUIT_STATE_HALF_OPEN",
    "CIRCUIT_STATE_OPEN",
    "SERVER_STATE_DEGRADED",
    "SERVER_STATE_HEALTHY",
    "SERVER_STATE_INITIALIZING",
    "SERVER_STATE_MAINTENANCE",
    "SERVER_STATE_STOPPED",
    "SERVER_STATE_UNHEALTHY",
    "CallStatus",
    "CircuitState",
    "Outcome",
    "PyHealthStatus",
    "PyServerInfo",
    "Rejection",
    "Selector",
    "SequenceNotStr",
    "ServerState",
]

T_co = TypeVar("T_co", covariant=True)


class SequenceNotStr(Protocol[T_co]):
    """A list, a tuple or any other sequence of texts, for type checkers: ``str`` is one of ``str``, too, and is refused."""

    def __getitem__(self, index: int, /) -> T_co: ...
    def __contains__(self, value: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...
    def __reversed__(self) -> Iterator[T_co]: ...
    def index(self, value: Any, start: int = ..., stop: int = ..., /) -> int:
        """Return the first index of a value."""
        ...

    def count(self, value: Any, /) -> int:
        """Return how often a value occurs."""
        ...


class Selector(Serializable, msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Select any server with the given properties, instead of one by its id.

    A call goes to one of the deployed servers that have all of the properties: of two drawn at random from the highest
    ``priority`` with a ready server, the one that is expected to answer sooner. If it fails, the call goes to another
    server, provided that the request was certainly not executed or is safe to repeat.

    Parameters
    ----------
    tag, tags
        Tags that the server has; ``tag`` is a single one, and becomes part of ``tags``.
    server_type
        The ``server_type`` of the server.
    tool
        The name of a tool that the server lists.

    Raises
    ------
    InvalidRequestError
        No property is given (selecting every server is most often a mistake), or one is not a string; a
        ``ValueError``.
    """

    tag: str | None = None
    tags: tuple[str, ...] = ()
    server_type: str | None = None
    tool: str | None = None

    if TYPE_CHECKING:
        # For type checkers, which would otherwise accept a tuple only.
        def __init__(
            self,
            *,
            tag: str | None = None,
            tags: SequenceNotStr[str] | AbstractSet[str] = (),
            server_type: str | None = None,
            tool: str | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if self.tag is None and not self.tags and self.server_type is None and self.tool is None:
            raise InvalidRequestError("a Selector needs a tag, a server_type or a tool")
        for name in ("tag", "server_type", "tool"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidRequestError(
                    f"{name} of a Selector must be a string, not of type {type(value).__name__}",
                    hint="use tags for several" if name == "tag" else "",
                )
        if not isinstance(self.tags, tuple | list | set | frozenset) or not all(isinstance(x, str) for x in self.tags):
            raise InvalidRequestError("tags of a Selector must be a sequence of strings; use tag for a single one")
        tags = {*self.tags, *(() if self.tag is None else (self.tag,))}
        msgspec.structs.force_setattr(self, "tag", None)
        msgspec.structs.force_setattr(self, "tags", tuple(sorted(tags)))

    def __str__(self) -> str:
        wanted = [f"tag {tag!r}" for tag in self.tags]
        wanted += [f"server_type {self.server_type!r}"] if self.server_type is not None else []
        wanted += [f"tool {self.tool!r}"] if self.tool is not None else []
        return ", ".join(wanted)


class ServerState(enum.StrEnum):
    """The state of a server, as ``get_server_state`` returns it."""

    INITIALIZING = "Initializing"
    """Not probed yet, or still starting."""
    HEALTHY = "Healthy"
    """It serves, and nothing is wrong."""
    DEGRADED = "Degraded"
    """It serves, but something is wrong."""
    UNHEALTHY = "Unhealthy"
    """No instance can serve."""
    MAINTENANCE = "Maintenance"
    """An operator took it out of traffic."""
    STOPPED = "Stopped"
    """It has no instances."""


class CircuitState(enum.IntEnum):
    """The state of a circuit breaker; the numbers are those of the ``mcp_circuit_breaker_state`` metric."""

    CLOSED = 0
    """Calls pass."""
    OPEN = 1
    """Calls are refused."""
    HALF_OPEN = 2
    """A few trial calls pass; they decide whether it closes or opens again."""

    @property
    def label(self) -> str:
        """The name of the state, such as ``HalfOpen``."""
        return _CIRCUIT_LABELS[self]


class Outcome(enum.IntEnum):
    """How a finished call counts for the circuit breaker; the compiled core uses the same numbers."""

    SUCCESS = 0
    FAILURE = 1
    IGNORED = 2


class CallStatus(enum.IntEnum):
    """How a call ended: the index of its counter in the compiled core, and the ``status`` label of its metric."""

    SUCCESS = 0
    RPC_ERROR = 1
    CONNECT_ERROR = 2
    CONNECTION_LOST = 3
    TIMEOUT = 4
    PROTOCOL_ERROR = 5
    AUTH_ERROR = 6
    OVERLOADED = 7
    SESSION_LOST = 8
    CANCELLED = 9
    CIRCUIT_OPEN = 10
    NO_INSTANCE = 11
    TOOL_ERROR = 12
    """A result in which the tool itself reports a failure (``isError``)."""

    @property
    def label(self) -> str:
        """The value of the ``status`` label."""
        return self.name.lower()


class Rejection(enum.IntEnum):
    """Why the router refused a call; the compiled core uses the same numbers."""

    CIRCUIT_OPEN = 10
    NO_INSTANCE = 11
    CONCURRENCY = 12
    RATE = 13
    SHED = 14
    PAUSED = 15
    TOGETHER = 16


SERVER_STATE_INITIALIZING: Final = "Initializing"
SERVER_STATE_HEALTHY: Final = "Healthy"
SERVER_STATE_DEGRADED: Final = "Degraded"
SERVER_STATE_UNHEALTHY: Final = "Unhealthy"
SERVER_STATE_MAINTENANCE: Final = "Maintenance"
SERVER_STATE_STOPPED: Final = "Stopped"
CIRCUIT_STATE_CLOSED: Final = "Closed"
CIRCUIT_STATE_OPEN: Final = "Open"
CIRCUIT_STATE_HALF_OPEN: Final = "HalfOpen"

_CIRCUIT_LABELS: Final = {
    CircuitState.CLOSED: CIRCUIT_STATE_CLOSED,
    CircuitState.OPEN: CIRCUIT_STATE_OPEN,
    CircuitState.HALF_OPEN: CIRCUIT_STATE_HALF_OPEN,
}


class PyHealthStatus(View):
    """The health of the whole fleet at one instant; it is a dict, too, for ``json`` and web frameworks.

    ``healthy_servers + degraded_servers + unhealthy_servers == total_servers`` always holds.

    Parameters
    ----------
    total_servers
        Deployed servers.
    healthy_servers, unhealthy_servers
        Servers in these states.
    degraded_servers
        All other servers, including those that are not probed yet.
    avg_response_time_ms
        Mean duration of the calls of the last minute, in milliseconds; 0 without calls.
    loop_lag_ms
        The longest delay of the event loop in the last minute, in milliseconds; it delays every call.
    """

    __slots__ = ()

    total_servers: int
    healthy_servers: int
    degraded_servers: int
    unhealthy_servers: int
    avg_response_time_ms: int
    loop_lag_ms: int = 0


class PyServerInfo(View):
    """One deployed server, as ``list_servers`` returns it; it is a dict, too, for ``json`` and web frameworks.

    Parameters
    ----------
    id, name, server_type, priority
        As in its configuration.
    state
        A value of :class:`ServerState`.
    """

    __slots__ = ()

    id: str
    name: str
    server_type: str
    state: str
    priority: int
