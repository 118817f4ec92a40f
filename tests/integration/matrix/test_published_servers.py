"""Servers that others publish, with the defaults: what the official SDK gets, many calls at once, scaled, killed, replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.calls import eventually
from support.orphans import no_orphans
from support.published_processes import PublishedProcess, prepare, stdio_config
from support.published_servers import (
    CELLS,
    DIRECTORY_VARIABLE,
    Published,
    PublishedCall,
    installed_sdk,
    installed_servers,
    published_servers,
)
from support.sdk_reference import Outcome, Reference, reference_of

from mcp_manager import CallError, McpManager, RpcError
from mcp_manager.results.record import Record

PATIENCE_S = 60.0
AT_ONCE = 50
UNDER_WAY = 20

# A busy machine starts three of them, one after the other.
pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Subject:
    """A server that can be deployed, and what the SDK gets from it."""

    server: Published
    config: dict[str, Any]
    directory: Path
    process: PublishedProcess | None

    @contextlib.contextmanager
    def alone(self) -> Iterator[Subject]:
        """Give the server to one test, which may end it."""
        if self.process is None:
            yield self
            return
        with self.process.another() as process:
            yield replace(self, config={**self.config, "url": process.url}, process=process)

    def descendants(self) -> set[psutil.Process]:
        """Return what runs below the server, if it is not the manager who starts it."""
        return self.process.descendants() if self.process is not None else set()

    def call(self, cell: str) -> PublishedCall:
        return self.server.call(cell, self.directory)

    def reference(self) -> Reference:
        return _reference(self.server.name, self.directory)

    async def outcome(self, manager: McpManager, cell: str) -> Outcome:
        """Make a call and return what it came to, as the SDK's is returned."""
        call = self.call(cell)
        try:
            result = await manager.call_tool("peer", call.tool, call.arguments, timeout=PATIENCE_S)
        except RpcError as refusal:
            return "error", refusal.code, refusal.message
        if cell == "good":
            assert call.text in result.text
        return "result", result.is_error, [block.to_dict() for block in result.content], result.structured_content

    async def expect(self, manager: McpManager, cell: str = "") -> None:
        """Make a call, the good one if there is, and hold its outcome against the SDK's."""
        cell = cell or ("good" if self.server.good else "bad")
        ours, theirs = await self.outcome(manager, cell), self.reference().outcomes[cell]
        if self.server.varies:
            ours, theirs = ours[:2], theirs[:2]
        assert _said(ours) == _said(theirs)


@cache
def _reference(name: str, directory: Path) -> Reference:
    subject = _SUBJECTS[name, directory]
    cells = ["bad", *(["good"] if subject.server.good else [])]
    return reference_of(subject.config, {cell: subject.call(cell) for cell in cells})


_SUBJECTS: dict[tuple[str, Path], Subject] = {}

Cell = Callable[[McpManager, Subject], Awaitable[None]]


async def lists(manager: McpManager, subject: Subject) -> None:
    """Every list that it declares, or the code that one is refused with; ``execution`` is in the revisions before 2026-07-28 alone."""
    reference = subject.reference()
    assert reference.lists
    for name, theirs in reference.lists.items():
        try:
            entries: list[Record] = await getattr(manager, f"list_{name}")("peer", timeout=PATIENCE_S)
        except RpcError as refusal:
            assert refusal.code == theirs
        else:
            ours = [entry.to_dict() for entry in entries]
            theirs = [] if isinstance(theirs, int) else theirs
            silent = ("execution", *(("description", "inputSchema") if subject.server.describes_anew else ()))
            assert [_said(each, silent) for each in ours] == [_said(each, silent) for each in theirs]


async def good(manager: McpManager, subject: Subject) -> None:
    await subject.expect(manager, "good")
    assert manager.server("peer").last_error is None


async def bad(manager: McpManager, subject: Subject) -> None:
    await subject.expect(manager, "bad")


async def fifty(manager: McpManager, subject: Subject) -> None:
    await asyncio.gather(*(subject.expect(manager) for _ in range(AT_ONCE)))


async def scale(manager: McpManager, subject: Subject) -> None:
    for wanted in (3, 1):
        await manager.scale("peer", wanted)
        await eventually(lambda n=wanted: _instances(manager, subject) == (n, n), f"{wanted} instances")
        await asyncio.gather(*(subject.expect(manager) for _ in range(10)))


async def kill(manager: McpManager, subject: Subject) -> None:
    """Its process dies under calls: each of them ends, and the server is back."""
    before = manager.server("peer").pids
    calls = [asyncio.create_task(subject.expect(manager)) for _ in range(UNDER_WAY)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    if subject.process is not None:
        await asyncio.to_thread(subject.process.restart)
    else:
        [pid] = before
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [each for each in outcomes if each is not None and not isinstance(each, CallError)] == []
    async with asyncio.timeout(PATIENCE_S):
        await until_answered(manager, subject)
    assert set(manager.server("peer").pids).isdisjoint(before)


async def redeploy(manager: McpManager, subject: Subject) -> None:
    """It is replaced under calls, all of which are answered."""
    before = manager.server("peer").pids
    calls = [asyncio.create_task(subject.expect(manager)) for _ in range(UNDER_WAY)]
    await manager.redeploy("peer", {**subject.config, "tags": ["new"]})
    await asyncio.gather(*calls)
    await subject.expect(manager)
    assert manager.server("peer").tags == ("new",)
    assert set(manager.server("peer").pids).isdisjoint(before)


RUNS: Mapping[str, Cell] = {
    "lists": lists,
    "good": good,
    "bad": bad,
    "fifty": fifty,
    "scale": scale,
    "kill": kill,
    "redeploy": redeploy,
}


async def until_answered(manager: McpManager, subject: Subject) -> None:
    """Call until that is answered: what finds out that a server is gone is refused itself, and for a while after that."""
    while True:
        with contextlib.suppress(CallError):
            return await subject.expect(manager)
        await manager.wait_ready()


def _instances(manager: McpManager, subject: Subject) -> tuple[int, int]:
    view = manager.server("peer")
    return view.ready, view.ready if subject.process is not None else len(view.pids)


def _said(told: Any, silent: Collection[str] = ()) -> Any:
    """Leave out members that say nothing, which one side drops and the other shows, and those that are not compared."""
    if isinstance(told, Mapping):
        left = {key: _said(each) for key, each in told.items() if key not in silent}
        return {key: each for key, each in left.items() if each not in (None, False, {})}
    return [_said(each) for each in told] if isinstance(told, list | tuple) else told


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """One server for all of its cells; over HTTP it runs meanwhile."""
    server = published_servers()[request.param]
    if problem := installed_servers()[server.name]:
        if server.core and DIRECTORY_VARIABLE in os.environ:
            pytest.fail(problem, pytrace=False)
        pytest.skip(problem)
    place = Path(os.environ[DIRECTORY_VARIABLE]).resolve()
    directory = tmp_path_factory.mktemp(server.name)
    prepare(directory)
    with contextlib.ExitStack() as stack:
        if server.transport == "stdio":
            config, process = stdio_config(server.command(place, directory)), None
        else:
            process = stack.enter_context(PublishedProcess(server, place, directory))
            config = {"url": process.url} | ({"transport": "sse"} if server.transport == "sse" else {})
        subject = _SUBJECTS[server.name, directory] = Subject(server, config, directory, process)
        yield subject


# Each server is started once only if it is a parameter by itself.
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("subject", installed_servers(), indirect=True)
async def test_a_published_server(subject: Subject, cell: str) -> None:
    if reason := subject.server.without.get(cell):
        pytest.skip(reason)
    before = subject.descendants()
    await asyncio.to_thread(subject.reference)
    with no_orphans(), subject.alone() if cell == "kill" else contextlib.nullcontext(subject) as chosen:
        async with McpManager() as manager:
            await manager.deploy("peer", chosen.config)
            await manager.wait_ready(timeout=PATIENCE_S)
            await RUNS[cell](manager, chosen)
    # A bridge ends in its own time what it started for a session.
    await eventually(lambda: subject.descendants() <= before, "the end of what the server had started")


def test_every_generation_and_every_transport_is_in_the_table() -> None:
    table = published_servers().values()
    assert len({server.package for server in table}) >= 30
    assert {server.transport for server in table} == {"stdio", "http", "sse"}
    told = {server.sdk for server in table}
    for generation in (
        "typescript 0.",
        "typescript 1.",
        "typescript 2.",
        "python 1.",
        "python 2.",
        "go",
        "rust",
        ".net",
    ):
        assert any(each.startswith(generation) for each in told), generation
    assert {each.split(".")[0] for each in told if each.startswith("fastmcp")} == {
        "fastmcp 2",
        "fastmcp 3",
        "fastmcp 4",
    }
    core = [server for server in table if server.core]
    assert len(core) >= 6
    assert {server.transport for server in core} == {"stdio", "http", "sse"}
    assert len({server.sdk.split()[0] for server in core}) >= 4


@pytest.mark.parametrize("name", installed_servers())
def test_it_has_the_sdk_that_the_table_says(name: str) -> None:
    if problem := installed_servers()[name]:
        pytest.skip(problem)
    server = published_servers()[name]
    version = installed_sdk(server, Path(os.environ[DIRECTORY_VARIABLE]).resolve())
    assert (
        version.startswith(server.sdk.partition(" ")[2])
        if version
        else server.sdk.split()[0] not in ("python", "fastmcp")
    )


def test_what_is_left_out_is_a_cell_and_has_a_reason() -> None:
    for server in published_servers().values():
        assert set(server.without) <= set(CELLS), server.name
        assert all(server.without.values()), server.name
        assert ("good" in server.without) == (server.good is None), server.name
