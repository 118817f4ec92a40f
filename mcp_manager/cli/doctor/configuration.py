"""What can be found without connecting: in the configuration, the programs and the limits of this process."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Final
from urllib.parse import urlsplit

from mcp_manager.cli.doctor.findings import Finding
from mcp_manager.config import ServerConfig
from mcp_manager.errors import ConfigError, ConfigProblem

__all__ = ["examine_configuration", "problems_of", "refusals"]

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_INSTALLERS: Final = {
    "npx": "install Node.js, which brings npx",
    "npm": "install Node.js, which brings npm",
    "node": "install Node.js",
    "uvx": "install uv, which brings uvx",
    "uv": "install uv",
    "docker": "install Docker",
    "podman": "install Podman",
    "bunx": "install Bun, which brings bunx",
    "bun": "install Bun",
    "deno": "install Deno",
    "pipx": "install pipx",
    "python": "use python3, or the full path of an interpreter",
}
# A program has three pipes and the handle of its process; an HTTP server a connection for calls and one for events.
_PER_PROGRAM: Final = 4
_PER_URL: Final = 2
_OWN: Final = 64
_SHOWN_PATH: Final = 200
# Problems whose end in parentheses is what to do.
_WITH_HINT: Final = re.compile(
    r"(.*(?:the environment variable|unknown field) .*?) \((.*)\)|(.*?) \(((?:give|set|use|write) .*)\)", re.DOTALL
)


def refusals(error: ConfigError) -> list[Finding]:
    """Return why a configuration was refused: each problem is a finding."""
    if error.problems:
        return problems_of(error.problems)
    return [Finding("error", None, error.message, error.hint or "correct it")]


def problems_of(problems: Iterable[ConfigProblem]) -> list[Finding]:
    """Return what is wrong in a file as findings."""
    found = []
    for each in problems:
        parts = _WITH_HINT.fullmatch(each.message)
        seen, advice = filter(None, parts.groups()) if parts is not None else (each.message, "correct it in the file")
        found.append(Finding("error", None, str(each._replace(message=seen)), advice))
    return found


def examine_configuration(servers: Mapping[str, ServerConfig]) -> list[Finding]:
    """Return what is wrong with servers before any of them is started."""
    found: list[Finding] = []
    for server_id, server in servers.items():
        if not server.instances:
            advice = "set instances to 1 or more to use it"
            found.append(Finding("note", server_id, "it is suspended: instances is 0", advice))
        found += (
            _program_problems(server_id, server) if server.command is not None else _url_problems(server_id, server)
        )
    found += _limits(servers)
    return found


def _program_problems(server_id: str, server: ServerConfig) -> Iterator[Finding]:
    command = server.command or ""
    directory = Path(server.cwd) if server.cwd else Path.cwd()
    if not directory.is_dir():
        yield Finding("error", server_id, f"cwd {server.cwd} is not a directory", "create it, or correct cwd")
        return
    path = server.env.get("PATH", os.environ.get("PATH", os.defpath))
    split = _with_arguments(server, directory, path)
    if split:
        yield Finding("error", server_id, f"command has a program and its arguments: {command}", split)
    elif os.sep in command:
        program = directory / command
        if not program.exists():
            near = _nearest(program.name, [str(program.parent)])
            yield Finding("error", server_id, f"the program {program} does not exist", near or "correct command")
        elif not os.access(program, os.X_OK):
            yield Finding("error", server_id, f"the program {program} is not executable", f"chmod +x {program}")
    elif shutil.which(command, path=path) is None:
        # That of this process is known to its user, and long.
        given = server.env.get("PATH", "")
        shown = f" ({given if len(given) <= _SHOWN_PATH else f'{given[:_SHOWN_PATH]}…'})" if given else ""
        advice = _INSTALLERS.get(command) or _nearest(command, path.split(os.pathsep)) or "install it"
        yield Finding(
            "error",
            server_id,
            f"the command {command} is not in PATH{shown}",
            f"{advice}; or set command to its full path",
        )


def _with_arguments(server: ServerConfig, directory: Path, path: str) -> str:
    """Return what to set if a command has arguments in it, "" if it has none."""
    command = server.command or ""
    if " " not in command or _is_program(command, directory, path):
        return ""
    try:
        program, *arguments = shlex.split(command)
    except ValueError:
        return ""
    if not arguments or not _is_program(program, directory, path):
        return ""
    shown = f"{json.dumps(arguments, ensure_ascii=False)[:-1]}{', …' if server.args else ''}]"
    return f"put the arguments into args: command = {json.dumps(program, ensure_ascii=False)}, args = {shown}"


def _is_program(name: str, directory: Path, path: str) -> bool:
    return (directory / name).exists() if os.sep in name else shutil.which(name, path=path) is not None


def _url_problems(server_id: str, server: ServerConfig) -> Iterator[Finding]:
    if not server.tls.verify:
        yield Finding(
            "warning",
            server_id,
            "it accepts every certificate: tls.verify is false",
            "set tls.ca_file to the certificate of the issuer, and remove tls.verify",
        )
    urls = (server.url,) if isinstance(server.url, str) else server.url or ()
    for url in urls[:1]:
        parts = urlsplit(url)
        sends_secret = server.auth.request_header() is not None or bool(server.headers)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK and sends_secret:
            yield Finding(
                "warning", server_id, "credentials or headers are sent without encryption", "use https in url"
            )


def _limits(servers: Mapping[str, ServerConfig]) -> Iterator[Finding]:
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    needed = _OWN + sum(
        server.instances * (_PER_PROGRAM if server.transport == "stdio" else _PER_URL) for server in servers.values()
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        can = hard == resource.RLIM_INFINITY or hard >= needed
        yield Finding(
            "warning",
            None,
            f"this process may have {soft} files open, and the fleet may need about {needed}",
            f"ulimit -n {needed}" if can else f"let an administrator raise the limit of {hard} open files",
        )


def _nearest(name: str, directories: list[str]) -> str:
    """Return "did you mean …?" with the program of a similar name, "" if there is none."""
    programs: set[str] = set()
    for directory in directories:
        try:
            programs.update(os.listdir(directory or os.curdir))
        except OSError:
            continue
    near = difflib.get_close_matches(PurePath(name).name, sorted(programs), n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else ""
