"""Makes the fleet match a configuration: deploys, updates, replaces and removes what differs, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.config.arguments import shown
from mcp_manager.config.changes import Effect, difference
from mcp_manager.config.spec import ServerSpec
from mcp_manager.errors import ConfigError, McpManagerError, ServerNotFoundError
from mcp_manager.events.records import ConfigApplied
from mcp_manager.fleet.fleet import MOMENT_S, Fleet, check, collector_paused
from mcp_manager.fleet.rollout import RolloutPlan
from mcp_manager.runtime.background import background_task
from mcp_manager.runtime.phase import Phase, not_running
from mcp_manager.serialization import Serializable
from mcp_manager.servers.supervisor import Supervisor

__all__ = ["Applied", "Applying"]

_log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]

# How long the loop is held at a time, and how many tasks that start together may hold it in the next turn.
_SLICE_S: Final = 0.005
_SLICE_TASKS: Final = 32


class Applied(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """What :meth:`McpManager.apply` did; all server ids are sorted.

    Parameters
    ----------
    deployed
        The servers that were added. A server that cannot be reached is deployed too, and retried.
    redeployed
        The servers that were replaced: they have new sessions and programs.
    undeployed
        The servers that were removed.
    failed
        Why the change of a server failed, by server id. A server that was to be replaced keeps its old configuration.
    starting
        The servers whose change goes on: a new program is still starting, or another replacement of the server has not
        ended. They serve with the old configuration until then; if the change fails, they keep it and a warning is
        logged.
    updated
        The servers that got other settings, or another number of instances; their sessions went on.
    unchanged
        How many servers were as they should be.
    invalid
        The servers that are wrong in the file, and that ``watch(lenient=True)`` has therefore left out: those that were
        deployed before go on as they were.
    """

    deployed: tuple[str, ...]
    redeployed: tuple[str, ...]
    undeployed: tuple[str, ...]
    failed: dict[str, str]
    starting: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: int = 0
    invalid: tuple[str, ...] = ()


class _Report:
    """What has become of each server so far."""

    def __init__(self) -> None:
        self.deployed: list[str] = []
        self.undeployed: list[str] = []
        self.starting: list[str] = []
        self.failed: dict[str, str] = {}
        self.changed: dict[Effect, list[str]] = {effect: [] for effect in Effect}

    def result(self, fleet: Fleet, invalid: Collection[str]) -> Applied:
        updated = (*self.changed[Effect.SCALE], *self.changed[Effect.UPDATE])
        return Applied(
            deployed=tuple(sorted(each for each in self.deployed if each in fleet.servers)),
            redeployed=tuple(sorted(self.changed[Effect.REPLACE])),
            undeployed=tuple(sorted(self.undeployed)),
            failed=dict(sorted(self.failed.items())),
            starting=tuple(sorted(self.starting)),
            updated=tuple(sorted(each for each in updated if each not in self.failed)),
            unchanged=len(self.changed[Effect.NOTHING]),
            invalid=tuple(sorted(set(invalid))),
        )


class _Unfinished(NamedTuple):
    """A change that goes on after the call that began it has returned."""

    supervisor: Supervisor
    wanted: ServerConfig
    task: asyncio.Task[Effect]


class Applying:
    """Make a fleet match configurations, one at a time.

    Other methods may change the fleet meanwhile: each server is looked at again at the moment of its own change.

    Parameters
    ----------
    fleet
        The fleet to change.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._turn = asyncio.Lock()
        self._unfinished: dict[str, _Unfinished] = {}

    async def apply(self, config: ManagerConfig, invalid: Collection[str] = ()) -> Applied:
        """Make the fleet match ``config.servers``; see :meth:`McpManager.apply`.

        Parameters
        ----------
        config
            What the fleet shall be.
        invalid
            The ids of servers that are not in ``config`` because something is wrong with them: they stay as they are.
        """
        servers: Mapping[str, ServerSpec] = config.servers
        async with self._turn:
            self._check_running()
            wanted: dict[str, ServerConfig | None] = {}
            await _in_slices(self._check(server_id, spec, wanted) for server_id, spec in servers.items())
            wanted.update(dict.fromkeys(self._fleet.servers.keys() - wanted.keys() - set(invalid)))
            report, tasks = _Report(), set[asyncio.Task[Any]]()
            try:
                await _in_slices(self._begin(server_id, each, report, tasks) for server_id, each in wanted.items())
                while tasks:
                    await asyncio.wait(tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            self._check_running()
            applied = report.result(self._fleet, invalid)
            self._fleet.events.tell(_event_of(applied))
            return applied

    async def update(self, server_id: str, config: ServerConfig) -> Applied:
        """Change one server; see :meth:`McpManager.update`. It waits for no call of :meth:`apply`."""
        report = _Report()
        work = self._change(server_id, config, report)
        if work is not None:
            await self._alone(server_id, report, work)
        self._check_running()
        return report.result(self._fleet, ())

    def _check_running(self) -> None:
        if self._fleet.is_ended:
            raise not_running(Phase.STOPPING)

    def _check(self, server_id: str, spec: ServerSpec, wanted: dict[str, ServerConfig | None]) -> bool:
        """Add the checked configuration of a server to ``wanted``; what is deployed was checked before."""
        supervisor = self._fleet.servers.get(server_id)
        if supervisor is not None and spec == supervisor.config:
            wanted[server_id] = supervisor.config
            return False
        try:
            wanted[server_id] = check(server_id, spec)
        except ConfigError as error:
            error.message = f"server {shown(server_id)}: {error.message}"
            error.args = (error.message,)
            raise
        return False

    def _begin(
        self, server_id: str, wanted: ServerConfig | None, report: _Report, tasks: set[asyncio.Task[Any]]
    ) -> bool:
        """Change one server, or begin to in a task; tell whether there is a task."""
        try:
            work = self._change(server_id, wanted, report)
        except Exception as error:
            self._failed(server_id, error, report)
            return False
        if work is None:
            return False
        background_task(self._alone(server_id, report, work), f"apply to server {server_id}", among=tasks)
        return True

    def _change(self, server_id: str, wanted: ServerConfig | None, report: _Report) -> Work | None:
        """Change one server as far as nothing need be awaited; return what is left to do."""
        supervisor = self._fleet.servers.get(server_id)
        if wanted is None:
            return partial(self._remove, server_id, report)
        if supervisor is None:
            if wanted.connect == "eager" or wanted.discovery.kind != "none":
                return partial(self._deploy, server_id, wanted, report)
            self._fleet.register(server_id, wanted)
            report.deployed.append(server_id)
            return None
        if _is_undecided(supervisor):
            return partial(self._replace, server_id, wanted, report)
        self._end_unfinished(server_id)
        effect = difference(supervisor.config, wanted).effect if supervisor.config is not wanted else Effect.NOTHING
        if effect is Effect.REPLACE:
            return partial(self._replace, server_id, wanted, report)
        added = self._fleet.adjust(supervisor, wanted) if effect else []
        report.changed[effect].append(server_id)
        return partial(self._fleet.connect_added, supervisor, added) if added else None

    async def _alone(self, server_id: str, report: _Report, work: Work) -> None:
        """Run the work for one server; its failure is reported, and does not affect the others."""
        try:
            await work()
        except Exception as error:
            self._failed(server_id, error, report)

    def _failed(self, server_id: str, error: Exception, report: _Report) -> None:
        if self._fleet.is_ended:
            # The end of the manager is told for all of them together.
            return
        supervisor = self._fleet.servers.get(server_id)
        told = error if supervisor is None else supervisor.template.containment.failure(error, "not_sent")
        report.failed[server_id] = str(told)
        extra = {"event": "change_failed", "server_id": server_id, "error": str(told)}
        _log.error("server %r could not be changed: %s", server_id, told, extra=extra)

    async def _remove(self, server_id: str, report: _Report) -> None:
        if server_id in self._fleet.servers:
            report.undeployed.append(server_id)
            await self._fleet.undeploy(server_id)

    async def _deploy(self, server_id: str, wanted: ServerConfig, report: _Report) -> None:
        if server_id in self._fleet.servers:
            # Somebody else was faster.
            await self._replace(server_id, wanted, report)
            return
        supervisor, added = self._fleet.register(server_id, wanted)
        report.deployed.append(server_id)
        await self._fleet.connect(supervisor, added)

    async def _replace(self, server_id: str, wanted: ServerConfig, report: _Report) -> None:
        """Replace a server, or go on with the replacement that an earlier call began; wait for a limited time."""
        supervisor = self._fleet.servers.get(server_id)
        if supervisor is None:
            # Removed in the meantime.
            return
        task = await self._resumed(supervisor, wanted)
        is_ours = task is None
        if task is None:
            task = supervisor.spawn(self._carry_out(supervisor, wanted))
            task.add_done_callback(partial(_tell_failure, supervisor))
        try:
            await asyncio.wait({task}, timeout=wanted.connect_timeout_s + MOMENT_S)
        except asyncio.CancelledError:
            if is_ours:
                task.cancel()
                await asyncio.wait({task})
            raise
        if not task.done():
            if supervisor.config == wanted:
                # The new instances have taken over; the old ones end with their last calls.
                report.changed[Effect.REPLACE].append(server_id)
                return
            report.starting.append(server_id)
            if is_ours:
                self._unfinished[server_id] = _Unfinished(supervisor, wanted, task)
                task.add_done_callback(partial(self._finished, server_id))
            return
        try:
            # Cancelled if the server was removed in the meantime.
            effect = task.result() if not task.cancelled() else None
        except ServerNotFoundError:
            return
        except McpManagerError as error:
            report.failed[server_id] = str(error)
            return
        if effect is not None:
            report.changed[effect].append(server_id)

    async def _resumed(self, supervisor: Supervisor, wanted: ServerConfig) -> asyncio.Task[Effect] | None:
        """Return the unfinished change of a server to this very configuration; end one to any other configuration."""
        unfinished = self._unfinished.get(supervisor.server_id)
        if unfinished is None or unfinished.supervisor is not supervisor:
            return None
        if unfinished.wanted == wanted:
            return unfinished.task
        unfinished.task.cancel()
        await asyncio.wait({unfinished.task})
        return None

    async def _carry_out(self, supervisor: Supervisor, wanted: ServerConfig) -> Effect:
        """Change a server, once no other replacement of it is in progress; return what was done."""
        while supervisor.rollout is not None and _is_undecided(supervisor):
            await asyncio.wait({supervisor.rollout.task})
        effect = difference(supervisor.config, wanted).effect
        if effect is Effect.REPLACE:
            await self._fleet.redeploy(supervisor.server_id, wanted, RolloutPlan())
        elif effect:
            added = self._fleet.adjust(supervisor, wanted)
            if added:
                supervisor.spawn(self._fleet.connect_added(supervisor, added))
        return effect

    def _end_unfinished(self, server_id: str) -> None:
        """End an earlier change that has taken over already, or would undo what is done now if it went on."""
        unfinished = self._unfinished.pop(server_id, None)
        if unfinished is not None:
            unfinished.task.cancel()

    def _finished(self, server_id: str, task: asyncio.Task[Effect]) -> None:
        unfinished = self._unfinished.get(server_id)
        if unfinished is not None and unfinished.task is task:
            del self._unfinished[server_id]


async def _in_slices(steps: Iterable[bool]) -> None:
    """Take steps, and let the loop turn in between; a step tells whether it has made a task."""
    iterator = iter(steps)
    is_over = False
    while not is_over:
        made = 0
        # For 100,000 servers the collector would double the time for no gain.
        with collector_paused():
            until = time.perf_counter() + _SLICE_S
            while not is_over and made < _SLICE_TASKS and time.perf_counter() < until:
                step = next(iterator, None)
                is_over = step is None
                made += step or 0
        await asyncio.sleep(0)


def _event_of(applied: Applied) -> ConfigApplied:
    return ConfigApplied(
        deployed=applied.deployed,
        redeployed=applied.redeployed,
        updated=applied.updated,
        undeployed=applied.undeployed,
        failed=tuple(sorted(applied.failed)),
        starting=applied.starting,
        invalid=applied.invalid,
    )


def _is_undecided(supervisor: Supervisor) -> bool:
    """Tell whether a replacement is in progress that has not taken over yet, and may still fail."""
    return supervisor.rollout is not None and supervisor.template is not supervisor.rollout.template


def _tell_failure(supervisor: Supervisor, task: asyncio.Task[Effect]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not supervisor.is_over:
        extra = {"event": "change_failed", "server_id": supervisor.server_id, "error": str(error)}
        _log.warning("server %r keeps its old configuration: %s", supervisor.server_id, error, extra=extra)
