"""Measures the time until a file of 25 popular stdio servers is up, compared with the official SDK.

    python benchmarks/bench_start.py                        # installs them into build/servers first
    python benchmarks/bench_start.py --launchers            # with "npx -y" and "uvx", on caches that are empty at first
    python benchmarks/bench_start.py --rounds 5 --strict    # exit status 1 unless the target is met

Both sides start the same file in turn, each time from scratch: this package with its defaults, until every server is
Healthy; the SDK with all servers started at once, until each is initialized and has listed its tools.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from mcp_manager import McpManager, ServerState, load_manager_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.published_install import install
from support.published_processes import prepare, stdio_config
from support.published_servers import Command, Published, published_servers
from support.sdk_reference import sdk_session

ROOT = Path(__file__).resolve().parents[1]
TARGET = 1.3
LIMIT_S = 240.0
SAMPLING_S = 0.02
# Variables that a launcher may need to reach its registry, and that a child does not inherit by default.
REACHING = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
)
POPULAR = (
    "agent-filesystem calculations documentation eslint everything fast-filesystem filesystem git-with-hono hello-world knip "
    "memory memory-bank pdf playwright primeng sequential-thinking task-manager time "
    "calculator excel fetch git sqlite time-of-2026 word-with-fastmcp-3"
).split()


@dataclass
class Start:
    """A start of the file by one side.

    ``took_s`` is the time until all servers were up. ``failed`` says which were not up within the limit, and why.
    ``children`` is the largest number of children at a time, ``begun`` the total number.
    """

    took_s: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    children: int = 0
    begun: int = 0


class Children(threading.Thread):
    """Count this process's children: the most at a time, and all that there have been."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.seen: set[bytes] = set()
        self._ended = threading.Event()
        self._lists = [task / "children" for task in Path("/proc/self/task").iterdir()]

    def run(self) -> None:
        while not self._ended.wait(SAMPLING_S):
            living = {pid for path in self._lists if path.exists() for pid in path.read_bytes().split()}
            self.most = max(self.most, len(living))
            self.seen |= living

    def end(self) -> None:
        self._ended.set()
        self.join()


async def start_with_ours(path: Path) -> Start:
    """Start the file with this package."""
    began, done = time.perf_counter(), Start()
    async with McpManager(load_manager_config(path)) as manager:
        try:
            async with asyncio.timeout(LIMIT_S):
                await manager.wait_ready()
                # No event announces a state.
                while any(view.state is not ServerState.HEALTHY for view in manager.servers()):  # noqa: ASYNC110
                    await asyncio.sleep(SAMPLING_S)
        except TimeoutError:
            late = [view for view in manager.servers() if view.state is not ServerState.HEALTHY]
            done.failed = {view.id: f"{view.state}, {view.last_error}" for view in late}
        done.took_s = time.perf_counter() - began
    return done


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the servers of the file."""
    servers: dict[str, dict[str, Any]] = json.loads(path.read_bytes())["mcpServers"]
    return servers


async def start_with_sdk(path: Path) -> Start:
    """Start the file with the official SDK, all servers at once."""
    began, done = time.perf_counter(), Start()
    servers = read(path)
    left, all_up = set(servers), asyncio.Event()

    async def hold(name: str, config: Mapping[str, Any], errors: TextIO) -> None:
        try:
            async with sdk_session(config, errors) as session:
                async with asyncio.timeout(LIMIT_S):
                    await session.initialize()
                    await session.list_tools()
                left.discard(name)
                if not left:
                    done.took_s = time.perf_counter() - began
                    all_up.set()
                await all_up.wait()
        except Exception as error:
            done.failed[name] = repr(error)
            left.discard(name)
            if not left:
                done.took_s = time.perf_counter() - began
                all_up.set()

    with tempfile.TemporaryFile("w+") as errors:
        await asyncio.gather(*(hold(name, config, errors) for name, config in servers.items()))
    return done


SIDES: Mapping[str, Callable[[Path], Coroutine[Any, Any, Start]]] = {"ours": start_with_ours, "SDK": start_with_sdk}


def measured(side: str, path: Path) -> Start:
    """Run one side once, and count its children."""
    children = Children()
    children.start()
    try:
        done = asyncio.run(SIDES[side](path))
    finally:
        children.end()
    done.children, done.begun = children.most, len(children.seen)
    return done


def launched(server: Published, command: Command, caches: Path, tools: Path) -> dict[str, Any]:
    """Return the configuration of a server that its launcher fetches when it is started."""
    name, version = server.pin
    arguments = list(command.argv[2 if server.registry == "npm" else 1 :])
    config = stdio_config(command)
    reaching = {name: os.environ[name] for name in REACHING if name in os.environ}
    environment = {**config["env"], **reaching, "PATH": f"{tools}:{os.environ['PATH']}"}
    if server.registry == "npm":
        argv = ["npx", "-y", f"{name}@{version}", *arguments]
        environment["npm_config_cache"] = str(caches / "npm")
    else:
        with_pins = [part for pin in server.pins for part in ("--with", pin)]
        argv = ["uvx", "--quiet", *with_pins, "--from", f"{name}=={version}", server.program or name, *arguments]
        environment["UV_CACHE_DIR"] = str(caches / "uv")
    return {**config, "command": argv[0], "args": argv[1:], "env": environment}


def written(options: argparse.Namespace, directory: Path, caches: Path) -> Path:
    """Write the file that both sides start, with a directory for each server."""
    servers = {}
    for name in options.names:
        own = directory / name
        own.mkdir()
        prepare(own)
        server = published_servers()[name]
        command = server.command(options.servers, own)
        tools = options.servers / "uv" / "bin"
        servers[name] = launched(server, command, caches, tools) if options.launchers else stdio_config(command)
        if options.connect_timeout:
            servers[name]["connect_timeout_s"] = options.connect_timeout
    path = directory / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    return path


def report(starts: Mapping[str, list[Start]]) -> float:
    """Print what each side took, and return the ratio of our time to the SDK's."""
    print(f"{'':6}{'median s':>10}{'best s':>9}{'worst s':>9}{'children':>10}{'begun':>8}  not up")
    for side, done in starts.items():
        took = [each.took_s for each in done]
        most, begun = max(each.children for each in done), max(each.begun for each in done)
        failed = sum(len(each.failed) for each in done)
        print(
            f"{side:6}{statistics.median(took):10.1f}{min(took):9.1f}{max(took):9.1f}{most:10}{begun:8}  {failed or 'none'}"
        )
    for side, done in starts.items():
        for number, each in enumerate(done, 1):
            for name, reason in each.failed.items():
                print(f"{side}, round {number}: {name}: {reason[:200]}")
    ratio = statistics.median(each.took_s for each in starts["ours"]) / statistics.median(
        each.took_s for each in starts["SDK"]
    )
    print(f"ours takes {ratio:.2f} times as long as the SDK (target: at most {TARGET})")
    return ratio


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--servers", type=Path, default=ROOT / "build" / "servers", help="folder of the installed servers"
    )
    parser.add_argument("--names", nargs="+", default=POPULAR, help="names from tests/support/published_servers.toml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="how many cores everything runs on")
    parser.add_argument("--connect-timeout", type=float, help="connect_timeout_s of every server, else its default")
    parser.add_argument("--launchers", action="store_true", help='start the servers with "npx -y" and "uvx"')
    parser.add_argument("--strict", action="store_true", help="exit status 1 unless all are up within the target")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure both sides in turn, and print what each took."""
    options = parsed(arguments)
    # The SDK logs every line of a server that is not a message.
    logging.disable(logging.CRITICAL)
    options.servers = options.servers.resolve()
    found = install(options.servers, options.names)
    if problems := {name: problem for name, problem in found.items() if problem}:
        print(f"not measured: {problems}", file=sys.stderr)
        options.names = [name for name in options.names if name not in problems]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    starts: dict[str, list[Start]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as kept:
        caches = {side: Path(kept) / side for side in SIDES}
        for number in range(options.rounds):
            for side in list(SIDES)[:: 1 if number % 2 == 0 else -1]:
                with tempfile.TemporaryDirectory() as directory:
                    done = measured(side, written(options, Path(directory), caches[side]))
                starts[side].append(done)
                print(f"round {number + 1}, {side}: {done.took_s:.1f} s, not up: {len(done.failed)}", flush=True)
    print(f"\n{len(options.names)} servers on {options.cores} cores, {options.rounds} rounds of each in turn")
    ratio = report(starts)
    met = ratio <= TARGET and not any(each.failed for each in starts["ours"])
    return int(options.strict and not met)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
