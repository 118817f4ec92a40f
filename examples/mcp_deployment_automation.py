"""Automated deployment: a fleet from a file, verified, broken on purpose, repaired, reported. Run it as it stands.

The exit status is 0 only if every step did what it should, so a pipeline can rely on it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from mcp_manager import CallError, CircuitOpenError, ManagerConfig, McpManager, load_manager_config

DEMO_SERVERS = "mcp_manager.cli.demo_servers"
EXPECTED_TOOLS = {"add", "echo", "sleep"}
FLEET_FILE = """\
[manager]
client_name = "deployment-automation"

[defaults]
server_type = "demo"
request_timeout_s = 5
breaker = {{ consecutive_failures = 3 }}

[servers.search-1]
name = "search, first site"
url = "{first_url}"
priority = 10
tags = ["production"]

[servers.search-2]
name = "search, second site"
url = "{second_url}"

[servers.local]
command = {python}
args = ["-P", "-m", "{package}.stdio_server"]
instances = 2
"""


class StepFailedError(Exception):
    """A step did not do what it should."""


class DemoServer:
    """The package's demo server as a child process; it ends when its input is closed."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-m", f"{DEMO_SERVERS}.http_server"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        # "listening on http://127.0.0.1:<port>/mcp"
        ready = self.process.stdout.readline().split()
        self.url = ready[-1] if ready else "http://127.0.0.1:9/mcp"

    def __enter__(self) -> DemoServer:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.process.__exit__(*exception)

    def kill(self) -> None:
        """End it without any warning."""
        self.process.kill()
        self.process.wait()


class Report:
    """Run one step after the other and write down how each ended."""

    def __init__(self) -> None:
        self.failed_steps = 0

    async def step(self, title: str, work: Coroutine[Any, Any, str]) -> None:
        """Run a step, which returns what there is to say or raises what went wrong."""
        started = time.perf_counter()
        try:
            outcome, said = "ok", await work
        except (StepFailedError, CallError, TimeoutError) as error:
            self.failed_steps += 1
            outcome, said = "FAILED", f"{type(error).__name__}: {error}"
        took_ms = 1000 * (time.perf_counter() - started)
        print(f"  {outcome:<6}  {title:<28}  {took_ms:6.0f} ms  {said}", flush=True)


async def deploy(manager: McpManager, config: ManagerConfig) -> str:
    """Deploy every server of the file, all at the same time."""
    applied = await manager.apply(config)
    return ", ".join(applied.deployed)


async def wait_until_ready(manager: McpManager) -> str:
    """Wait until every server has a session and is not Unhealthy."""
    await manager.wait_ready(timeout=15)
    health = manager.health()
    return f"{health.healthy_servers} of {health.total_servers} Healthy"


async def verify_tools(manager: McpManager) -> str:
    """Ask every server for its tools and use one of them."""
    servers = [view.id for view in manager.servers()]
    listed = await asyncio.gather(*(manager.list_tools(server_id) for server_id in servers))
    for server_id, tools in zip(servers, listed, strict=True):
        missing = EXPECTED_TOOLS - {tool.name for tool in tools}
        if missing:
            raise StepFailedError(f"{server_id} lacks {', '.join(sorted(missing))}")
    sums = await asyncio.gather(*(manager.call_tool(server_id, "add", {"a": 40, "b": 2}) for server_id in servers))
    if {result.text for result in sums} != {"42"}:
        raise StepFailedError("a server cannot add")
    return f"{', '.join(sorted(EXPECTED_TOOLS))} on each of {len(servers)} servers"


async def lose_a_server(manager: McpManager, server_id: str, server: DemoServer) -> str:
    """Kill a server and call it until its circuit opens; the others must not notice."""
    server.kill()
    failed = 0
    for _ in range(20):
        try:
            await manager.ping(server_id)
        except CircuitOpenError:
            break
        except CallError:
            failed += 1
    else:
        raise StepFailedError(f"the circuit of {server_id} did not open")
    await asyncio.gather(*(manager.ping(view.id) for view in manager.servers() if view.id != server_id))
    return f"{server_id} is {manager.server(server_id).state} after {failed} failed calls, the others answer"


async def redeploy(manager: McpManager, server_id: str, server: DemoServer) -> str:
    """Point a server's id to its replacement; the id and its metrics stay."""
    await manager.redeploy(server_id, {"name": "search, moved", "server_type": "demo", "url": server.url})
    await manager.ping(server_id)
    return f"{server_id} is {manager.server(server_id).state} at {server.url}"


def print_fleet(manager: McpManager) -> None:
    """Print the fleet as it is now."""
    print(f"\n  {'server':<10}{'name':<22}{'transport':<11}{'state':<11}{'circuit':<9}{'ready':<7}protocol")
    for view in manager.servers():
        ready = f"{view.ready}/{view.desired}"
        print(
            f"  {view.id:<10}{view.name:<22}{view.transport:<11}{view.state:<11}{view.circuit:<9}{ready:<7}"
            f"{view.protocol_version}"
        )


async def main() -> int:
    """Run the whole deployment; return the exit status."""
    report = Report()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        first, second = stack.enter_context(DemoServer()), stack.enter_context(DemoServer())
        path = directory / "fleet.toml"
        path.write_text(
            FLEET_FILE.format(
                first_url=first.url, second_url=second.url, python=json.dumps(sys.executable), package=DEMO_SERVERS
            ),
            encoding="utf-8",
        )
        config = load_manager_config(path)
        print(f"Deploying {len(config.servers)} servers from {path.name}")
        manager = await stack.enter_async_context(McpManager(config_without_servers(config)))
        await report.step("deploy in parallel", deploy(manager, config))
        await report.step("wait until ready", wait_until_ready(manager))
        await report.step("verify the tools", verify_tools(manager))
        await report.step("lose a server", lose_a_server(manager, "search-2", second))
        replacement = stack.enter_context(await asyncio.to_thread(DemoServer))
        await report.step("redeploy it", redeploy(manager, "search-2", replacement))
        await report.step("verify the tools again", verify_tools(manager))
        print_fleet(manager)
    print(f"\n{'All steps succeeded' if not report.failed_steps else f'{report.failed_steps} steps failed'}")
    return 1 if report.failed_steps else 0


def config_without_servers(config: ManagerConfig) -> ManagerConfig:
    """Keep the manager's own settings of a file: its servers are deployed by a step of their own."""
    return ManagerConfig(client_name=config.client_name)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
