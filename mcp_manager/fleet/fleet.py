"""The fleet of a manager: it deploys, replaces, scales and removes servers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from mcp_manager._core.router import Router
from mcp_manager.config import ServerConfig
from mcp_manager.config.arguments import check_server_id
from mcp_manager.config.parse import nearest
from mcp_manager.config.spec import ServerSpec, server_config_of
from mcp_manager.errors import (
    CallError,
    ConnectError,
    McpManagerError,
    ServerExistsError,
    ServerNotFoundError,
)
from mcp_manager.events.feed import EventFeed
from mcp_manager.events.records import ServerDeployed, ServerScaled, ServerUndeployed
from mcp_manager.fleet.assembly import Assembly
from mcp_manager.fleet.capacity import check_instances
from mcp_manager.fleet.index import FleetIndex, traits_of
from mcp_manager.fleet.observer import FleetObserver
from mcp_manager.fleet.rollout import Rollout, RolloutPlan
from mcp_manager.fleet.waiting import Readiness
from mcp_manager.health import HealthMonitor
from mcp_manager.runtime.background import background_task, bare_context, finish
from mcp_manager.runtime.phase import Phase, not_running
from mcp_manager.servers.core_settings import balancing_settings, limits_of
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import SessionTemplate

__all__ = ["MOMENT_S", "Fleet", "ServerSpec", "check", "collector_paused", "end_all"]

_log = logging.getLogger(__name__)

# A comparison takes microseconds, and whoever asks for a wrong id may do so often.
_MOST_COMPARED: Final = 100

MOMENT_S: Final = 0.25
"""How much longer callers wait than an attempt to connect may take, because its error says more than theirs."""


class Fleet:
    """Own the servers of a manager.

    The methods ``deploy``, ``undeploy``, ``redeploy``, ``scale`` and ``wait_ready`` are documented at the methods of
    :class:`~mcp_manager.McpManager` with the same names.

    Parameters
    ----------
    assembly
        Makes supervisors and session template.
    router
        The router to register servers with.
    monitor
        Probes and judges the servers.
    on_removed
        Called with a server that is removed, before the router forgets it and its calls under way end.
    on_ended
        ``on_ended(supervisor, is_gone)`` is called once a removed server has ended; ``is_gone`` tells that no other
        server has its id.
    clock
        Returns monotonic nanoseconds.

    Attributes
    ----------
    servers
        The supervisors by server id, in the order of deployment. Only this class changes it.
    index
        Finds servers by tag, type and priority. Only this class changes it.
    is_ended
        Whether the manager has begun to stop.
    events
        Takes what happens to the servers.
    """

    def __init__(
        self,
        assembly: Assembly,
        router: Router,
        monitor: HealthMonitor,
        on_removed: Callable[[Supervisor], None],
        on_ended: Callable[[Supervisor, bool], None],
        clock: Callable[[], int],
    ) -> None:
        self._assembly = assembly
        self.events: EventFeed = assembly.events
        self._router = router
        self._monitor = monitor
        self._observer = FleetObserver(monitor)
        self._on_removed = on_removed
        self._on_ended = on_ended
        self._clock = clock
        self.servers: dict[str, Supervisor] = {}
        self.index: FleetIndex = FleetIndex(
            lambda: ((each, traits_of(self.servers[each].config)) for each in self.servers)
        )
        # Supervisors that are ending: no longer among the servers, but their instances may still exist.
        self._passing: set[Supervisor] = set()
        self._readiness = Readiness(self.servers, monitor, self._observer)
        self.is_ended: bool = False

    def supervisor_of(self, server_id: str) -> Supervisor:
        """Return the supervisor of a server; raises :class:`ServerNotFoundError` if it is not deployed."""
        try:
            return self.servers[server_id]
        except (KeyError, TypeError):
            check_server_id(server_id)
            raise not_deployed(server_id, self.servers) from None

    def take_all(self) -> list[Supervisor]:
        """Empty the fleet for its end; return all supervisors, including those that are already ending."""
        self.is_ended = True
        supervisors = [*self.servers.values(), *self._passing]
        self.servers.clear()
        return supervisors

    async def deploy(self, server_id: str, config: ServerSpec | None, fields: Mapping[str, Any]) -> None:
        """Deploy a server: register it, connect to it and probe it once."""
        supervisor, added = self.register(server_id, check(server_id, config, fields))
        await self.connect(supervisor, added)

    async def deploy_all(self, servers: Mapping[str, ServerSpec]) -> None:
        """Deploy several servers in parallel; errors are those of :meth:`deploy`."""
        with collector_paused(), self.events.unlogged():
            added = [self.register(server_id, check(server_id, config)) for server_id, config in servers.items()]
        if added:
            _log.info(
                "%d server%s deployed",
                len(added),
                "" if len(added) == 1 else "s",
                extra={"event": "servers_deployed", "servers": len(added)},
            )
        await asyncio.gather(*(self.connect(*each) for each in added if not each[0].is_inactive))

    def register(self, server_id: str, parsed: ServerConfig) -> tuple[Supervisor, list[Instance]]:
        """Add a server to the fleet; return its supervisor and its instances, which are not connected yet."""
        if self.is_ended:
            raise not_running(Phase.STOPPING)
        if server_id in self.servers:
            raise ServerExistsError(server_id)
        self._router.add_server(server_id, balancing_settings(parsed.balancing), limits_of(parsed))
        supervisor = self._assembly.supervisor(server_id, parsed, self._router, self._observer)
        supervisor.record.created_s = time.time()
        self.servers[server_id] = supervisor
        self.index.put(server_id, traits_of(parsed))
        self._monitor.server_added(supervisor)
        if self.events.is_heard(logging.INFO):
            self.events.tell(
                ServerDeployed(server_id=server_id, instances=parsed.instances, transport=parsed.transport)
            )
        added = supervisor.scale(parsed.instances)
        if not parsed.instances:
            self._monitor.reassess(supervisor)
        return supervisor, added

    async def connect(self, supervisor: Supervisor, added: list[Instance]) -> None:
        """Connect a new server unless it is lazy; if the caller is cancelled, remove it again."""
        is_lazy = supervisor.config.connect == "lazy"
        if is_lazy and supervisor.template.endpoints is None:
            return
        server_id = supervisor.server_id
        try:
            await _awaited(supervisor, self._bring_up(supervisor, added, is_lazy))
        except Exception as error:
            # The server stays deployed: an unexpected error is handled like an unreachable server, which is retried.
            failure = supervisor.template.containment.failure(error, "not_sent")
            for instance in supervisor.instances:
                instance.last_error = failure if isinstance(failure, CallError) else None
            self._monitor.settle(supervisor)
        except BaseException:
            if self.servers.get(server_id) is supervisor:
                await self._remove(server_id, supervisor, 0.0)
            raise

    async def _bring_up(self, supervisor: Supervisor, added: list[Instance], is_lazy: bool) -> None:
        """Run discovery if it is configured, then connect and probe the instances unless the server is lazy."""
        if supervisor.template.endpoints is not None:
            await self._find(supervisor, supervisor.template, must=False)
            added = supervisor.reconcile()
        if not is_lazy:
            await self._probe_all(added)

    async def undeploy(self, server_id: str) -> None:
        """Remove a server and end its instances."""
        supervisor = self.supervisor_of(server_id)
        await self._remove(server_id, supervisor, supervisor.config.shutdown_grace_s)

    async def redeploy(self, server_id: str, config: ServerConfig, plan: RolloutPlan) -> None:
        """Replace a server's configuration while it serves."""
        supervisor = self.supervisor_of(server_id)
        task, template = await self._begin_rollout(supervisor, config, plan)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        self._conclude(supervisor, template, task)

    async def _begin_rollout(
        self, supervisor: Supervisor, config: ServerConfig, plan: RolloutPlan
    ) -> tuple[asyncio.Task[None], SessionTemplate]:
        server_id = supervisor.server_id
        parsed = check(server_id, config)
        while supervisor.rollout is not None:
            await asyncio.wait({supervisor.rollout.task})
        if self.servers.get(server_id) is not supervisor:
            raise self._gone(server_id)
        template = self._assembly.template(server_id, parsed, supervisor.template)
        find = partial(self._find, supervisor, template)
        rollout = Rollout(supervisor, template, plan, self._router, find, self._clock)
        task = supervisor.begin_rollout(template, rollout.run()).task
        task.add_done_callback(partial(self._rolled_out, supervisor))
        return task, template

    def _conclude(self, supervisor: Supervisor, template: SessionTemplate, task: asyncio.Task[None]) -> None:
        """Raise the failure of a rollout that has ended."""
        if not task.cancelled():
            try:
                task.result()
            except McpManagerError:
                raise
            except Exception as error:
                raise template.containment.failure_of_fault(error, "not_sent") from None
        elif supervisor.template is not template:
            raise self._gone(supervisor.server_id)

    def _gone(self, server_id: str) -> McpManagerError:
        """Make the error for a server that was removed during an operation."""
        if self.is_ended:
            return ConnectError("the server is being stopped", server_id=server_id, retryable=False)
        return ServerNotFoundError(server_id, hint="it was removed in the meantime")

    async def _find(self, supervisor: Supervisor, template: SessionTemplate, *, must: bool = True) -> None:
        """Run discovery once and then in the background, if it is configured.

        If nothing is found, it raises :class:`ConnectError` with ``must``; otherwise only the background task goes on.
        """
        endpoints = template.endpoints
        if endpoints is None:
            return
        # Imported only if it is used.
        from mcp_manager.fleet.discovery import Discovery  # noqa: PLC0415

        in_use = partial(supervisor.in_use, template)
        found = partial(self._found, supervisor, template)
        discovery = Discovery(supervisor.server_id, template.config, endpoints, in_use, found)
        try:
            await discovery.look()
        except ConnectError as error:
            endpoints.problem = error.for_caller("not_sent")
            if must:
                raise
        if not supervisor.is_over:
            endpoints.refresher = supervisor.spawn(discovery.run(), bare_context())

    def _found(self, supervisor: Supervisor, template: SessionTemplate) -> None:
        """Reconcile the instances with what discovery found; a rollout in progress does so itself."""
        if supervisor.template is not template:
            return
        added = supervisor.reconcile()
        if added and template.config.connect == "eager":
            supervisor.spawn(self._probe_all(added))

    def _rolled_out(self, supervisor: Supervisor, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            # Retrieved here, because the caller may be gone.
            task.exception()
        added = supervisor.end_rollout()
        if self.servers.get(supervisor.server_id) is supervisor:
            self.index.put(supervisor.server_id, traits_of(supervisor.config))
            self._monitor.reassess(supervisor)
        if added and supervisor.config.connect == "eager":
            supervisor.spawn(self._probe_all(added))

    async def scale(self, server_id: str, instances: int) -> None:
        """Set how many instances a server has."""
        supervisor = self.supervisor_of(server_id)
        check_instances(server_id, supervisor.config, instances)
        if supervisor.rollout is not None:
            # The number must be possible with either configuration.
            check_instances(server_id, supervisor.rollout.template.config, instances)
        added = self._scale(supervisor, instances)
        if supervisor.config.connect == "eager":
            # Instances that an earlier call has added are waited for as well.
            others = [each for each in supervisor.instances if each not in added]
            await _awaited(supervisor, self._all_connected(added, others))

    def adjust(self, supervisor: Supervisor, config: ServerConfig) -> list[Instance]:
        """Give a server other settings while its sessions go on; return the instances that are now to be connected.

        Only while no rollout is undecided, and only if ``config`` differs in nothing that sessions are made from.
        """
        before = supervisor.config
        supervisor.template.adjust(config)
        try:
            supervisor.adjust()
        except BaseException:
            # The next attempt must find the difference again.
            supervisor.template.adjust(before)
            raise
        self.index.put(supervisor.server_id, traits_of(config))
        of_probes = (before.health, before.restart, before.breaker) != (config.health, config.restart, config.breaker)
        self._monitor.settings_changed(supervisor, of_probes=of_probes)
        becomes_eager = (before.connect, config.connect) == ("lazy", "eager")
        if becomes_eager:
            supervisor.activate()
        # A number that scale() has set stays in force as long as the configured one does not change.
        desired = config.instances if config.instances != before.instances else supervisor.desired
        desired = min(desired, config.max_instances)
        added = self._scale(supervisor, desired)
        if config.connect == "lazy":
            return []
        return [each for each in supervisor.instances if each.session is None] if becomes_eager else added

    def _scale(self, supervisor: Supervisor, instances: int) -> list[Instance]:
        previous = supervisor.desired
        added = supervisor.scale(instances)
        if instances != previous:
            scaled = ServerScaled(server_id=supervisor.server_id, previous=previous, instances=instances)
            self.events.tell(scaled)
        if not supervisor.instances and supervisor.rollout is None:
            # Nothing tells the monitor of a lazy server that is suspended.
            self._monitor.reassess(supervisor)
        return added

    async def connect_added(self, supervisor: Supervisor, added: list[Instance]) -> None:
        """Connect and probe instances, in at most ``connect_timeout_s``; they are retried after that."""
        await _awaited(supervisor, self._probe_all(added))

    def set_maintenance(self, server_id: str, on: bool) -> None:
        """Take a server out of traffic, or put it back."""
        supervisor = self.supervisor_of(server_id)
        supervisor.set_maintenance(on)
        self._monitor.reassess(supervisor)

    async def wait_ready(self, wanted: int | None, timeout: float | None, check_running: Callable[[], None]) -> None:
        """Wait until servers are ready; see :meth:`Readiness.wait`."""
        await self._readiness.wait(wanted, timeout, check_running)

    async def _probe_all(self, instances: Iterable[Instance]) -> None:
        probes = [self._monitor.probe(instance) for instance in instances]
        if len(probes) == 1:
            # The usual case. A task would take 1.6 KB for each server of a large fleet that is being connected.
            await probes[0]
        else:
            await asyncio.gather(*probes)

    async def _all_connected(self, added: Iterable[Instance], others: Iterable[Instance]) -> None:
        await asyncio.gather(self._probe_all(added), *(each.wait_connected() for each in others))

    async def _remove(self, server_id: str, supervisor: Supervisor, grace_s: float) -> None:
        del self.servers[server_id]
        self.index.remove(server_id)
        self._on_removed(supervisor)
        self._router.remove_server(server_id)
        self._monitor.server_removed(supervisor)
        self.events.tell(ServerUndeployed(server_id=server_id))
        try:
            await self._end(supervisor, grace_s)
        finally:
            self._on_ended(supervisor, server_id not in self.servers)

    async def _end(self, supervisor: Supervisor, grace_s: float) -> None:
        """End a supervisor that was removed from the servers; until then :meth:`take_all` returns it."""
        self._passing.add(supervisor)
        try:
            await supervisor.aclose(grace_s)
        finally:
            self._passing.discard(supervisor)


async def end_all(supervisors: Collection[Supervisor], timeout_s: float) -> None:
    """End servers; after ``timeout_s`` seconds, or if the caller is cancelled, end them at once.

    It returns when all of them have ended, in every case.
    """
    ending = background_task(_all_closed((each, each.config.shutdown_grace_s) for each in supervisors), "end servers")
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait({ending}, timeout=timeout_s)
    if not ending.done() or ending.cancelled():
        await finish(_all_closed((each, 0.0) for each in supervisors), "end servers at once")
        ending.cancel()
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({ending})


async def _all_closed(supervisors: Iterable[tuple[Supervisor, float]]) -> None:
    """Close servers, each with its grace in seconds; an error of one is logged and does not affect the others."""
    each_grace = list(supervisors)
    outcomes = await asyncio.gather(*(each.aclose(grace_s) for each, grace_s in each_grace), return_exceptions=True)
    for (supervisor, _), outcome in zip(each_grace, outcomes, strict=True):
        if isinstance(outcome, Exception):
            supervisor.template.containment.failure(outcome, "unknown")


async def _awaited(supervisor: Supervisor, work: Coroutine[Any, Any, None]) -> None:
    """Run a server's work and wait for it up to ``connect_timeout_s``; then it goes on in the background."""
    task = supervisor.spawn(work)
    await asyncio.wait({task}, timeout=supervisor.config.connect_timeout_s + MOMENT_S)
    if task.done() and not task.cancelled():
        task.result()


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector while many servers are made: for 100,000 it would double the time for no gain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def not_deployed(server_id: str, deployed: Collection[str]) -> ServerNotFoundError:
    """Make the error for an id without a server; it suggests the most similar one of a small fleet."""
    if len(deployed) <= _MOST_COMPARED:
        near = nearest(server_id, tuple(deployed), cutoff=0.7)
        if near is not None:
            return ServerNotFoundError(server_id, hint=f"did you mean {near}?")
    return ServerNotFoundError(server_id)


def check(server_id: str, config: ServerSpec | None, fields: Mapping[str, Any] | None = None) -> ServerConfig:
    """Return a checked configuration; raises :class:`ConfigError` or :class:`ScaleError` for one that cannot be used."""
    parsed = server_config_of(server_id, config, fields)
    if parsed.instances != 1 or parsed.discovery.kind != "none":
        check_instances(server_id, parsed, parsed.instances)
    return parsed
