"""One server's life: its instances come, go and drain here, and every task of theirs ends here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import Balancing
from mcp_manager._core.router import Router
from mcp_manager.config import BalancingConfig, BreakerConfig, ServerConfig
from mcp_manager.errors import CallError
from mcp_manager.pool import Instance
from mcp_manager.session import SessionSettings

__all__ = ["InstanceObserver", "Supervisor", "balancing_settings", "breaker_settings"]

_Value = TypeVar("_Value")

READY: Final = 0
PENDING: Final = 1
EXCLUDED: Final = 2


class InstanceObserver(Protocol):
    """Who wants to know of a server's instances: the health monitor."""

    def instance_added(self, supervisor: Supervisor, instance: Instance) -> None:
        """Learn of a new instance, not yet connected."""

    def instance_changed(self, supervisor: Supervisor, instance: Instance, error: CallError | None) -> None:
        """Learn that an instance's session was made (``None``) or lost (the reason)."""

    def instance_removed(self, instance: Instance) -> None:
        """Learn that an instance is about to drain."""


class Supervisor:
    """Own the instances of one server.

    Parameters
    ----------
    settings
        What sessions are made from; ``settings.config`` is the server's configuration.
    router
        Where the instances are registered; the server itself already is.
    observer
        Told of every instance.
    clock
        Monotonic nanoseconds.
    """

    # No dictionary on the way to what a call reads: in a large fleet, every line of memory it touches is a miss.
    __slots__ = (
        "_breaker",
        "_clock",
        "_draining",
        "_instances",
        "_next_index",
        "_observer",
        "_router",
        "_settings",
        "_tasks",
        "in_maintenance",
        "record",
        "request_timeout_ns",
        "server_id",
    )

    def __init__(
        self,
        settings: SessionSettings,
        router: Router,
        observer: InstanceObserver,
        clock: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._router = router
        self._observer = observer
        self._clock = clock
        self._breaker = breaker_settings(settings.config.breaker, settings.config.health.enabled)
        self._tasks: set[asyncio.Task[None]] = set()
        self._instances: list[Instance] = []
        self._draining: list[Instance] = []
        self._next_index = 0
        self.in_maintenance = False
        self.server_id = settings.server_id
        self.record = router.server(settings.server_id)
        self.request_timeout_ns = _ns(settings.config.request_timeout_s)

    @property
    def config(self) -> ServerConfig:
        """The server's configuration."""
        return self._settings.config

    @property
    def settings(self) -> SessionSettings:
        """What its sessions are made from, and what they have found out."""
        return self._settings

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The instances that take traffic, in the order of their index."""
        return tuple(self._instances)

    @property
    def draining(self) -> int:
        """How many instances finish their last calls."""
        return len(self._draining)

    def set_instances(self, wanted: int) -> list[Instance]:
        """Add or drain instances until ``wanted`` remain; return the new ones, which are not connected yet.

        The highest indexes go first, so that a list of URLs is always used from its beginning.
        """
        added = [self._add() for _ in range(wanted - len(self._instances))]
        while len(self._instances) > wanted:
            self._remove(self._instances[-1])
        return added

    def set_maintenance(self, on: bool) -> None:
        """Take the server out of traffic as its operator wishes, or put it back."""
        self.in_maintenance = on
        for instance in self._instances:
            self._set_availability(instance)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that belongs to this server and must end with it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self, grace_s: float) -> None:
        """Drain and end every instance, in steps of ``grace_s`` seconds; cancelled, end them at once.

        Idempotent: a second call hurries the first, and both wait for the end.
        """
        self._draining += self._instances
        self._instances = []
        instances = list(self._draining)
        for instance in instances:
            self._observer.instance_removed(instance)
            if instance.handle is not None:
                self._router.set_availability(instance.handle, EXCLUDED)
        for task in self._tasks:
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
            if self._settings.authorizations is not None:
                await self._settings.authorizations.aclose()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for instance in instances:
                self._unregister(instance)

    def _add(self) -> Instance:
        instance = Instance(self._settings, len(self._instances), self._changed)
        balancing = self.config.balancing
        instance.handle = self._router.add_instance(
            self.server_id,
            instance,
            self._breaker,
            weight=_at(balancing.weights, instance.index, 1.0),
            tier=_at(balancing.tiers, instance.index, 0),
            identity=_identity(self.config, instance.index),
        )
        if not self.config.breaker.enabled:
            self._router.set_breaker_mode(instance.handle, "disabled")
        self._instances.append(instance)
        self._set_availability(instance)
        self._observer.instance_added(self, instance)
        return instance

    def _remove(self, instance: Instance) -> None:
        self._instances.remove(instance)
        self._draining.append(instance)
        self._observer.instance_removed(instance)
        assert instance.handle is not None
        self._router.set_availability(instance.handle, EXCLUDED)
        self.spawn(self._drain(instance))

    async def _drain(self, instance: Instance) -> None:
        grace_s = self.config.shutdown_grace_s
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await instance.wait_idle()
        finally:
            await instance.aclose(grace_s)
            self._unregister(instance)

    def _unregister(self, instance: Instance) -> None:
        if instance in self._draining:
            self._draining.remove(instance)
        if instance.handle is not None:
            self._router.remove_instance(instance.handle)
            instance.handle = None

    def _changed(self, instance: Instance, error: CallError | None) -> None:
        if instance.handle is None:
            return
        self._set_availability(instance)
        now_ns = self._clock()
        is_child = self.config.transport == "stdio"
        if error is None and (is_child or instance.generation == 1):
            # A new process is a new peer: what the old one did is no longer held against it.
            self._router.reset_breaker(instance.handle, now_ns)
        elif error is not None and is_child:
            # The process is gone, there is nothing to count.
            self._router.trip(instance.handle, now_ns)
        self._observer.instance_changed(self, instance, error)

    def _set_availability(self, instance: Instance) -> None:
        assert instance.handle is not None
        if self.in_maintenance or instance in self._draining:
            availability = EXCLUDED
        else:
            availability = READY if instance.session is not None else PENDING
        self._router.set_availability(instance.handle, availability, self._clock())


@functools.lru_cache(maxsize=1024)
def breaker_settings(config: BreakerConfig, is_probed: bool) -> BreakerSettings:
    """Translate a server's breaker configuration from seconds to the core's nanoseconds.

    Servers that are configured alike share one: fewer bytes to keep, and to read on every call.
    """
    return BreakerSettings(
        window_ns=_ns(config.window_s),
        min_calls=config.min_calls,
        failure_rate=config.failure_rate,
        consecutive_failures=config.consecutive_failures,
        slow_call_ns=_ns(config.slow_call_s),
        slow_rate=config.slow_rate,
        open_ns=_ns(config.open_s),
        open_max_ns=_ns(config.open_max_s),
        jitter=config.jitter,
        trip_decay_ns=_ns(config.trip_decay_s),
        half_open_permits=config.half_open_permits,
        half_open_successes=config.half_open_successes,
        probe_ttl_ns=_ns(config.probe_ttl_s),
        # Where nothing probes, there is nobody for callers to let go first.
        active_first=config.active_first and is_probed,
        probe_grace_ns=_ns(config.probe_grace_s),
    )


@functools.lru_cache(maxsize=1024)
def balancing_settings(config: BalancingConfig) -> Balancing:
    """Translate a server's balancing configuration for the core; servers configured alike share one."""
    return Balancing(
        policy=config.policy,
        overprovision=config.overprovision,
        panic_threshold=config.panic_threshold,
        max_ejection=config.max_ejection,
        slow_start_ns=_ns(config.slow_start_s),
        slow_start_aggression=config.slow_start_aggression,
    )


def _at(values: tuple[_Value, ...], index: int, default: _Value) -> _Value:
    return values[index] if index < len(values) else default


def _identity(config: ServerConfig, index: int) -> int:
    """Tell instances apart for rendezvous hashing, alike in every process: by their URL where each has its own."""
    if config.balancing.policy != "consistent":
        return 0
    own_url = config.url is not None and (config.has_url_template or config.url_limit is not None)
    text = config.instance_url(index) if own_url else str(index)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
