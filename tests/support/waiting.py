"""A router with limited servers and the waiting room for its calls, on a loop with virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.records import Backend, Lease
from mcp_manager._core.router import Router
from mcp_manager.calls.admission import MAY_WAIT, WaitingRoom
from mcp_manager.config import ManagerConfig, ServerConfig
from mcp_manager.servers.core_settings import limits_of, limits_together
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.testing.virtual_time import VirtualTimeLoop
from mcp_manager.types import CallStatus, Outcome

__all__ = ["Floor"]

_LATENCY_S = 0.2
_CALM = BreakerSettings(consecutive_failures=10_000, min_calls=10_000)


class Floor:
    """Servers with one instance each and ``limits`` by server id, and a manager with ``config``."""

    def __init__(self, limits: dict[str, dict[str, Any]], **config: Any) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.clock: Callable[[], int] = loop.clock
        self.config = ManagerConfig(**config)
        self.router = Router(together=limits_together(self.config))
        self.room = WaitingRoom(self.router, self.config, self.clock, lambda _: _LATENCY_S)
        self.servers: dict[str, Supervisor] = {}
        for server_id, each in limits.items():
            settings = msgspec.convert({"url": "http://127.0.0.1:9/mcp", "limits": each}, ServerConfig)
            self.router.add_server(server_id, limits=limits_of(settings))
            backend = self.router.add_backend(server_id, server_id, _CALM)
            server = SimpleNamespace(
                server_id=server_id,
                config=settings,
                record=self.router.server(server_id),
                instances=[SimpleNamespace(backend=backend)],
                is_over=False,
            )
            self.servers[server_id] = cast(Supervisor, server)

    def add_backend(self, server_id: str) -> Backend:
        """Add an instance to a server."""
        backend = self.router.add_backend(server_id, server_id, _CALM)
        cast(list[Any], self.servers[server_id].instances).append(SimpleNamespace(backend=backend))
        return backend

    def pick(self, server_id: str, *, waited: bool = False, on: Backend | None = None) -> Lease:
        if on is not None:
            return self.router.pick_on(on, "tools/call", self.clock(), waited=waited)
        return self.router.pick(server_id, "tools/call", self.clock(), 2**63, waited=waited)

    async def enter(
        self,
        server_id: str,
        *,
        timeout_s: float = 60.0,
        on: Backend | None = None,
        granted: Callable[[Lease], None] = lambda _: None,
    ) -> Lease:
        """Get a lease as the dispatcher does; ``granted`` is called in the order in which the router grants leases."""

        def attempt(_: int) -> Lease:
            lease = self.pick(server_id, waited=True, on=on)
            if not lease.rejection:
                granted(lease)
            return lease

        deadline_ns = self.clock() + round(timeout_s * 1e9)
        lease = self.pick(server_id, on=on)
        if lease.rejection in MAY_WAIT:
            return await self.room.turn(self.servers[server_id], lease, attempt, deadline_ns)
        if not lease.rejection:
            granted(lease)
        return lease

    def end(self, lease: Lease, status: CallStatus = CallStatus.SUCCESS) -> None:
        outcome = Outcome.SUCCESS if status is CallStatus.SUCCESS else Outcome.FAILURE
        self.router.done(lease, outcome, status, self.clock())

    def counts(self, server_id: str) -> dict[CallStatus, int]:
        """Return the numbers of ended calls by status, without zeros."""
        (method,) = self.router.server_counts(server_id, self.clock()).methods
        return {CallStatus(status): count for status, count in enumerate(method.counts) if count}

    def assert_empty(self) -> None:
        """Assert that no queue and no waiting call is left."""
        assert len(self.room) == 0
        assert self.router.waiting == 0
        for server in self.servers.values():
            assert server.record.waiting == 0
            assert server.record.on_slot is None
