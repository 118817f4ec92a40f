"""A deployment pipeline: deploy a fleet from a file, verify it, break it, change it, report. It runs without arguments.

The exit status is 0 only if every step succeeded, so a pipeline can rely on it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from mcp_manager import CallError, CircuitOpenError, McpManager, McpManagerError, ServerState, load_manager_config

DEMO_SERVERS = "mcp_manager.cli.demo_servers"
EXPECTED_TOOLS = {"add", "echo", "sleep"}
RECOVERY_S = 15.0
FLEET_FILE = """\
[manager]
client_name = "deployment-automation"

[defaults]
server_type = "demo"
connect_timeout_s = 5
request_timeout_s = 5
breaker = {{ consecutive_failures = 3 }}
restart = {{ initial_s = 0.2 }}

[servers.search-1]
name = "search, first site"
url = "{first_url}"
priority = 10
tags = ["production"]

[servers.search-2]
name = "search, {second_site}"
url = "{second_url}"

[servers.local]
command = {python}
args = ["-P", "-m", "{package}.stdio_server"]
instances = {local_instances}
"""


class StepFailedError(Exception):
    """A step of the deployment failed."""


class DemoServer:
    """The package's demo server as a child process, which exits when its stdin is closed."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-m", f"{DEMO_SERVERS}.http_server", "--port", "0"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        # "listening on http://127.0.0.1:<port>/mcp"
        ready = self.process.stdout.readline().split()
        if not ready:
            self.process.communicate()
            raise RuntimeError("the demo server did not start")
        self.url = ready[-1]

    def __enter__(self) -> DemoServer:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.process.__exit__(*exception)

    def kill(self) -> None:
        """Kill it without warning."""
        self.process.kill()
        self.process.wait()


class Report:
    """Run steps one after the other and print how each ended."""

    def __init__(self) -> None:
        self.failed_steps = 0

    async def step(self, title: str, work: Coroutine[Any, Any, str]) -> None:
        """Run a step; print the text that it returns, or its error."""
        started = time.perf_counter()
        try:
            outcome, said = "ok", await work
        except (StepFailedError, McpManagerError, TimeoutError) as error:
            self.failed_steps += 1
            outcome, said = "FAILED", f"{type(error).__name__}: {error}"
        took_ms = 1000 * (time.perf_counter() - started)
        print(f"  {outcome:<6}  {title:<22}  {took_ms:6.0f} ms  {said}", flush=True)


def write_fleet(path: Path, first_url: str, second_url: str, *, second_site: str, local_instances: int) -> None:
    """Write the fleet's configuration file, which is usually kept in version control."""
    text = FLEET_FILE.format(
        first_url=first_url,
        second_url=second_url,
        second_site=second_site,
        python=json.dumps(sys.executable),
        package=DEMO_SERVERS,
        local_instances=local_instances,
    )
    path.write_text(text, encoding="utf-8")


async def start(manager: McpManager) -> str:
    """Start the manager, which deploys all servers of its configuration in parallel."""
    await manager.start()
    return ", ".join(view.id for view in manager.servers())


async def wait_until_ready(manager: McpManager) -> str:
    """Wait until every server has a session and is not Unhealthy."""
    await manager.wait_ready(timeout=RECOVERY_S)
    health = manager.health()
    return f"{health.healthy_servers} of {health.total_servers} Healthy"


async def verify_tools(manager: McpManager) -> str:
    """List the tools of every server and call one of them."""
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


async def kill_a_process(manager: McpManager, server_id: str) -> str:
    """Kill one of a server's two child processes and wait until the manager has replaced it; the other one answers."""
    victim = manager.server(server_id).pids[0]
    os.kill(victim, signal.SIGKILL)
    states: list[str] = []
    answered = 0
    async with asyncio.timeout(RECOVERY_S):
        while True:
            view = manager.server(server_id)
            if not states or states[-1] != view.state:
                states.append(view.state.value)
            if victim not in view.pids and view.ready == view.desired and view.state is ServerState.HEALTHY:
                return f"{' -> '.join(states)}, {view.ready}/{view.desired} ready; {answered} calls answered meanwhile"
            answered += await answers(manager, server_id)
            await asyncio.sleep(0.02)


async def answers(manager: McpManager, server_id: str) -> bool:
    """Tell whether a server answers; the call that is in flight when its process is killed may fail."""
    try:
        await manager.ping(server_id)
    except CallError:
        return False
    return True


async def lose_a_server(manager: McpManager, server_id: str, server: DemoServer) -> str:
    """Kill a server that nothing restarts and call it until its circuit opens; the others must keep answering."""
    server.kill()
    failed = 0
    for _ in range(20):
        try:
            await manager.ping(server_id)
        except CircuitOpenError:
            break
        except CallError as error:
            failed += error.attempts
    else:
        raise StepFailedError(f"the circuit of {server_id} did not open")
    await asyncio.gather(*(manager.ping(view.id) for view in manager.servers() if view.id != server_id))
    return f"{server_id} is {manager.server(server_id).state} after {failed} failed attempts, the others answer"


async def try_a_bad_change(manager: McpManager, server_id: str, dead_url: str) -> str:
    """Roll out a configuration that does not connect: the old one must stay in place and keep answering."""
    try:
        await manager.redeploy(server_id, {"url": dead_url, "connect_timeout_s": 1})
    except CallError as error:
        await manager.ping(server_id)
        return f"refused ({type(error).__name__}), {server_id} still answers"
    raise StepFailedError(f"{server_id} was moved to where nobody listens")


async def roll_out(manager: McpManager, path: Path) -> str:
    """Apply the changed file; servers whose configuration is the same are not touched."""
    config = load_manager_config(path)
    applied = await manager.apply(config)
    # A server whose new configuration does not connect keeps its old one, so check the fleet itself.
    for view in manager.servers():
        wanted = config.servers[view.id]
        if (view.name, view.ready) != (wanted.name or view.id, wanted.instances):
            raise StepFailedError(f"{view.id} is not what the file says: {view.last_error or 'old configuration'}")
    return f"replaced {', '.join(applied.redeployed)}; changed in place: {', '.join(applied.updated)}"


def print_fleet(manager: McpManager) -> None:
    """Print a table of the fleet's present state."""
    print(f"\n  {'server':<10}{'name':<22}{'transport':<11}{'state':<11}{'circuit':<9}{'ready':<7}protocol")
    for view in manager.servers():
        ready = f"{view.ready}/{view.desired}"
        print(
            f"  {view.id:<10}{view.name:<22}{view.transport:<11}{view.state:<11}{view.circuit:<9}{ready:<7}"
            f"{view.protocol_version}"
        )


async def main() -> int:
    """Run all steps; return the exit status."""
    report = Report()
    async with AsyncExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "fleet.toml"
        first, second, third = (stack.enter_context(DemoServer()) for _ in range(3))
        write_fleet(path, first.url, second.url, second_site="second site", local_instances=2)
        config = load_manager_config(path)
        manager = McpManager(config)
        stack.push_async_callback(manager.stop)

        print(f"Deploying {len(config.servers)} servers from {path.name}")
        await report.step("start", start(manager))
        await report.step("wait until ready", wait_until_ready(manager))
        await report.step("verify the tools", verify_tools(manager))
        await report.step("kill a process", kill_a_process(manager, "local"))
        await report.step("lose a server", lose_a_server(manager, "search-2", second))
        await report.step("try a bad change", try_a_bad_change(manager, "search-1", second.url))
        write_fleet(path, first.url, third.url, second_site="moved", local_instances=3)
        await report.step("roll out a change", roll_out(manager, path))
        await report.step("wait until ready", wait_until_ready(manager))
        await report.step("verify the tools again", verify_tools(manager))
        print_fleet(manager)
    print(f"\n{'All steps succeeded' if not report.failed_steps else f'{report.failed_steps} steps failed'}")
    return 1 if report.failed_steps else 0


if __name__ == "__main__":
    # This example kills programs on purpose; the warnings about them are hidden.
    logging.basicConfig(level=logging.ERROR)
    sys.exit(asyncio.run(main()))
