"""The demonstration: a fleet under traffic loses two servers, keeps working, and gets them back."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from mcp_manager.cli.demo_servers.processes import HttpServerProcess, stdio_server_config
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import arrow, complain, is_terminal, paint, print_json, width, wrapped
from mcp_manager.cli.table import render
from mcp_manager.cli.traffic import Tally, Traffic
from mcp_manager.cli.watch import Timeline, Watch
from mcp_manager.config import ManagerConfig
from mcp_manager.errors import Delivery, McpManagerError
from mcp_manager.manager import McpManager
from mcp_manager.types import ServerState

__all__ = ["Demo", "run"]

_HTTP_SERVERS: Final = ("alpha", "beta", "gamma")
_STDIO_SERVERS: Final = ("delta", "epsilon")
_HTTP_VICTIM: Final = "beta"
_STDIO_VICTIM: Final = "delta"
_SERVERS: Final = _HTTP_SERVERS + _STDIO_SERVERS
_EVERYONE: Final = "fleet"
_CALLERS: Final = 4
_PAUSE_S: Final = 0.02
_LONG_CALLS: Final = 3
_UNDER_WAY_S: Final = 0.1
# Short times, so that what takes minutes in production can be watched. Three trials, so that the circuit is still
# half-open when the first of them returns.
_SETTINGS: Final[dict[str, Any]] = {
    "breaker": {"open_s": 0.8, "open_max_s": 0.8, "half_open_successes": 3, "window_s": 2.0},
    "restart": {"initial_s": 0.4, "max_s": 1.0},
    "health": {"interval_s": 1.0, "settle_s": 0.5, "unhealthy_interval_s": 0.4, "unhealthy_interval_max_s": 0.8},
    "request_timeout_s": 2.0,
    "shutdown_grace_s": 0.5,
}
_HEADERS: Final = (
    "server",
    "transport",
    "state",
    "circuit",
    "calls ok",
    "failed",
    "p50 ms",
    "p99 ms",
    "failed: delivery",
)


async def run(options: Options) -> int:
    """Run the demonstration; return 0 if all of its claims held, else 1."""
    demo = Demo()
    if not (options.json or options.quiet):
        return await demo.run()
    with contextlib.redirect_stdout(io.StringIO()):
        status = await demo.run()
    if options.json:
        print_json({"claims": [{"claim": text, "held": held} for text, held in demo.claims]})
    return status


@dataclass
class _Stage:
    """What the parts of the demonstration share."""

    manager: McpManager
    traffic: Traffic
    watch: Watch
    servers: dict[str, HttpServerProcess]

    def pid(self, server_id: str) -> int:
        return next(iter(self.manager.server(server_id).pids), 0)

    def last_circuits(self, server_id: str) -> str:
        return f" {arrow()} ".join(self.watch.circuits[server_id][-4:])

    def is_healthy(self, server_id: str) -> bool:
        return self.manager.server(server_id).state is ServerState.HEALTHY


class Demo:
    """Run the demonstration once.

    ``claims`` are the claims so far, and whether they held.

    Parameters
    ----------
    restart
        Whether the killed HTTP server is restarted; without that, it cannot recover and the demonstration fails.
    phase_s
        Seconds of traffic in each phase.
    patience_s
        Seconds to wait for each event that is claimed.
    limit_s
        Seconds after which the whole demonstration gives up.
    """

    def __init__(
        self, *, restart: bool = True, phase_s: float = 1.2, patience_s: float = 10.0, limit_s: float = 40.0
    ) -> None:
        self._restart = restart
        self._phase_s = phase_s
        self._patience_s = patience_s
        self._limit_s = limit_s
        self._timeline = Timeline()
        self.claims: list[tuple[str, bool]] = []
        self._pids: set[int] = set()

    async def run(self) -> int:
        """Run all parts; return the exit status."""
        print(
            f"mcp-manager demo: {len(_HTTP_SERVERS)} MCP servers over HTTP and {len(_STDIO_SERVERS)} over stdio, all "
            f"on this machine;\n{_CALLERS} callers call each server the whole time.\n"
            "Every failed call reports its delivery: not_sent is safe to repeat, unknown may have been executed.\n"
        )
        try:
            async with asyncio.timeout(self._limit_s) as limit:
                await self._tell()
        except TimeoutError:
            if not limit.expired():
                raise
            return _give_up(f"the demonstration was not over within {self._limit_s:g} s")
        except McpManagerError as error:
            return _give_up(str(error))
        left = [pid for pid in self._pids if _is_alive(pid)]
        self._timeline.say(_EVERYONE, "manager and servers stopped")
        self._claim(f"none of the {len(self._pids)} processes is left", not left)
        return self._verdict()

    async def _tell(self) -> None:
        """Run all parts, and end everything that they started."""
        async with AsyncExitStack() as stack:
            servers = {server_id: HttpServerProcess() for server_id in _HTTP_SERVERS}
            for server in servers.values():
                stack.push_async_callback(server.aclose)
            await asyncio.gather(*(self._start(server_id, server) for server_id, server in servers.items()))
            manager = await stack.enter_async_context(McpManager(ManagerConfig(shutdown_timeout_s=2.0)))
            watch = Watch(manager, self._timeline)
            traffic = Traffic(manager, _SERVERS, callers=_CALLERS, pause_s=_PAUSE_S, observe=watch.look)
            stage = _Stage(manager, traffic, watch, servers)
            await self._deploy(stage)
            await stack.enter_async_context(watch.running())
            await stack.enter_async_context(traffic.running())
            await self._normal_traffic(stage)
            await self._kill_http_server(stage)
            await self._bring_http_server_back(stage)
            await self._kill_child(stage)
            self._claim("every call received its own reply", traffic.wrong_replies == 0)

    async def _start(self, server_id: str, server: HttpServerProcess) -> None:
        await server.start()
        self._pids.add(server.pid)
        self._timeline.say(server_id, f"process {server.pid} listens on {server.url}")

    async def _deploy(self, stage: _Stage) -> None:
        manager = stage.manager
        await asyncio.gather(
            *(
                manager.deploy(server_id, {"url": server.url, **_SETTINGS})
                for server_id, server in stage.servers.items()
            ),
            *(manager.deploy(server_id, {**stdio_server_config(), **_SETTINGS}) for server_id in _STDIO_SERVERS),
        )
        for server_id in _STDIO_SERVERS:
            self._pids.add(stage.pid(server_id))
            self._timeline.say(server_id, f"child process {stage.pid(server_id)} answers")
        health = manager.health()
        self._timeline.say(_EVERYONE, f"{health.healthy_servers} of {health.total_servers} servers are Healthy")
        self._claim("every server was deployed and is Healthy", health.healthy_servers == len(_SERVERS))

    async def _normal_traffic(self, stage: _Stage) -> None:
        await asyncio.sleep(self._phase_s)
        tallies = self._table(stage, "1. Normal traffic")
        self._claim(
            "every server answers all of its callers",
            all(tally.succeeded and not tally.failed for tally in tallies.values()),
        )

    async def _kill_http_server(self, stage: _Stage) -> None:
        victim = stage.servers[_HTTP_VICTIM]
        await self._kill(stage, _HTTP_VICTIM, victim.pid)
        opened = await stage.watch.until(lambda: "Open" in stage.watch.circuits[_HTTP_VICTIM], self._patience_s)
        await asyncio.sleep(self._phase_s)
        tallies = self._table(stage, f"2. {_HTTP_VICTIM} is dead, its callers continue")
        refused = tallies[_HTTP_VICTIM].failed["not_sent"]
        self._claim(
            f"the circuit of {_HTTP_VICTIM} opened, and kept {refused} calls from being sent", opened and refused > 0
        )
        self._claim_untouched(tallies, _HTTP_VICTIM)

    async def _bring_http_server_back(self, stage: _Stage) -> None:
        victim = stage.servers[_HTTP_VICTIM]
        await victim.aclose()
        if self._restart:
            await self._start(_HTTP_VICTIM, victim)
        recovered = await stage.watch.until(lambda: stage.is_healthy(_HTTP_VICTIM), self._patience_s)
        await asyncio.sleep(self._phase_s / 2)
        tallies = self._table(stage, f"3. {_HTTP_VICTIM} was restarted, without its old sessions")
        path = stage.watch.circuits[_HTTP_VICTIM]
        self._claim(
            f"it recovered by itself, circuit {stage.last_circuits(_HTTP_VICTIM)}",
            recovered and path[-2:] == ["HalfOpen", "Closed"] and tallies[_HTTP_VICTIM].succeeded > 0,
        )
        self._claim_untouched(tallies, _HTTP_VICTIM)

    async def _kill_child(self, stage: _Stage) -> None:
        before = stage.pid(_STDIO_VICTIM)
        await self._kill(stage, _STDIO_VICTIM, before)
        noticed = await stage.watch.until(lambda: not stage.is_healthy(_STDIO_VICTIM), self._patience_s)
        replaced = noticed and await stage.watch.until(lambda: stage.is_healthy(_STDIO_VICTIM), self._patience_s)
        after = stage.pid(_STDIO_VICTIM)
        if replaced:
            self._pids.add(after)
            self._timeline.say(_STDIO_VICTIM, f"child process {after} answers")
        await asyncio.sleep(self._phase_s / 2)
        tallies = self._table(stage, f"4. The child process of {_STDIO_VICTIM} was killed and replaced")
        self._claim(
            f"the manager replaced the child process of {_STDIO_VICTIM}",
            replaced and after not in (0, before) and tallies[_STDIO_VICTIM].succeeded > 0,
        )
        self._claim_untouched(tallies, _STDIO_VICTIM)

    async def _kill(self, stage: _Stage, server_id: str, pid: int) -> None:
        """Kill a server while calls to it are in flight, and report how they end."""
        calls = [asyncio.create_task(stage.traffic.long_call(server_id)) for _ in range(_LONG_CALLS)]
        await asyncio.sleep(_UNDER_WAY_S)
        self._timeline.say(server_id, f"SIGKILL to process {pid}, with {len(calls)} long calls in flight")
        os.kill(pid, signal.SIGKILL)
        ends = await asyncio.gather(*calls)
        self._timeline.say(server_id, f"the {len(calls)} long calls ended: {_tallied(Counter(ends))}")
        self._claim(
            f"the calls in flight to {server_id} failed with delivery unknown: they may have been executed",
            all(end == "unknown" for end in ends),
        )

    def _table(self, stage: _Stage, title: str) -> dict[str, Tally]:
        """Print the servers' states and the calls since the last table; return those calls."""
        tallies = stage.traffic.next_phase()
        rows = []
        for view in stage.manager.servers():
            tally = tallies[view.id]
            latencies = [tally.percentile_ms(0.5), tally.percentile_ms(0.99)]
            counts = [tally.succeeded, tally.failed.total()]
            delivery = _tallied(tally.failed)
            rows.append([view.id, view.transport, view.state, view.circuit, *counts, *latencies, delivery])
        print(f"\n{title}\n{render(_HEADERS, rows)}\n", flush=True)
        return tallies

    def _claim_untouched(self, tallies: dict[str, Tally], victim: str) -> None:
        """Claim that the other servers answered as usual while one was down."""
        others = [tally for server_id, tally in tallies.items() if server_id != victim]
        answered = sum(tally.succeeded for tally in others)
        failed = sum(tally.failed.total() for tally in others)
        self._claim(
            f"the other servers kept working: {answered} calls answered, {failed} failed",
            all(tally.succeeded for tally in others) and not failed,
        )

    def _claim(self, text: str, held: bool) -> None:
        self.claims.append((text, held))

    def _verdict(self) -> int:
        print("\nThe claims, and whether they held")
        for text, held in self.claims:
            word = "yes" if held else "no"
            first = f"  {paint(word, word.ljust(3))}  "
            print(wrapped(text, width(), first, " " * 7) if is_terminal() else f"{first}{text}")
        missing = sum(not held for _, held in self.claims)
        if missing:
            return _give_up(f"{missing} of {len(self.claims)} claims did not hold")
        print(f"\nAll {len(self.claims)} claims held, in {self._timeline.seconds:.1f} s.")
        return 0


def _tallied(deliveries: Counter[Delivery]) -> str:
    return ", ".join(f"{count} {delivery}" for delivery, count in sorted(deliveries.items()))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _give_up(why: str) -> int:
    complain(why)
    return 1
