"""The programs of the documented Python bindings run as they stand, but for the import line, ports and paths."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.era_server import HANDSHAKE, EraServer, Response

import mcp_manager
from mcp_manager import PyHealthStatus, PyServerInfo
from mcp_manager.testing.scripted import Request

IMPORT = "from claude_optimized_deployment_rust import mcp_manager"

QUICK_START = """\
from claude_optimized_deployment_rust import mcp_manager
import json

# Create a manager instance
manager = mcp_manager.PyMcpManager()

# Start the manager
manager.start()

# Deploy a server
config = {
    "name": "docker-server",
    "server_type": "infrastructure",
    "url": "http://localhost:8001",
    "auth": {"type": "api_key", "key": "secret"},
    "priority": 10,
    "tags": ["docker", "production"]
}
manager.deploy_server("docker-1", json.dumps(config))

# Execute a request
request = {"method": "list_containers"}
response = manager.execute("docker-1", json.dumps(request))
print(f"Response: {response}")

# Get health status
health = manager.get_health_status()
print(f"Healthy servers: {health.healthy_servers}/{health.total_servers}")

# Stop the manager
manager.stop()
"""

ASYNCHRONOUS = """\
import asyncio
from claude_optimized_deployment_rust import mcp_manager

async def main():
    manager = mcp_manager.PyMcpManager()
    
    # Start asynchronously
    await manager.start_async()
    
    # Deploy multiple servers concurrently
    tasks = []
    for i in range(5):
        config = {
            "name": f"server-{i}",
            "server_type": "test",
            "url": f"http://localhost:{8000+i}",
            "auth": {"type": "none"},
            "priority": 5,
            "tags": ["test"]
        }
        task = manager.deploy_server_async(f"server-{i}", json.dumps(config))
        tasks.append(task)
    
    await asyncio.gather(*tasks)
    
    # Execute requests concurrently
    request_tasks = []
    for i in range(5):
        request = {"method": "ping"}
        task = manager.execute_async(f"server-{i}", json.dumps(request))
        request_tasks.append(task)
    
    responses = await asyncio.gather(*request_tasks)
    for i, response in enumerate(responses):
        print(f"Server {i} response: {response}")
    
    await manager.stop()

asyncio.run(main())
"""  # noqa: W293 - as in the document

ERROR_HANDLING = """\
from claude_optimized_deployment_rust import mcp_manager

manager = mcp_manager.PyMcpManager()

try:
    manager.start()
    
    # Deploy server with invalid config
    try:
        manager.deploy_server("bad-server", "{invalid json}")
    except ValueError as e:
        print(f"Config error: {e}")
    
    # Execute on non-existent server
    try:
        response = manager.execute("non-existent", '{"method": "test"}')
    except ValueError as e:
        print(f"Server not found: {e}")
    
finally:
    manager.stop()
"""  # noqa: W293 - as in the document

MONITORING = """\
import time
from claude_optimized_deployment_rust import mcp_manager

manager = mcp_manager.PyMcpManager()
manager.start()

# Deploy some servers
# ... deployment code ...

# Monitor health over time
for _ in range(10):
    health = manager.get_health_status()
    healthy_pct = (health.healthy_servers / health.total_servers) * 100
    print(f"Health: {healthy_pct:.1f}% ({health.healthy_servers}/{health.total_servers})")
    print(f"Avg response time: {health.avg_response_time_ms}ms")
    
    # Export metrics
    metrics = manager.export_prometheus_metrics()
    # Write to file or push to monitoring system
    with open("metrics.prom", "w") as f:
        f.write(metrics)
    
    time.sleep(10)

manager.stop()
"""  # noqa: W293 - as in the document


class DocumentedServer(EraServer):
    """A server with the documented method, at ``at`` alone."""

    def __init__(self, at: str) -> None:
        super().__init__(HANDSHAKE)
        self.at = at

    @property
    def place(self) -> str:
        """Its URL up to the port."""
        return f"http://localhost:{self.port}"

    def answer(self, request: Request) -> Response:
        if request.path != self.at:
            return 404, {}, None
        if request.method == "list_containers":
            return 200, {}, {"jsonrpc": "2.0", "id": request.id, "result": {"containers": ["web"]}}
        return super().answer(request)


@pytest.fixture(params=["as it stands, at /", "as it stands, at /mcp", "with the path"])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Where the servers have their endpoint, and what follows the port in their URLs."""
    endpoint = "/" if request.param.endswith("at /") else "/mcp"
    return endpoint, endpoint if request.param == "with the path" else ""


@contextlib.contextmanager
def documented_servers(endpoint: str, count: int = 1) -> Iterator[list[DocumentedServer]]:
    with contextlib.ExitStack() as entered:
        yield [entered.enter_context(DocumentedServer(endpoint)) for _ in range(count)]


def execute(program: str, *, sleep: Any = None) -> dict[str, Any]:
    """Run a program that sees ``sleep`` in place of ``time.sleep``, and return its names."""

    def importing(name: str, *rest: Any) -> Any:
        return SimpleNamespace(sleep=sleep) if name == "time" else __import__(name, *rest)

    # The asynchronous program of the document uses the json that the first one has imported.
    names: dict[str, Any] = {"json": json, "__builtins__": {**vars(builtins), "__import__": importing}}
    exec(compile(program, "<document>", "exec"), names)
    return names


def adapted(block: str, replacements: dict[str, str]) -> str:
    """Replace the import line and other parts of a block, each of which must be there."""
    for old, new in {IMPORT: "import mcp_manager", **replacements}.items():
        assert block.count(old) == 1
        block = block.replace(old, new)
    return block


def test_the_quick_start(place: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    endpoint, path = place
    with documented_servers(endpoint) as (server,):
        names = execute(adapted(QUICK_START, {"http://localhost:8001": server.place + path}))
        called = server.requests_of("list_containers")
    assert [each.path for each in called] == [endpoint]
    assert called[0].headers["x-api-key"] == "secret"
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Response: ")
    assert json.loads(said[0].removeprefix("Response: "))["result"] == {"containers": ["web"]}
    assert said[1:] == ["Healthy servers: 1/1"]
    assert isinstance(names["health"], PyHealthStatus)


def test_the_asynchronous_operations(place: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    endpoint, path = place
    with documented_servers(endpoint, 5) as servers:
        ports = [server.port for server in servers]
        execute(adapted(ASYNCHRONOUS, {"{8000+i}": f"{{{ports}[i]}}{path}"}))
        assert all(len(server.requests_of("ping")) >= 1 for server in servers)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5
    for number, line in enumerate(said):
        reply = json.loads(line.removeprefix(f"Server {number} response: "))
        assert reply["result"] == {}


def test_the_error_handling(capsys: pytest.CaptureFixture[str]) -> None:
    execute(adapted(ERROR_HANDLING, {}))
    config, server = capsys.readouterr().out.splitlines()
    assert config.startswith("Config error: Invalid server config")
    assert server == "Server not found: Server non-existent not found (servers() names the deployed ones)"


def test_the_monitoring(
    place: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint, path = place
    monkeypatch.chdir(tmp_path)
    slept: list[int] = []
    with documented_servers(endpoint) as (server,):
        deployment = f'manager.deploy_server("a", \'{{"url": "{server.place}{path}"}}\')'
        execute(adapted(MONITORING, {"# ... deployment code ...": deployment}), sleep=slept.append)
    assert slept == [10] * 10
    said = capsys.readouterr().out.splitlines()
    assert said[0::2] == ["Health: 100.0% (1/1)"] * 10
    assert all(re.fullmatch(r"Avg response time: \d+ms", line) for line in said[1::2])
    written = (tmp_path / "metrics.prom").read_text()
    assert written.startswith("# HELP mcp_requests_total ")
    assert 'server_id="a"' in written


def test_every_documented_method_in_a_program_with_threads() -> None:
    with documented_servers("/mcp") as (server,):
        manager = mcp_manager.PyMcpManager()
        manager.start()
        manager.deploy_server("a", json.dumps({"url": server.place}))
        assert manager.get_server_state("a") == mcp_manager.SERVER_STATE_HEALTHY
        manager.scale_server("a", 2)
        assert json.loads(manager.execute("a", '{"method": "ping"}'))["result"] == {}
        (info,) = manager.list_servers()
        assert isinstance(info, PyServerInfo)
        assert (info.id, info.name, info.server_type, info.state, info.priority) == ("a", "a", "mcp", "Healthy", 0)
        assert manager.export_prometheus_metrics().startswith("# HELP")
        manager.undeploy_server("a")
        assert manager.get_health_status().total_servers == 0
        manager.stop()


async def every_method(url: str) -> None:
    """Use every documented method on the manager's own loop."""
    manager = mcp_manager.PyMcpManager()
    await manager.start_async()
    await manager.deploy_server_async("a", json.dumps({"url": url}))
    # The plain methods take effect at once here, and what they return can be awaited.
    await manager.deploy_server("b", json.dumps({"url": url}))
    assert {each.id for each in manager.list_servers()} == {"a", "b"}
    await manager.scale_server("b", 2)
    assert json.loads(await manager.execute_async("b", '{"method": "ping"}'))["result"] == {}
    assert manager.get_server_state("b") == "Healthy"
    assert manager.get_health_status().total_servers == 2
    assert 'server_id="b"' in manager.export_prometheus_metrics()
    await manager.undeploy_server("b")
    assert [each.id for each in manager.list_servers()] == ["a"]
    await manager.stop()


def test_every_documented_method_in_a_program_with_asyncio() -> None:
    with documented_servers("/mcp") as (server,):
        asyncio.run(every_method(server.place))
