"""The routing of calls to a selector: which matching server is tried first, and which one next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from random import randrange
from typing import Final, TypeVar

from mcp_manager._core.router import Router
from mcp_manager.calls.affinity import PinTable, state_lost
from mcp_manager.calls.retry_rules import cover_all_attempts, is_safe
from mcp_manager.errors import (
    CallError,
    CircuitOpenError,
    ConnectionLostError,
    DeadlineExceededError,
    OverloadedError,
    ServerNotFoundError,
    SessionLostError,
    ToolNotAllowedError,
)
from mcp_manager.fleet.index import Chooser, FleetIndex, Group
from mcp_manager.health import HealthMonitor
from mcp_manager.protocol.methods import CALL_TOOL
from mcp_manager.protocol.request import Operation
from mcp_manager.runtime.background import background_task, read_failure
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import Selector, ServerState
from mcp_manager.verbs.tool_cache import ToolCache

__all__ = ["Routing"]

T = TypeVar("T")

_UNEXECUTED: Final = ("not_sent", "rejected")
# Failures that cost no server anything: the next one is asked without a withdrawal from the retry budget.
_REFUSALS: Final = (CircuitOpenError, OverloadedError, ToolNotAllowedError)
_PER_PRIORITY: Final = 3
_IN_ALL: Final = 8
_KEYS: Final = 10_000
_KEY_TTL_NS: Final = 3600 * 10**9
_TOOL_GROUPS: Final = 256
_LISTING_S: Final = 5.0
# How long the list of servers with a tool is used: if all servers could be asked, and if some could not.
_HOLDS_NS: Final = 300 * 10**9
_HOLDS_IN_PART_NS: Final = 5 * 10**9
_UNKNOWN_LATENCY_S: Final = 0.03
_INSTANCES_LOOKED_AT: Final = 4
_READY: Final = (ServerState.HEALTHY, ServerState.DEGRADED, ServerState.INITIALIZING)
# If no server is ready, one in the first of these states is called: its error is the most informative.
_INFORMATIVE: Final = (ServerState.UNHEALTHY, ServerState.MAINTENANCE, ServerState.STOPPED)


class Routing:
    """Route calls to any server that matches a :class:`Selector`.

    Parameters
    ----------
    servers
        The supervisors of the deployed servers, by id.
    index
        Finds deployed servers by tag, type and priority.
    monitor
        Says which servers are ready.
    router
        Measures their latencies, and keeps the retry budgets.
    tools
        Lists their tools.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(
        self,
        servers: Mapping[str, Supervisor],
        index: FleetIndex,
        monitor: HealthMonitor,
        router: Router,
        tools: ToolCache,
        clock: Callable[[], int],
    ) -> None:
        self._servers = servers
        self._monitor = monitor
        self._router = router
        self._tools = tools
        self._clock = clock
        self._index = index
        self._chooser = Chooser(self._is_ready, self._cost, randrange)
        self._keys: PinTable[tuple[str, bool]] = PinTable(_KEYS, _KEY_TTL_NS)
        self._holders: dict[Selector, _Holders] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(
        self,
        selector: Selector,
        operation: Operation,
        timeout: float | None,
        attempt: Callable[[str, float | None], Awaitable[T]],
    ) -> T:
        """Call a matching server and, if it fails, others; return the first result.

        Another server is called only if the request was certainly not executed or is safe to repeat, and if the retry
        budget allows it: at most three servers of each priority, and eight in all.

        Parameters
        ----------
        selector
            The properties that a server must have.
        operation
            What is called. Its method and tool decide whether it is safe to repeat. Calls with the same key go to the
            same server while that is ready; if its affinity is ``hard``, they go to no other.
        timeout
            Seconds for everything together; ``None`` for the ``request_timeout_s`` of the first server.
        attempt
            ``await attempt(server_id, timeout)`` makes the call.

        Raises
        ------
        ServerNotFoundError
            No deployed server matches.
        SessionLostError
            The server that kept the state of this key is gone, and its affinity was ``hard``.
        CallError
            All servers that were called failed. It is the first failure, or the last one of a call that may have been
            executed.
        """
        end_ns = None if timeout is None else self._clock() + round(timeout * 1e9)
        group = self._permitting(await self._group(selector, timeout), operation)
        key = operation.key
        pinned = self._pinned(selector, key)
        tried: list[str] = []
        failure: CallError | None = None
        may_have_run = False
        for server_id in self._candidates(group, pinned, tried):
            left = None if end_ns is None else max(0, end_ns - self._clock()) / 1e9
            if failure is not None and left == 0:
                break
            if end_ns is None:
                end_ns = self._clock() + self._servers[server_id].request_timeout_ns
            tried.append(server_id)
            try:
                result = await attempt(server_id, left)
            except CallError as error:
                # The first failure is the most informative, unless a later call may have been executed.
                failure = failure if failure is not None and error.delivery in _UNEXECUTED else error
                may_have_run = may_have_run or error.delivery == "unknown"
                if (pinned is not None and pinned[1]) or not self._may_go_on(server_id, operation, error):
                    break
                continue
            self._pin(selector, key, server_id)
            return result
        if failure is not None:
            raise cover_all_attempts(failure, failure.attempts, may_have_run=may_have_run)
        raise ServerNotFoundError(f"with {selector}", hint="deploy a server that matches, or change the selector")

    async def aclose(self) -> None:
        """Cancel the tasks that look for the servers with a tool."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Which servers

    def _candidates(self, group: Group, pinned: tuple[str, bool] | None, tried: list[str]) -> Iterator[str]:
        """Yield the servers to try; each is chosen only after the one before it has failed."""
        if pinned is not None and (pinned[1] or self._is_ready(pinned[0])):
            yield pinned[0]
        below: int | None = None
        of_this_priority: dict[int, int] = {}
        while len(tried) < _IN_ALL:
            server_id = group.choose(self._chooser, tried, below)
            if server_id is None:
                break
            priority = self._servers[server_id].config.priority
            of_this_priority[priority] = of_this_priority.get(priority, 0) + 1
            if of_this_priority[priority] == _PER_PRIORITY:
                below = priority
            yield server_id
        if not tried:
            # No server is ready: the error of a call to one of them says why.
            deployed = [each for each in group.not_ready() if each in self._servers]
            yield from sorted(deployed, key=self._error_rank)[:1]

    def _is_ready(self, server_id: str) -> bool:
        supervisor = self._servers.get(server_id)
        return supervisor is not None and self._monitor.state(supervisor)[0] in _READY

    def _error_rank(self, server_id: str) -> int:
        """Rank a server by how much the error of a call to it says; the lowest rank says most."""
        state, _ = self._monitor.state(self._servers[server_id])
        return _INFORMATIVE.index(state) if state in _INFORMATIVE else -1

    def _cost(self, server_id: str) -> float:
        """Return the cost of a call in seconds: the lowest of a few instances (latency times calls, by weight)."""
        now_ns = self._clock()
        instances = self._servers[server_id].instances[:_INSTANCES_LOOKED_AT]
        return min((self._cost_of(each, now_ns) for each in instances), default=_UNKNOWN_LATENCY_S)

    def _cost_of(self, instance: Instance, now_ns: int) -> float:
        if instance.backend is None:
            return _UNKNOWN_LATENCY_S
        reading = self._router.backend_reading(instance.backend, now_ns)
        latency_s = reading.latency_s
        if latency_s is None:
            # An idle connected instance is preferred until it is measured; connecting another one takes time.
            latency_s = 0.0 if instance.session is not None and not reading.inflight else _UNKNOWN_LATENCY_S
        return latency_s * (reading.inflight + 1) / reading.weight

    def _may_go_on(self, server_id: str, operation: Operation, error: CallError) -> bool:
        """Tell whether the call may go to another server after this failure."""
        supervisor = self._servers.get(server_id)
        if isinstance(error, SessionLostError) and not error.retryable:
            # The state that the caller lost exists on no other server.
            return False
        if error.delivery not in _UNEXECUTED:
            if supervisor is None or error.delivery != "unknown" or not error.retryable:
                return False
            if not is_safe(
                operation.method, operation.tool, supervisor.config.retry, supervisor.template.knowledge.hints
            ):
                return False
        was_refused_here = error.delivery == "not_sent" and isinstance(error, _REFUSALS)
        return was_refused_here or supervisor is None or self._router.withdraw(supervisor.record, self._clock())

    def _permitting(self, group: Group, operation: Operation) -> Group:
        """Return the servers that permit the tool of an operation; all, if none does: the error of one says so."""
        if operation.method != CALL_TOOL or not isinstance(operation.tool, str):
            return group
        part = self._index.permitting(group, operation.tool)
        return part if len(part) else group

    # Keys

    def _pinned(self, selector: Selector, key: str | None) -> tuple[str, bool] | None:
        """Return the server that took the last call of a key, and whether the key is bound to it (``hard``)."""
        pinned = None if key is None else self._keys.get((selector, key), self._clock())
        if pinned is None:
            return None
        supervisor = self._servers.get(pinned[0])
        if supervisor is not None:
            return pinned[0], supervisor.config.balancing.affinity == "hard"
        self._keys.drop((selector, key))
        if pinned[1]:
            raise state_lost(pinned[0], "not_sent")
        return None

    def _pin(self, selector: Selector, key: str | None, server_id: str) -> None:
        supervisor = self._servers.get(server_id)
        if key is not None and supervisor is not None:
            is_hard = supervisor.config.balancing.affinity == "hard"
            self._keys.put((selector, key), (server_id, is_hard), self._clock())

    # Tools

    async def _group(self, selector: Selector, timeout: float | None) -> Group:
        group = self._index.group(selector.tags, selector.server_type)
        if selector.tool is None:
            return group
        holders = self._holders.pop(selector, None) or _Holders()
        while len(self._holders) >= _TOOL_GROUPS:
            del self._holders[next(iter(self._holders))]
        # Inserted last, so that the least recently used selector is dropped first.
        self._holders[selector] = holders
        version = self._index.version, self._tools.version
        is_fresh = holders.version == version and self._clock() < holders.fresh_until_ns
        if not is_fresh and (holders.task is None or holders.task.done()):
            holders.task = background_task(
                self._find_holders(selector, selector.tool, holders, version), "find who has a tool", among=self._tasks
            )
            # The failure is retrieved here because the caller may give up waiting.
            holders.task.add_done_callback(read_failure)
        if holders.group is not None:
            # The last result is good enough while the task refreshes it.
            return holders.group
        task = holders.task
        assert task is not None
        done, _ = await asyncio.wait({task}, timeout=timeout)
        if not done:
            raise DeadlineExceededError(
                f"the search for servers with {selector} did not end within the timeout of {timeout:g} s",
                delivery="not_sent",
                hint="pass a longer timeout=",
            )
        if task.cancelled():
            raise ConnectionLostError("the manager was stopped during the call", delivery="not_sent")
        task.result()
        assert holders.group is not None
        return holders.group

    async def _find_holders(self, selector: Selector, tool: str, holders: _Holders, version: tuple[int, int]) -> None:
        group = self._index.group(selector.tags, selector.server_type)
        members = [each for level in group.by_priority().values() for each in level]
        asked = [each for each in members if self._is_ready(each)]
        found, is_complete = await self._tools.holders(tool, asked, _LISTING_S)
        holders.group = self._index.part(group, found)
        holders.version = version
        is_complete = is_complete and len(asked) == len(members)
        holders.fresh_until_ns = self._clock() + (_HOLDS_NS if is_complete else _HOLDS_IN_PART_NS)


class _Holders:
    """The known servers with a tool, and the task that looks for them."""

    __slots__ = ("fresh_until_ns", "group", "task", "version")

    def __init__(self) -> None:
        self.group: Group | None = None
        self.version = (-1, -1)
        self.fresh_until_ns = 0
        self.task: asyncio.Task[None] | None = None
