"""The API of ``PyMcpManager`` in one script: first from plain code, then from asyncio. It runs without arguments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Generator
from typing import Any

from mcp_manager import CallError, ConfigError, McpManagerError, NotRunningError, PyMcpManager, ServerNotFoundError

DEMO_SERVERS = "mcp_manager.cli.demo_servers"


@contextlib.contextmanager
def demo_http_server() -> Generator[str]:
    """Run the package's demo server as a child process and yield its URL; it exits when its stdin is closed."""
    command = [sys.executable, "-P", "-m", f"{DEMO_SERVERS}.http_server", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # "listening on http://127.0.0.1:<port>/mcp"
        ready = process.stdout.readline().split()
        if not ready:
            raise RuntimeError("the demo server did not start")
        yield ready[-1]


def unreachable_url() -> str:
    """Return a URL at which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"


def fleet(first_url: str, second_url: str) -> dict[str, dict[str, Any]]:
    """Return the configurations of three servers by id: two over HTTP, one child process."""
    return {
        "calculator-1": {
            "name": "calculator-server",
            "server_type": "computation",
            "url": first_url,
            "auth": {"type": "api_key", "key": "secret"},
            "priority": 10,
            "tags": ["demo", "production"],
        },
        "echo-1": {
            "name": "echo-server",
            "server_type": "text",
            "url": second_url,
            "auth": {"type": "bearer", "token": "secret"},
            "priority": 5,
            "tags": ["demo"],
        },
        "local-1": {
            "name": "child process",
            "server_type": "local",
            "command": sys.executable,
            "args": ["-P", "-m", f"{DEMO_SERVERS}.stdio_server"],
        },
    }


def tool_call(name: str, **arguments: object) -> str:
    """Return a tools/call request as JSON text."""
    return json.dumps({"method": "tools/call", "params": {"name": name, "arguments": arguments}})


def text_of(response: str) -> str:
    """Return the text in the JSON-RPC response to a tools/call."""
    text: str = json.loads(response)["result"]["content"][0]["text"]
    return text


def synchronous(servers: dict[str, dict[str, Any]]) -> None:
    """Use the manager from plain code; each call blocks only its own thread."""
    print("From plain code")
    manager = PyMcpManager()
    manager.start()
    try:
        for server_id, config in servers.items():
            manager.deploy_server(server_id, json.dumps(config))
        for server in manager.list_servers():
            print(f"  {server.id:<13} {server.name:<18} {server.server_type:<12} {server.state}")
        health = manager.get_health_status()
        print(f"  healthy servers: {health.healthy_servers}/{health.total_servers}")

        ping = manager.execute("calculator-1", json.dumps({"method": "ping"}))
        print(f"  ping: {ping}")
        total = manager.execute("calculator-1", tool_call("add", a=2, b=3))
        print(f"  2 + 3 = {text_of(total)}")

        manager.scale_server("local-1", 3)
        answers = [text_of(manager.execute("local-1", tool_call("echo", text=f"call {i}"))) for i in range(3)]
        running = open_connections(manager.export_prometheus_metrics(), "local-1")
        state = manager.get_server_state("local-1")
        print(f"  local-1 runs {running} instances, is {state} and answers: {', '.join(answers)}")

        handle_errors(manager)
        show_metrics(manager.export_prometheus_metrics())

        for server_id in servers:
            manager.undeploy_server(server_id)
        print(f"  servers left: {len(manager.list_servers())}")
    finally:
        manager.stop()
    print("  stopped")


def handle_errors(manager: PyMcpManager) -> None:
    """Show the three kinds of failure: wrong input, no answer, and an error that is the server's answer."""
    try:
        manager.deploy_server("bad-server", "{invalid json}")
    except ConfigError as error:  # a ValueError, as is the next
        print_error("bad config", error)
    try:
        manager.execute("non-existent", json.dumps({"method": "ping"}))
    except ServerNotFoundError as error:
        print_error("unknown server", error)

    # Deploying an unreachable server is not an error, since the manager keeps trying; calling it is.
    manager.deploy_server("unreachable-1", json.dumps({"url": unreachable_url()}))
    try:
        manager.execute("unreachable-1", json.dumps({"method": "ping"}))
    except CallError as error:  # a RuntimeError, as is the next
        print_error("unreachable server", error)
    manager.undeploy_server("unreachable-1")

    try:
        manager.execute("echo-1", tool_call("sleep", seconds=5), timeout=0.1)
    except CallError as error:
        print_error("deadline", error)
    answer = json.loads(manager.execute("echo-1", json.dumps({"method": "no/such/method"})))
    print(f"  the server's own error: {answer['error']['message']}")


def print_error(what: str, error: McpManagerError) -> None:
    """Print an error with its delivery: a call that was "not_sent" is safe to repeat, "unknown" may have run."""
    print(f"  {what + ':':<20}{type(error).__name__}, delivery {error.delivery}")
    print(textwrap.fill(str(error), 96, initial_indent="    ", subsequent_indent="    "))


def open_connections(metrics: str, server_id: str) -> int:
    """Return the number of a server's connections from the metrics; those of a stdio server are child processes."""
    wanted = f'mcp_connection_pool_size{{server_id="{server_id}",'
    return sum(int(float(line.split()[-1])) for line in metrics.splitlines() if line.startswith(wanted))


def show_metrics(metrics: str) -> None:
    """Print the size of the Prometheus text and a few of its lines."""
    counted = [line for line in metrics.splitlines() if line.startswith("mcp_requests_total{")]
    print(f"  {len(metrics)} characters of metrics, among them:")
    for line in counted[:4]:
        print(f"    {line}")


async def asynchronous(servers: dict[str, dict[str, Any]]) -> None:
    """Do the same on a running event loop: every method has an ``_async`` twin."""
    print("From asyncio")
    manager = PyMcpManager()
    await manager.start_async()
    await asyncio.gather(
        *(manager.deploy_server_async(server_id, json.dumps(config)) for server_id, config in servers.items())
    )
    health = await manager.get_health_status_async()
    print(f"  healthy servers: {health.healthy_servers}/{health.total_servers}")

    asked = [*servers, "non-existent"]
    calls = [manager.execute_async(server_id, tool_call("echo", text=f"hello {server_id}")) for server_id in asked]
    for server_id, answer in zip(asked, await asyncio.gather(*calls, return_exceptions=True), strict=True):
        shown = text_of(answer) if isinstance(answer, str) else f"{type(answer).__name__}: {answer}"
        print(f"  {server_id:<13} {shown}")

    # On the loop's own thread, stop() begins the shutdown and returns; `await manager.stop()` would wait for its end.
    manager.stop()
    try:
        await manager.execute_async("calculator-1", '{"method": "tools/list"}')
    except NotRunningError as error:
        print(f"  after stop(): {error}")


def main() -> int:
    """Start two servers, use them from plain code and from asyncio, and end them."""
    with demo_http_server() as first_url, demo_http_server() as second_url:
        servers = fleet(first_url, second_url)
        synchronous(servers)
        asyncio.run(asynchronous(servers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
