"""The supervisor of one server: it owns the server's instances and tasks, and starts, drains and ends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextvars import Context
from math import ceil
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from mcp_manager._core.records import EXCLUDED, PENDING, READY, Backend, Server
from mcp_manager._core.router import Router
from mcp_manager.config import ServerConfig
from mcp_manager.errors import CallError, ServerExitedError
from mcp_manager.events.records import ServerRedeployed
from mcp_manager.runtime.background import background_task
from mcp_manager.servers.caller_sessions import RoutedInstance
from mcp_manager.servers.change import Change
from mcp_manager.servers.core_settings import Registration, balancing_settings, in_ns, limits_of, registration_of
from mcp_manager.servers.instance import Instance
from mcp_manager.servers.tool_checks import tool_checks_of
from mcp_manager.session import SessionTemplate
from mcp_manager.types import CircuitState

__all__ = ["InstanceObserver", "Recovery", "RestartCause", "Supervisor"]

T = TypeVar("T")

Recovery = Literal["retry", "hedge", "server", "stale", "static"]
"""A retry, a hedge, or the source of a fallback: another server, the last good result, or a configured result."""

RestartCause = Literal["exit", "hang"]
"""Why a child process is restarted: it ended by itself, or it was killed because it did not answer."""


class InstanceObserver(Protocol):
    """The receiver of a supervisor's events: the health monitor."""

    def instance_added(self, supervisor: Supervisor, instance: Instance) -> None:
        """Handle a new instance, which is not yet connected."""

    def instance_changed(self, supervisor: Supervisor, instance: Instance, error: CallError | None) -> None:
        """Handle that the session of an instance was made (``None``) or lost (the reason)."""

    def instance_removed(self, instance: Instance) -> None:
        """Handle that an instance left traffic and begins to drain."""

    def instance_ended(self, supervisor: Supervisor) -> None:
        """Handle that an instance has drained and ended."""


class Supervisor:
    """Own the instances of one server.

    Parameters
    ----------
    template
        The session template; ``template.config`` is the server's configuration.
    router
        The router to register the instances with; the server itself is already registered.
    observer
        Notified of every change of an instance.
    clock
        Returns monotonic nanoseconds.
    """

    # Slots, not a dictionary: in a large fleet, every cache line that a call touches is a cache miss.
    __slots__ = (
        "_clock",
        "_draining",
        "_instances",
        "_next_number",
        "_observer",
        "_retired",
        "_router",
        "_staged",
        "_tasks",
        "_template",
        "desired",
        "in_maintenance",
        "is_over",
        "record",
        "recoveries",
        "renewals",
        "request_timeout_ns",
        "restarts",
        "rollout",
        "server_id",
        "tool_checks",
    )

    def __init__(
        self,
        template: SessionTemplate,
        router: Router,
        observer: InstanceObserver,
        clock: Callable[[], int],
    ) -> None:
        self._template = template
        self._router = router
        self._observer = observer
        self._clock = clock
        # Most servers of a large fleet are never called, so what they may not need is made when it is needed.
        self._tasks: set[asyncio.Task[Any]] | None = None
        self._instances: tuple[Instance, ...] = ()
        self._draining: tuple[Instance, ...] = ()
        # For rollouts: new instances that do not take traffic yet, and replaced settings that still obtain tokens.
        self._staged: tuple[Instance, ...] = ()
        self._retired: tuple[SessionTemplate, ...] = ()
        self._next_number = 0
        self.desired: int = 0
        self.rollout: Change | None = None
        # How often a child process was lost, by cause; None until the first time.
        self.restarts: dict[RestartCause, int] | None = None
        # How often its calls were retried or hedged, or got a fallback, by kind; None until the first time.
        self.recoveries: dict[Recovery, int] | None = None
        # How often an instance has replaced a session.
        self.renewals: int = 0
        self.is_over: bool = False
        self.in_maintenance: bool = False
        self.server_id: str = template.server_id
        self.record: Server = router.server(template.server_id)
        self.request_timeout_ns: int = in_ns(template.config.request_timeout_s)
        self.tool_checks = tool_checks_of(template.config)

    @property
    def config(self) -> ServerConfig:
        """The server's configuration."""
        return self._template.config

    @property
    def template(self) -> SessionTemplate:
        """The session template, and what the sessions have learned about the server."""
        return self._template

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances that take traffic, ordered by index; during a rollout, those of both configurations."""
        return self._instances

    @property
    def is_inactive(self) -> bool:
        """Whether it is lazy and was never used, so that the first call makes its instances."""
        return self.record.activator is not None

    @property
    def draining(self) -> int:
        """How many instances are draining."""
        return len(self._draining)

    # How many instances there are

    def scale(self, desired: int) -> list[Instance]:
        """Set how many instances are wanted and reconcile; return the new ones, which are not connected yet.

        During a rollout the number is handed to the rollout, and nothing is returned.
        """
        self.desired = desired
        if self.rollout is not None:
            self.rollout.is_scaled = True
        elif self.config.connect == "lazy" and not self._instances and self._template.endpoints is None:
            self.record.activator = self if desired else None
            return []
        return self.reconcile()

    def activate(self) -> list[Instance]:
        """Make the instances of a lazy server that was never used and return them; return none for any other server."""
        was_inactive, self.record.activator = self.is_inactive, None
        return self.reconcile() if was_inactive and not self.is_over else []

    def reconcile(self) -> list[Instance]:
        """Add missing instances and drain surplus ones; return the new ones.

        During a rollout it does nothing. It compares the present instances with the wanted number in one step, so
        repeated and nested calls lead to the number that was set last. The lowest indexes are kept, so that a list of
        URLs is used from its beginning.
        """
        if self.is_over or self.rollout is not None:
            return []
        wanted = self._template.places(self.desired)
        kept: set[int] = set()
        for instance in self._instances:
            if instance.template is self._template and instance.index in wanted:
                kept.add(instance.index)
                self._weigh(instance)
            else:
                self.drain(instance)
        added = [self._add(self._template, index) for index in wanted if index not in kept]
        for instance in added:
            self.admit(instance)
        return added

    def in_use(self, template: SessionTemplate) -> set[int]:
        """Return the indexes of all instances of a configuration, draining ones included."""
        return {each.index for each in (*self._staged, *self._instances, *self._draining) if each.template is template}

    def drain(self, instance: Instance) -> asyncio.Task[None]:
        """Take an instance out of traffic; return the task that ends it after its calls, or ``drain_timeout_s``."""
        self._leave(instance)
        config = instance.template.config
        return self.spawn(self._drain(instance, config.drain_timeout_s, config.shutdown_grace_s))

    # Rollouts

    def begin_rollout(self, template: SessionTemplate, work: Coroutine[Any, Any, None]) -> Change:
        """Run a rollout; until :meth:`end_rollout`, only its task adds and drains instances.

        Parameters
        ----------
        template
            The session settings of the new configuration.
        work
            The rollout itself, which runs in a task of the supervisor.
        """
        self.activate()
        self.rollout = Change(self._template, template, self.desired, self.spawn(work))
        self.desired = template.config.instances
        return self.rollout

    def revert(self) -> None:
        """Restore the number of instances from before the rollout, unless :meth:`scale` was called since."""
        if self.rollout is not None and not self.rollout.is_scaled:
            self.desired = self.rollout.desired_before

    def end_rollout(self) -> list[Instance]:
        """End the rollout: discard staged instances and reconcile; return the instances that were added."""
        change, self.rollout = self.rollout, None
        if change is None:
            return []
        if not self.is_over:
            self.discard()
        loser = change.before if self._template is change.template else change.template
        if loser.endpoints is not None:
            loser.endpoints.close()
        return self.reconcile()

    def stage(self, template: SessionTemplate, index: int) -> Instance:
        """Add an instance of another configuration, which takes no traffic before :meth:`admit`."""
        instance = self._add(template, index)
        instance.events.is_staged = True
        self._staged = (*self._staged, instance)
        self._set_availability(instance)
        return instance

    def admit(self, instance: Instance) -> None:
        """Let an instance take traffic. Without a session it takes calls only if no connected instance admits them."""
        instance.events.is_staged = False
        self._staged = tuple(each for each in self._staged if each is not instance)
        self._instances = tuple(sorted((*self._instances, instance), key=_by_index))
        self._set_availability(instance)

    def discard(self) -> list[asyncio.Task[None]]:
        """End the staged instances, which take no traffic yet; return the tasks that do so."""
        discarded = self._staged
        for instance in discarded:
            self._leave(instance)
        return [self.spawn(self._drain(each, 0.0, each.template.config.shutdown_grace_s)) for each in discarded]

    def adopt(self, template: SessionTemplate) -> None:
        """Make another configuration the server's own; instances of the old one stay until they are drained."""
        before = self._template
        if before.authorizations is not None:
            self._retired = (*self._retired, before)
        self._retired = tuple(each for each in self._retired if each is not template)
        self._template = template
        self._follow()
        self._release()
        template.host.events.tell(ServerRedeployed(server_id=self.server_id, instances=self.desired))

    def adjust(self) -> None:
        """Follow the configuration after a change that keeps the sessions; not during a rollout."""
        self._follow()
        for instance in (*self._instances, *self._draining):
            if instance.template is not self._template or instance.backend is None:
                continue
            instance.adjust()
            self._router.adjust_backend(instance.backend, *self._registration(instance), self._clock())
            self._set_breaker_mode(instance.backend, self.config)
            self.hold(instance)

    def _follow(self) -> None:
        """Take over what the configuration says of calls, limits and balancing."""
        self.request_timeout_ns = in_ns(self.config.request_timeout_s)
        self.tool_checks = tool_checks_of(self.config)
        # Also of an older configuration: calls may still wait in its sessions.
        instances = (*self._staged, *self._instances, *self._draining)
        for template in {self._template, *(each.template for each in instances)}:
            template.restrict(self.config.tools)
        self.balance()

    def balance(self, *, by_weight: bool = False) -> None:
        """Apply the configured balancing, or with ``by_weight`` one in which only weights decide (for a canary)."""
        balancing = self.config.balancing
        if by_weight:
            policy = "consistent" if balancing.policy == "consistent" else "weighted"
            balancing = msgspec.structs.replace(balancing, policy=policy, slow_start_s=0.0)
        if not self.is_over:
            self._router.configure(self.server_id, balancing_settings(balancing), limits_of(self.config))

    # Child processes that have ended

    def hold(self, instance: Instance) -> float:
        """Hold the circuit of an ended child process open until its restart; return the seconds until then.

        Returns 0 and does nothing if the instance has a session, may restart at once, or is not a child process.
        """
        if instance.session is not None or instance.backend is None:
            return 0.0
        wait_s = instance.restart_at - asyncio.get_running_loop().time()
        if wait_s <= 0:
            return 0.0
        # Rounded up, so that a caller who waits exactly that long is not too early by a rounding error.
        wait_s = ceil(wait_s * 1e3 + 1e-3) / 1e3
        self._router.trip(instance.backend, self._clock(), hold_ns=in_ns(wait_s))
        return wait_s

    def release(self, instance: Instance) -> bool:
        """Admit calls to a child process whose restart is due, so that they start it; tell whether it was held."""
        backend = instance.backend
        if backend is None or instance.session is not None or not 0 < instance.restart_at:
            return False
        now_ns = self._clock()
        is_due = instance.restart_at <= asyncio.get_running_loop().time()
        if not is_due or self._router.breaker_state(backend, now_ns) == CircuitState.CLOSED:
            return False
        self._router.reset_breaker(backend, now_ns)
        return True

    # Maintenance, tasks and the end

    def set_maintenance(self, on: bool) -> None:
        """Take the server out of traffic for its operator, or put it back."""
        self.in_maintenance = on
        for instance in self._instances:
            self._set_availability(instance)

    def spawn(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        """Run work in a task that ends with this server, by default in a copy of the current context."""
        if self._tasks is None:
            self._tasks = set()
        task = background_task(work, f"server {self.server_id}", among=self._tasks, context=context)
        task.add_done_callback(self.template.containment.read_failure)
        return task

    async def aclose(self, grace_s: float) -> None:
        """Drain and end every instance; if cancelled, end them at once.

        It is idempotent: a second call can hurry the first, and both wait for the end.

        Parameters
        ----------
        grace_s
            Seconds for calls in flight to finish, and then for each session to end in an orderly way.
        """
        self.is_over = True
        self.record.activator = None
        for instance in (*self._staged, *self._instances):
            self._leave(instance)
        if self.record.on_slot is not None:
            # Wakes the calls that wait for a limit, which fail now.
            self.record.on_slot()
        instances = self._draining
        for instance in instances:
            instance.stop_connecting()
        tasks = self._tasks or ()
        for task in tasks:
            task.cancel()
        try:
            if grace_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        await asyncio.gather(*(instance.wait_idle() for instance in instances))
            await asyncio.gather(*(instance.aclose(grace_s) for instance in instances))
        except asyncio.CancelledError:
            await asyncio.gather(*(instance.aclose(0.0) for instance in instances), return_exceptions=True)
            raise
        finally:
            for template in (*self._retired, self._template):
                if template.authorizations is not None:
                    await template.authorizations.aclose()
            self._retired = ()
            await asyncio.gather(*tasks, return_exceptions=True)
            for instance in instances:
                self._unregister(instance)

    def _add(self, template: SessionTemplate, index: int) -> Instance:
        if template is not self._template:
            # Until adopt(), the rules in force hold for all instances: some paths check a call only when it is sent.
            template.restrict(self.config.tools)
        instance = RoutedInstance(template, index, self._next_number, self._changed)
        self._next_number += 1
        settings, weight, tier, identity = self._registration(instance)
        instance.backend = self._router.add_backend(
            self.server_id, instance, settings, weight=weight, tier=tier, identity=identity
        )
        # It takes no calls before admit().
        self._router.set_availability(instance.backend, EXCLUDED)
        self._set_breaker_mode(instance.backend, template.config)
        self._observer.instance_added(self, instance)
        return instance

    def _registration(self, instance: Instance) -> Registration:
        endpoints, index = instance.template.endpoints, instance.index
        return registration_of(instance.template.config, index, None if endpoints is None else endpoints[index])

    def _set_breaker_mode(self, backend: Backend, config: ServerConfig) -> None:
        self._router.set_breaker_mode(backend, "auto" if config.breaker.enabled else "disabled", self._clock())

    def _weigh(self, instance: Instance) -> None:
        """Give an instance the weight that discovery found last."""
        endpoints, backend = instance.template.endpoints, instance.backend
        if endpoints is not None and backend is not None and backend.weight != endpoints[instance.index].weight:
            self._router.set_weight(backend, endpoints[instance.index].weight)

    def _leave(self, instance: Instance) -> None:
        """Take an instance out of traffic for good."""
        self._staged = tuple(each for each in self._staged if each is not instance)
        self._instances = tuple(each for each in self._instances if each is not instance)
        self._draining = (*self._draining, instance)
        instance.events.is_leaving = True
        self._observer.instance_removed(instance)
        if instance.backend is not None:
            self._router.set_availability(instance.backend, EXCLUDED)

    async def _drain(self, instance: Instance, drain_s: float, grace_s: float) -> None:
        # If it is cancelled, aclose() ends the instance within its own time limit.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await instance.wait_idle()
        await instance.aclose(grace_s)
        self._unregister(instance)
        self._release()
        self._observer.instance_ended(self)

    def _unregister(self, instance: Instance) -> None:
        self._draining = tuple(each for each in self._draining if each is not instance)
        if instance.backend is not None:
            self._router.remove_backend(instance.backend)
            instance.backend = None
        instance.template.forget_instance(instance.number)

    def _release(self) -> None:
        """Stop obtaining tokens for configurations that have no instances left."""
        if not self._retired:
            return
        in_use = {id(each.template) for each in (*self._staged, *self._instances, *self._draining)}
        for template in self._retired:
            if id(template) not in in_use and template.authorizations is not None:
                self._retired = tuple(each for each in self._retired if each is not template)
                self.spawn(template.authorizations.aclose())

    def count_recovery(self, kind: Recovery) -> None:
        """Count a retry, a hedge or a fallback of one of its calls."""
        if self.recoveries is None:
            self.recoveries = {}
        self.recoveries[kind] = self.recoveries.get(kind, 0) + 1

    def _changed(self, instance: Instance, error: CallError | None) -> None:
        if instance.backend is None:
            return
        self._set_availability(instance)
        now_ns = self._clock()
        is_child = instance.template.config.runs_here
        self.renewals += error is None and instance.generation > 1
        if error is None and (is_child or instance.generation == 1):
            # A new process starts with a closed circuit: the old one's failures do not count against it.
            self._router.reset_breaker(instance.backend, now_ns)
        elif error is None:
            self._router.reconnected(instance.backend)
        else:
            self.hold(instance)
            if is_child and instance not in self._draining:
                self._count_restart(error)
        self._observer.instance_changed(self, instance, error)

    def _count_restart(self, error: CallError) -> None:
        """Count the loss of a child process."""
        if self.restarts is None:
            self.restarts = {}
        cause: RestartCause = "hang" if isinstance(error, ServerExitedError) and error.has_hung else "exit"
        self.restarts[cause] = self.restarts.get(cause, 0) + 1

    def _set_availability(self, instance: Instance) -> None:
        assert instance.backend is not None
        if self.in_maintenance or instance in self._draining or instance in self._staged:
            availability = EXCLUDED
        else:
            availability = READY if instance.session is not None else PENDING
        self._router.set_availability(instance.backend, availability, self._clock())


def _by_index(instance: Instance) -> tuple[int, int]:
    return instance.index, instance.number
