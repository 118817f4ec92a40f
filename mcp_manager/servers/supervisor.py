"""One server's life: its instances come, go and drain here, and every task of theirs ends here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from math import ceil
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from mcp_manager._core.records import EXCLUDED, PENDING, READY
from mcp_manager._core.router import Router
from mcp_manager.config import ServerConfig
from mcp_manager.errors import CallError, ServerExitedError
from mcp_manager.runtime.background import background_task
from mcp_manager.servers.core_settings import balancing_settings, breaker_settings, identity_of, in_ns, limits_of
from mcp_manager.servers.instance import Instance
from mcp_manager.session import SessionTemplate
from mcp_manager.types import CircuitState

__all__ = ["Change", "InstanceObserver", "RestartCause", "Supervisor"]

T = TypeVar("T")

RestartCause = Literal["exit", "hang"]
"""Why a child process is started again: it has ended, or was killed because it did not answer."""

_log = logging.getLogger(__name__)


class InstanceObserver(Protocol):
    """Who wants to know of a server's instances: the health monitor."""

    def instance_added(self, supervisor: Supervisor, instance: Instance) -> None:
        """Learn of a new instance, not yet connected."""

    def instance_changed(self, supervisor: Supervisor, instance: Instance, error: CallError | None) -> None:
        """Learn that an instance's session was made (``None``) or lost (the reason)."""

    def instance_removed(self, instance: Instance) -> None:
        """Learn that an instance is about to drain."""

    def instance_ended(self, supervisor: Supervisor) -> None:
        """Learn that an instance has drained, and ended."""


class Change:
    """A replacement of a server's configuration that is under way.

    ``is_scaled`` tells whether somebody asked for another number of instances meanwhile, which holds whatever comes of it.
    """

    __slots__ = ("before", "desired_before", "is_scaled", "task", "template")

    def __init__(
        self, before: SessionTemplate, template: SessionTemplate, desired_before: int, task: asyncio.Task[None]
    ) -> None:
        self.before = before
        self.template = template
        self.desired_before = desired_before
        self.task = task
        self.is_scaled = False


class Supervisor:
    """Own the instances of one server.

    Parameters
    ----------
    template
        What sessions are made from; ``template.config`` is the server's configuration.
    router
        Where the instances are registered; the server itself already is.
    observer
        Told of every instance.
    clock
        Monotonic nanoseconds.
    """

    # No dictionary on the way to what a call reads: in a large fleet, every line of memory it touches is a miss.
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
        "has_tool_rates",
        "in_maintenance",
        "is_over",
        "record",
        "request_timeout_ns",
        "restarts",
        "rollout",
        "server_id",
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
        # Of most servers of a large fleet nothing is ever asked: what they do not need, they do not have.
        self._tasks: set[asyncio.Task[Any]] | None = None
        self._instances: tuple[Instance, ...] = ()
        self._draining: tuple[Instance, ...] = ()
        # What a rollout brings: instances that are not in traffic yet, and the credentials of what it replaced.
        self._staged: tuple[Instance, ...] = ()
        self._retired: tuple[SessionTemplate, ...] = ()
        self._next_number = 0
        self.desired = 0
        self.rollout: Change | None = None
        # How often a child process was gone, by cause; most servers never lose one.
        self.restarts: dict[RestartCause, int] | None = None
        self.is_over = False
        self.in_maintenance = False
        self.server_id = template.server_id
        self.record = router.server(template.server_id)
        self.request_timeout_ns = in_ns(template.config.request_timeout_s)
        self.has_tool_rates = bool(template.config.limits.tools)

    @property
    def config(self) -> ServerConfig:
        """The server's configuration."""
        return self._template.config

    @property
    def template(self) -> SessionTemplate:
        """What its sessions are made from, and what they have found out."""
        return self._template

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances that take traffic, in the order of their index; while a rollout is on, of two configurations."""
        return self._instances

    @property
    def is_dormant(self) -> bool:
        """Whether its instances are made when the first call comes: it is lazy and was never used."""
        return self.record.dormant is not None

    @property
    def draining(self) -> int:
        """How many instances finish their last calls."""
        return len(self._draining)

    # How many instances there are

    def scale(self, desired: int) -> list[Instance]:
        """Set how many instances are wanted and make it so; return the new ones, which are not connected yet.

        While a rollout is on, it works towards the new number, and nothing is returned.
        """
        self.desired = desired
        if self.rollout is not None:
            self.rollout.is_scaled = True
        elif self.config.connect == "lazy" and not self._instances and self._template.endpoints is None:
            self.record.dormant = self if desired else None
            return []
        return self.reconcile()

    def waken(self) -> list[Instance]:
        """Make the instances of a dormant server; return them."""
        is_dormant, self.record.dormant = self.is_dormant, None
        return self.reconcile() if is_dormant and not self.is_over else []

    def reconcile(self) -> list[Instance]:
        """Add what is missing of the wanted instances and drain what is too much; return the new ones.

        While a rollout is on, nothing is done.
        Everything is decided at once, from what is there, so that however often and from wherever it is called the
        outcome is what was wanted last. The lowest indexes are kept, so that a list of URLs is used from its beginning.
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
        """Return the indexes of all instances of a configuration that there are, draining ones included."""
        return {each.index for each in (*self._staged, *self._instances, *self._draining) if each.template is template}

    def drain(self, instance: Instance) -> asyncio.Task[None]:
        """Take an instance out of traffic at once, and end it when its calls have ended or ``drain_timeout_s`` is over."""
        self._leave(instance)
        config = instance.template.config
        return self.spawn(self._drain(instance, config.drain_timeout_s, config.shutdown_grace_s))

    # What a rollout needs beside that

    def begin_rollout(self, template: SessionTemplate, work: Coroutine[Any, Any, None]) -> Change:
        """Run the replacement of the configuration, which alone decides on instances until :meth:`end_rollout`."""
        self.waken()
        self.rollout = Change(self._template, template, self.desired, self.spawn(work))
        self.desired = template.config.instances
        return self.rollout

    def revert(self) -> None:
        """Want as many instances as before the rollout again, unless another number was asked for since."""
        if self.rollout is not None and not self.rollout.is_scaled:
            self.desired = self.rollout.desired_before

    def end_rollout(self) -> list[Instance]:
        """Make it so again that there are as many instances as are wanted, of the configuration that is the server's."""
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
        """Make an instance of another configuration, which takes no traffic until :meth:`admit`."""
        instance = self._add(template, index)
        self._staged = (*self._staged, instance)
        self._set_availability(instance)
        return instance

    def admit(self, instance: Instance) -> None:
        """Let an instance take traffic: at once if it has a session, else as soon as it has, or for want of another."""
        self._staged = tuple(each for each in self._staged if each is not instance)
        self._instances = tuple(sorted((*self._instances, instance), key=_by_index))
        self._set_availability(instance)

    def discard(self) -> list[asyncio.Task[None]]:
        """End the instances that take no traffic yet."""
        discarded = self._staged
        for instance in discarded:
            self._leave(instance)
        return [self.spawn(self._drain(each, 0.0, each.template.config.shutdown_grace_s)) for each in discarded]

    def adopt(self, template: SessionTemplate) -> None:
        """Make another configuration that of the server; instances of the old one stay until they are drained."""
        before = self._template
        if before.authorizations is not None:
            self._retired = (*self._retired, before)
        self._retired = tuple(each for each in self._retired if each is not template)
        self._template = template
        self.request_timeout_ns = in_ns(template.config.request_timeout_s)
        self.has_tool_rates = bool(template.config.limits.tools)
        self.balance()
        self._release()

    def balance(self, *, by_weight: bool = False) -> None:
        """Have calls shared as the configuration says or, for a time, so that weights alone decide on the shares."""
        balancing = self.config.balancing
        if by_weight:
            policy = "consistent" if balancing.policy == "consistent" else "weighted"
            balancing = msgspec.structs.replace(balancing, policy=policy, slow_start_s=0.0)
        if not self.is_over:
            self._router.configure(self.server_id, balancing_settings(balancing), limits_of(self.config))

    # Child processes that are gone

    def hold(self, instance: Instance) -> float:
        """Keep calls from a child process that is gone until it is started again; return how many seconds that is.

        0 for whatever else: it is there, it may be started at once, or it is no child.
        """
        if instance.session is not None or instance.backend is None:
            return 0.0
        wait_s = instance.restart_at - asyncio.get_running_loop().time()
        if wait_s <= 0:
            return 0.0
        # Rounded up: whoever comes back after exactly that must not be too early by what a float cannot tell apart.
        wait_s = ceil(wait_s * 1e3 + 1e-3) / 1e3
        # The process is gone, there is nothing to count.
        self._router.trip(instance.backend, self._clock(), hold_ns=in_ns(wait_s))
        return wait_s

    def release(self, instance: Instance) -> bool:
        """Let calls through to a child process that may be started by now, for which they wait; tell whether it was held."""
        backend = instance.backend
        if backend is None or instance.session is not None or not 0 < instance.restart_at:
            return False
        now_ns = self._clock()
        is_due = instance.restart_at <= asyncio.get_running_loop().time()
        if not is_due or self._router.breaker_state(backend, now_ns) == CircuitState.CLOSED:
            return False
        self._router.reset_breaker(backend, now_ns)
        return True

    # The rest of its life

    def set_maintenance(self, on: bool) -> None:
        """Take the server out of traffic as its operator wishes, or put it back."""
        self.in_maintenance = on
        for instance in self._instances:
            self._set_availability(instance)

    def spawn(self, work: Coroutine[Any, Any, T], context: Context | None = None) -> asyncio.Task[T]:
        """Run work that belongs to this server and must end with it, by default in a copy of the current context."""
        if self._tasks is None:
            self._tasks = set()
        task = background_task(work, f"server {self.server_id}", among=self._tasks, context=context)
        task.add_done_callback(self.template.containment.read_failure)
        return task

    async def aclose(self, grace_s: float) -> None:
        """Drain and end every instance, in steps of ``grace_s`` seconds; cancelled, end them at once.

        Idempotent: a second call hurries the first, and both wait for the end.
        """
        self.is_over = True
        self.record.dormant = None
        for instance in (*self._staged, *self._instances):
            self._leave(instance)
        if self.record.on_slot is not None:
            # Whoever waits for a turn waits in vain.
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
        instance = Instance(template, index, self._next_number, self._changed)
        self._next_number += 1
        config = template.config
        found = template.endpoints[index] if template.endpoints is not None else None
        instance.backend = self._router.add_backend(
            self.server_id,
            instance,
            breaker_settings(config.breaker, config.health.enabled),
            weight=_at(config.balancing.weights, index, 1.0) if found is None else found.weight,
            tier=_at(config.balancing.tiers, index, 0) if found is None else found.tier,
            identity=identity_of(config, index, found),
        )
        # Nothing is picked before admit().
        self._router.set_availability(instance.backend, EXCLUDED)
        if not config.breaker.enabled:
            self._router.set_breaker_mode(instance.backend, "disabled")
        self._observer.instance_added(self, instance)
        return instance

    def _weigh(self, instance: Instance) -> None:
        """Give an instance the weight that was found last."""
        endpoints, backend = instance.template.endpoints, instance.backend
        if endpoints is not None and backend is not None and backend.weight != endpoints[instance.index].weight:
            self._router.set_weight(backend, endpoints[instance.index].weight)

    def _leave(self, instance: Instance) -> None:
        """Take an instance out of traffic, on its way to its end."""
        self._staged = tuple(each for each in self._staged if each is not instance)
        self._instances = tuple(each for each in self._instances if each is not instance)
        self._draining = (*self._draining, instance)
        self._observer.instance_removed(instance)
        if instance.backend is not None:
            self._router.set_availability(instance.backend, EXCLUDED)

    async def _drain(self, instance: Instance, drain_s: float, grace_s: float) -> None:
        # Cancelled, it leaves the rest to aclose(), which has a time limit of its own.
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
        """End what obtains tokens for a configuration of which no instance is left."""
        if not self._retired:
            return
        in_use = {id(each.template) for each in (*self._staged, *self._instances, *self._draining)}
        for template in self._retired:
            if id(template) not in in_use and template.authorizations is not None:
                self._retired = tuple(each for each in self._retired if each is not template)
                self.spawn(template.authorizations.aclose())

    def _changed(self, instance: Instance, error: CallError | None) -> None:
        if instance.backend is None:
            return
        self._set_availability(instance)
        now_ns = self._clock()
        is_child = instance.template.config.transport == "stdio"
        if error is None and (is_child or instance.generation == 1):
            # A new process is a new peer: what the old one did is no longer held against it.
            self._router.reset_breaker(instance.backend, now_ns)
        elif error is None:
            self._router.reconnected(instance.backend)
        else:
            self.hold(instance)
            if is_child and instance not in self._draining:
                self._count_restart(instance, error)
        self._observer.instance_changed(self, instance, error)

    def _count_restart(self, instance: Instance, error: CallError) -> None:
        """Count a child process that is gone, and say so."""
        if self.restarts is None:
            self.restarts = {}
        cause: RestartCause = "hang" if isinstance(error, ServerExitedError) and error.has_hung else "exit"
        self.restarts[cause] = self.restarts.get(cause, 0) + 1
        _log.warning(
            "server %r: %s (instance %d; %s); it is started again in %.1f s",
            self.server_id,
            instance.template.secrets.masked(error.message),
            instance.index,
            instance.template.secrets.masked(error.hint),
            instance.restarts_in_s,
        )

    def _set_availability(self, instance: Instance) -> None:
        assert instance.backend is not None
        if self.in_maintenance or instance in self._draining or instance in self._staged:
            availability = EXCLUDED
        else:
            availability = READY if instance.session is not None else PENDING
        self._router.set_availability(instance.backend, availability, self._clock())


def _at(values: tuple[T, ...], index: int, default: T) -> T:
    return values[index] if index < len(values) else default


def _by_index(instance: Instance) -> tuple[int, int]:
    return instance.index, instance.number
