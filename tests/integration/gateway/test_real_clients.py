"""Clients of others through the gateway: each does what it does with the server itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from support.gateway_process import GatewayProcess
from support.node import PACKAGES_VARIABLE, node_command, node_program, node_unavailable
from support.processes import PROGRAMS, HttpServerProcess
from support.published_servers import DIRECTORY_VARIABLE, published_servers

ERAS: Final = ("handshake", "stateless")
OF_PYTHON: Final = ("1", "2", "2-stateless", "fastmcp", "fastmcp-stateless")
OF_TYPESCRIPT: Final = ("1", "2", "2-stateless")
CLIENTS: Final = tuple(f"python-{each}" for each in OF_PYTHON) + tuple(f"typescript-{each}" for each in OF_TYPESCRIPT)
EXPECTED: Final[dict[str, Any]] = {
    "call": "This is a simple text response for testing.",
    "progress": [0, 50, 100],
    "elicitation": "Hello, Ada!",
    "sampling": "LLM response: a model's words",
    "resource": "This is the content of the static text resource.",
    "prompt": "This is a simple prompt for testing.",
    "changed": True,
}
INSPECTOR: Final = "@modelcontextprotocol/inspector"
# An environment with the newest 1.x of the SDK for Python.
OF_SDK_1: Final = "calculator"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway before a server of each era."""
    processes = {era: HttpServerProcess("conformance_http.py", "--era", era) for era in ERAS}
    with processes["handshake"], processes["stateless"]:
        servers = {era: {"url": process.url} for era, process in processes.items()}
        views = {"found": {"discovery": "search"}}
        with GatewayProcess(tmp_path_factory.mktemp("gateway"), servers, views=views) as process:
            yield process


def command_of(client: str) -> list[str]:
    """Return the command of a client; skip the test if the client is not installed."""
    language, _, sdk = client.partition("-")
    if language == "typescript":
        if reason := node_unavailable():
            pytest.skip(reason)
        node = node_command("@modelcontextprotocol/conformance")[0]
        modules = str(Path(os.environ[PACKAGES_VARIABLE]).resolve() / "node_modules")
        return [node, str(PROGRAMS / "typescript_client.mjs"), modules, sdk]
    python = sys.executable
    if sdk == "1":
        directory = os.environ.get(DIRECTORY_VARIABLE)
        if not directory:
            pytest.skip(f"{DIRECTORY_VARIABLE} names no directory with an environment of the SDK 1.x")
        python = str(Path(directory) / published_servers()[OF_SDK_1].folder / "bin" / "python")
    return [python, str(PROGRAMS / "python_client.py"), sdk]


def sessions_of(client: str, *places: str) -> list[dict[str, Any]]:
    """Run sessions of a client, each with a URL and a prefix of names; return what they saw."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command_of(client), *places], capture_output=True, text=True, timeout=100, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_uses_servers_alone_and_among_all(gateway: GatewayProcess, client: str) -> None:
    alone = [place for era in ERAS for place in (gateway.url(f"/servers/{era}/mcp"), "")]
    among = [place for era in ERAS for place in (gateway.url("/mcp"), f"{era}__")]
    seen = sessions_of(client, *alone, *among)
    tools = [set(each.pop("tools")) for each in seen]
    assert seen == [EXPECTED] * 4
    assert all("test_simple_text" in each for each in tools[:2])
    assert all({f"{era}__test_simple_text" for era in ERAS} <= each for each in tools[2:])


@pytest.mark.parametrize("client", ["python-2", "python-2-stateless", "python-fastmcp"])
def test_a_client_finds_tools_and_calls_them(gateway: GatewayProcess, client: str) -> None:
    places = [place for era in ERAS for place in (gateway.url("/mcp/found"), f"search:{era}__")]
    expected = {name: value for name, value in EXPECTED.items() if name != "changed"}
    for era, seen in zip(ERAS, sessions_of(client, *places), strict=True):
        assert seen.pop("tools") == ["call_tool", "describe_tools", "search_tools"]
        assert f"{era}__test_simple_text (server: {era})" in seen.pop("found")
        assert seen.pop("described") == f"{era}__test_simple_text"
        assert seen == expected


@pytest.mark.parametrize("era", ERAS)
def test_the_inspector_uses_one_server(gateway: GatewayProcess, era: str) -> None:
    command = node_program_of_the_inspector()
    url = gateway.url(f"/servers/{era}/mcp")

    def inspected(*arguments: str) -> Any:
        done = subprocess.run(
            [*command, "--cli", "--transport", "http", "--server-url", url, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    with ThreadPoolExecutor() as pool:
        called = pool.submit(inspected, "--method", "tools/call", "--tool-name", "test_simple_text")
        skills = pool.submit(inspected, "--method", "skills/list", "--verify")
    assert called.result()["content"][0]["text"] == EXPECTED["call"]
    # It lists the skills, and reads all their files.
    assert skills.result()["outcome"] == "verified"


def node_program_of_the_inspector() -> list[str]:
    """Return the command of the inspector; its package has several programs."""
    if reason := node_unavailable():
        pytest.skip(reason)
    modules = Path(os.environ[PACKAGES_VARIABLE]).resolve() / "node_modules"
    programs = json.loads((modules / INSPECTOR / "package.json").read_text(encoding="utf-8"))["bin"]
    node = node_program("@modelcontextprotocol/conformance")[0]
    return [node, str(modules / INSPECTOR / programs["mcp-inspector"])]
