"""The replacement of a server's configuration while it serves: start, verify, shift traffic, drain, or roll back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, Literal, TypedDict, get_args

import msgspec

from mcp_manager._core.router import Router
from mcp_manager.config.arguments import shown
from mcp_manager.config.fields.server import ServerFields
from mcp_manager.errors import CallError, ConfigError, RolloutError
from mcp_manager.fleet.canary import Trial
from mcp_manager.fleet.verification import ToolCheck, listed_tools, what_is_amiss
from mcp_manager.runtime.background import background_task
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import SessionTemplate

__all__ = ["RedeployFields", "Rollout", "RolloutPlan", "Shift", "Strategy", "split_shift"]

Strategy = Literal["blue_green", "rolling", "canary"]
"""How traffic moves to the new instances; see :meth:`McpManager.redeploy`."""

_LONGEST_S: Final = 30 * 86400.0


class Shift(TypedDict, total=False):
    """How traffic shifts to a new configuration, beside the strategy; see :meth:`McpManager.redeploy`.

    ``batch`` (default 1) is for ``rolling``; ``percentage`` (10), ``canary_s`` (30 s) and ``min_calls`` (20) are for
    ``canary``.
    """

    batch: int
    percentage: float
    canary_s: float
    min_calls: int


class RedeployFields(ServerFields, Shift, total=False):
    """The keyword arguments of :meth:`McpManager.redeploy`: fields of a server, and how traffic shifts to it."""


def split_shift(fields: RedeployFields) -> tuple[Shift, dict[str, Any]]:
    """Return what says how traffic shifts, and the fields of the server."""
    given: dict[str, Any] = dict(fields)
    shift: Any = {name: given.pop(name) for name in Shift.__annotations__ if name in given}
    return shift, given


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a configuration is replaced; see :meth:`McpManager.redeploy`.

    Parameters
    ----------
    strategy
        See :data:`Strategy`.
    batch
        For ``rolling``: how many instances are replaced at a time, from 1.
    percentage
        For ``canary``: the share of the calls that goes to new instances, above 0 and below 100.
    canary_s
        For ``canary``: how many seconds the trial takes, above 0 and below 30 days.
    min_calls
        For ``canary``: how many calls the new instances must get, from 0; with fewer the rollout fails.
    verify_tools
        See :data:`ToolCheck`.

    Raises
    ------
    ConfigError
        A value is of the wrong type or out of range.
    """

    strategy: Strategy = "blue_green"
    batch: int = 1
    percentage: float = 10.0
    canary_s: float = 30.0
    min_calls: int = 20
    verify_tools: ToolCheck = "off"

    def __post_init__(self) -> None:
        """Check all values."""
        if not isinstance(self.strategy, str) or self.strategy not in get_args(Strategy):
            raise ConfigError(f"strategy must be one of {', '.join(get_args(Strategy))}, not {shown(self.strategy)}")
        if not isinstance(self.verify_tools, str) or self.verify_tools not in get_args(ToolCheck):
            raise ConfigError(
                f"verify_tools must be one of {', '.join(get_args(ToolCheck))}, not {shown(self.verify_tools)}"
            )
        for name, least in (("batch", 1), ("min_calls", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} must be an integer from {least}, not {shown(value)}")
        for name, most in (("percentage", 100.0), ("canary_s", _LONGEST_S)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < most:
                raise ConfigError(f"{name} must be a number above 0 and below {most:g}, not {shown(value)}")


class Rollout:
    """Replace the configuration of one server.

    During the rollout the server has instances of both configurations, and only the rollout adds and drains them.

    Parameters
    ----------
    supervisor
        The server.
    template
        The session settings of the new configuration.
    plan
        The strategy and its parameters.
    router
        Shares calls and measures them while a canary runs.
    find
        Runs discovery for the new configuration; raises :class:`ConnectError` if it finds nothing.
    clock
        Returns monotonic nanoseconds.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        template: SessionTemplate,
        plan: RolloutPlan,
        router: Router,
        find: Callable[[], Awaitable[None]],
        clock: Callable[[], int],
    ) -> None:
        self._supervisor = supervisor
        self._before = supervisor.template
        self._template = template
        self._plan = plan
        self._router = router
        self._find = find
        self._clock = clock
        self._tools: dict[str, str] | None = None
        self._drains: list[asyncio.Task[None]] = []
        self._is_committed = False

    async def run(self) -> None:
        """Run the rollout; if it fails or is cancelled before the new configuration takes over, roll it back.

        Raises
        ------
        CallError
            The new configuration does not connect, or does not answer.
        RolloutError
            Its tools differ, or its canary is worse than the old instances.
        """
        supervisor = self._supervisor
        try:
            await self._find()
            if self._plan.verify_tools != "off":
                self._tools = await self._tools_before()
            match self._plan.strategy:
                case "blue_green":
                    await self._switch()
                case "rolling":
                    await self._roll()
                case "canary":
                    await self._try_out()
        except BaseException:
            if not self._is_committed and not supervisor.is_over:
                supervisor.revert()
                await self._roll_back()
            raise
        if self._drains:
            await asyncio.wait(self._drains)

    async def _switch(self) -> None:
        """Start all new instances, then let them take over in one step."""
        self._commit(await self._start(self._wanted()))

    async def _roll(self) -> None:
        """Replace some instances at a time; a new one serves before an old one drains, so there are never too few."""
        supervisor = self._supervisor
        while missing := self._missing():
            for instance in await self._start(missing[: self._plan.batch]):
                supervisor.admit(instance)
            surplus = len(supervisor.instances) - len(self._wanted())
            drains = [supervisor.drain(each) for each in self._old()[: max(surplus, 0)]]
            if drains:
                await asyncio.wait(drains)
        self._commit(())

    async def _try_out(self) -> None:
        """Give some new instances a share of the calls; if they are no worse than the old ones, replace all."""
        supervisor, plan = self._supervisor, self._plan
        wanted = self._wanted()
        new = await self._start(wanted[: max(1, round(len(wanted) * plan.percentage / 100))])
        trial = Trial(supervisor, self._router, new, plan.percentage, plan.min_calls, plan.canary_s, self._clock)
        try:
            trial.begin()
            if new:
                worse = await trial.verdict()
                if worse:
                    raise self._rejected(worse, 'strategy = "blue_green" skips the canary')
            self._commit(await self._start(self._missing()))
        finally:
            trial.end()

    def _commit(self, started: Iterable[Instance]) -> None:
        """Make the new configuration the server's own; there is no await, so that nothing can interrupt it."""
        supervisor = self._supervisor
        self._is_committed = True
        supervisor.adopt(self._template)
        for instance in started:
            supervisor.admit(instance)
        self._drains += [supervisor.drain(each) for each in self._old()]

    def _missing(self) -> list[int]:
        there = {each.index for each in self._supervisor.instances if each.template is self._template}
        return [index for index in self._wanted() if index not in there]

    def _wanted(self) -> Sequence[int]:
        return self._template.places(self._supervisor.desired)

    def _old(self) -> list[Instance]:
        """Return the instances of the old configuration, those without a session first."""
        old = [each for each in self._supervisor.instances if each.template is not self._template]
        return sorted(old, key=lambda each: each.session is not None)

    async def _start(self, indexes: Iterable[int]) -> list[Instance]:
        """Add instances of the new configuration, connect and verify them; they take no traffic yet."""
        started = [self._supervisor.stage(self._template, index) for index in indexes]
        plan, config = self._plan, self._template.config
        if config.connect == "eager" or plan.strategy != "blue_green" or plan.verify_tools != "off":
            await _all_of(self._prove(instance) for instance in started)
        return started

    async def _prove(self, instance: Instance) -> None:
        config = self._template.config
        # Without a deadline: every attempt ends by itself, for programs within start_timeout_s.
        await instance.connect()
        if self._tools is None:
            return
        tools = await listed_tools(instance, self._clock() + int(config.request_timeout_s * 1e9))
        amiss = what_is_amiss(self._tools, tools, self._plan.verify_tools)
        if amiss:
            raise self._rejected(f"it {amiss}", 'verify_tools = "off" skips this check')

    def _rejected(self, why: str, hint: str) -> RolloutError:
        server_id = self._supervisor.server_id
        return RolloutError(
            f"Server {server_id} keeps its old configuration; the new one was rejected: {why}",
            server_id=server_id,
            hint=hint,
        )

    async def _tools_before(self) -> dict[str, str] | None:
        """Return the tools of an old instance; ``None`` if none can list them, and there is nothing to compare."""
        deadline_ns = self._clock() + int(self._before.config.request_timeout_s * 1e9)
        for instance in self._supervisor.instances:
            if instance.session is None:
                continue
            try:
                return await listed_tools(instance, deadline_ns)
            except CallError:
                continue
        return None

    async def _roll_back(self) -> None:
        """Start drained instances again, then drain the new ones that took their place."""
        supervisor = self._supervisor
        serving = [each for each in supervisor.instances if each.template is self._template]
        if serving:
            await self._restore()
        for instance in serving:
            supervisor.drain(instance)
        discarded = supervisor.discard()
        if discarded:
            await asyncio.wait(discarded)

    async def _restore(self) -> None:
        supervisor = self._supervisor
        there = {each.index for each in supervisor.instances if each.template is self._before}
        missing = [index for index in self._before.places(supervisor.desired) if index not in there]
        if not missing:
            return
        restored = [supervisor.stage(self._before, index) for index in missing]
        # Instances that no longer connect are retried in the background, like any others.
        await asyncio.gather(*(each.connect() for each in restored), return_exceptions=True)
        for instance in restored:
            supervisor.admit(instance)


async def _all_of(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all works in parallel; the first failure cancels the others and is raised alone."""
    tasks = [background_task(work, "prove an instance") for work in works]
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
