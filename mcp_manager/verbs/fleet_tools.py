"""The tools of many servers under one roof: a name for each that no other has, fetched once and kept while they hold."""

from __future__ import annotations

import asyncio
import re
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, Final

import msgspec

from mcp_manager.config.arguments import as_text, check_timeout, end_of
from mcp_manager.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    McpManagerError,
    RpcError,
    ToolNotFoundError,
)
from mcp_manager.protocol.methods import TOOLS_CHANGED
from mcp_manager.results import CallToolResult, Tool
from mcp_manager.runtime.background import background_task
from mcp_manager.session import ProgressCallback
from mcp_manager.verbs.calls import Verbs

__all__ = ["FleetTool", "FleetTools", "ToolCache", "ToolCatalog", "fleet_names"]

_SEPARATOR: Final = "__"
# What the function-calling interfaces of language models take: ^[a-zA-Z0-9_-]{1,64}$.
_LONGEST_NAME: Final = 64
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH_DIGITS: Final = 8
_HASHED: Final = re.compile(r"_[0-9a-f]{8,}$")
_MAX_AGE_NS: Final = 300 * 10**9
_CONCURRENCY: Final = 64
_FEW: Final = 5_000
# Event loops have a longest delay; nobody waits for so long.
_LONGEST_WAIT_S: Final = 1e6
_METHOD_NOT_FOUND: Final = -32601

Stamp = tuple[object, ...]
"""What a list of tools was read from; another stamp means that it may not hold any more.

Its first member is the server's deployment, which does not change as long as nobody replaces or removes the server.
"""


class FleetTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of one of the servers, under its name in the fleet."""

    name: str
    server_id: str
    tool: Tool


class ToolCatalog(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a fleet, sorted by name, and why those of some servers are missing, by server id."""

    tools: tuple[FleetTool, ...]
    missing: dict[str, str]


class _Listing:
    """The tools of one server as they were at one time.

    ``next_at`` is the loop time before which they are not listed again because the server says that they have changed.
    """

    __slots__ = ("fetched_ns", "next_at", "stamp", "tools")

    def __init__(self, tools: list[Tool], stamp: Stamp, fetched_ns: int, next_at: float) -> None:
        self.tools = tools
        self.stamp = stamp
        self.fetched_ns = fetched_ns
        self.next_at = next_at


class _Fetching:
    """One listing under way. ``is_current`` ends when what it will bring may be old already.

    ``began`` is the loop time at which the server was asked, 0 before that.
    """

    __slots__ = ("began", "deployment", "is_current", "task")

    def __init__(self, deployment: Stamp) -> None:
        self.deployment = deployment
        self.task: asyncio.Task[list[Tool]]
        self.is_current = True
        self.began = 0.0


class ToolCache:
    """Keep what servers list, each fetched by one task however many ask for it.

    Parameters
    ----------
    fetch
        ``await fetch(server_id, timeout)`` lists a server's tools.
    stamp
        Tells what a server's list would be read from now. A list is kept while its server's stamp stays the same and
        :meth:`drop` is not called, at most five minutes: over HTTP, the news of a change may find no way here.
        However often a list changes, its server is asked once at a time, and after a change not before as long has
        passed as the last listing took.
    clock
        Monotonic nanoseconds.
    """

    def __init__(
        self,
        fetch: Callable[[str, float | None], Awaitable[list[Tool]]],
        stamp: Callable[[str], Stamp],
        clock: Callable[[], int],
    ) -> None:
        self._fetch = fetch
        self._stamp = stamp
        self._clock = clock
        self._listings: dict[str, _Listing] = {}
        self._fetching: dict[str, _Fetching] = {}
        # The loop time before which a server whose list has changed is not asked again.
        self._not_before: dict[str, float] = {}
        self._tasks: set[asyncio.Task[list[Tool]]] = set()
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._routes: dict[str, tuple[str, str]] = {}
        # Rises when a list that was kept may not hold any more.
        self.version = 0

    async def holders(self, tool: str, server_ids: Collection[str], timeout: float) -> tuple[list[str], bool]:
        """Return which of these servers list a tool, and whether all could be asked; ``timeout`` is for each."""
        listings = await asyncio.gather(*(self._tools_or_reason(each, timeout) for each in server_ids))
        holders: list[str] = []
        for server_id, listing in zip(server_ids, listings, strict=True):
            if not isinstance(listing, str) and any(each.name == tool for each in listing):
                holders.append(server_id)
        return holders, not any(isinstance(listing, str) for listing in listings)

    async def catalog(self, server_ids: Collection[str], timeout: float | None) -> ToolCatalog:
        """List the tools of these servers, those that can be had; ``timeout`` in seconds is for each server."""
        listings = await asyncio.gather(*(self._tools_or_reason(each, timeout) for each in server_ids))
        by_server = dict(zip(server_ids, listings, strict=True))
        # Names are given in Python, some microseconds each.
        if sum(len(listing) for listing in listings if not isinstance(listing, str)) <= _FEW:
            catalog = _catalog_of(by_server)
        else:
            catalog = await asyncio.to_thread(_catalog_of, by_server)
        self._routes.update((each.name, (each.server_id, each.tool.name)) for each in catalog.tools)
        return catalog

    async def route(self, name: str, server_ids: Collection[str], timeout: float | None) -> tuple[str, str]:
        """Return the server and the tool behind a name, from the last catalogue that had it, or from a new one.

        Raises
        ------
        ToolNotFoundError
            No server has a tool of that name.
        """
        route = self._routes.get(name)
        if route is None or route[0] not in server_ids:
            self._routes.clear()
            catalog = await self.catalog(server_ids, timeout)
            route = self._routes.get(name)
            if route is None:
                import difflib  # noqa: PLC0415 - an import of the package does without

                near = await asyncio.to_thread(difflib.get_close_matches, name, list(self._routes), n=1)
                raise ToolNotFoundError(name, nearest=near[0] if near else None, missing=sorted(catalog.missing))
        return route

    def drop(self, server_id: str) -> None:
        """Forget what a server listed, and keep nothing of what it is listing."""
        self.version += 1
        listing = self._listings.pop(server_id, None)
        if listing is not None:
            self._not_before[server_id] = listing.next_at
        fetching = self._fetching.get(server_id)
        if fetching is not None and fetching.began:
            fetching.is_current = False

    def forget(self, server_id: str) -> None:
        """Forget a server that is gone, with the names of its tools."""
        self.drop(server_id)
        self._not_before.pop(server_id, None)
        fetching = self._fetching.pop(server_id, None)
        if fetching is not None:
            fetching.is_current = False
        self._routes = {name: pair for name, pair in self._routes.items() if pair[0] != server_id}

    def began(self, server_id: str, kind: str) -> None:
        """Learn that changes of a kind are told from now on: what was listed before may have changed unnoticed."""
        if kind == TOOLS_CHANGED:
            self.drop(server_id)

    async def aclose(self) -> None:
        """End what is being fetched."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tools_or_reason(self, server_id: str, timeout: float | None) -> list[Tool] | str:
        try:
            return await self._tools(server_id, timeout)
        except RpcError as error:
            return [] if error.code == _METHOD_NOT_FOUND else str(error)
        except McpManagerError as error:
            return str(error)

    async def _tools(self, server_id: str, timeout: float | None) -> list[Tool]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            listing = self._listings.get(server_id)
            if (
                listing is not None
                and listing.stamp == self._stamp(server_id)
                and self._clock() - listing.fetched_ns < _MAX_AGE_NS
            ):
                return listing.tools
            left = None if end is None else max(0.0, end - time.monotonic())
            fetching = self._fetching.get(server_id)
            is_own = fetching is None or fetching.deployment != self._stamp(server_id)[:1]
            if fetching is None or is_own:
                fetching = self._start(server_id, left)
            # It may have read what has changed since; the next one begins when it has ended.
            is_old = not fetching.is_current
            # A caller that gives up must not take the list from the others.
            done, _ = await asyncio.wait({fetching.task}, timeout=None if left is None else min(left, _LONGEST_WAIT_S))
            if not done:
                raise DeadlineExceededError("the tools were not listed within the timeout", server_id=server_id)
            if fetching.task.cancelled():
                raise ConnectionLostError("the manager was stopped during the listing", server_id=server_id)
            if is_old:
                continue
            error = fetching.task.exception()
            if error is None:
                return fetching.task.result()
            if is_own or not isinstance(error, DeadlineExceededError):
                try:
                    raise error
                finally:
                    # Its traceback holds this frame.
                    del error
            # It was another caller's time that was up.

    def _start(self, server_id: str, timeout: float | None) -> _Fetching:
        before = self._fetching.pop(server_id, None)
        if before is not None:
            # Of another deployment, which has nothing to do with this one's pace.
            before.is_current = False
            self._not_before.pop(server_id, None)
        fetching = self._fetching[server_id] = _Fetching(self._stamp(server_id)[:1])
        task = fetching.task = background_task(self._refresh(server_id, timeout, fetching), "list tools")
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._fetched(server_id, fetching))
        return fetching

    async def _refresh(self, server_id: str, timeout: float | None, fetching: _Fetching) -> list[Tool]:
        loop = asyncio.get_running_loop()
        pause_s = self._not_before.get(server_id, 0.0) - loop.time()
        if pause_s > 0:
            if timeout is not None:
                timeout = max(0.0, timeout - pause_s)
            await asyncio.sleep(pause_s)
        async with self._slots:
            self._not_before.pop(server_id, None)
            fetching.began = loop.time()
            return await self._fetch(server_id, timeout)

    def _fetched(self, server_id: str, fetching: _Fetching) -> None:
        task = fetching.task
        self._tasks.discard(task)
        if self._fetching.get(server_id) is fetching:
            del self._fetching[server_id]
        if task.cancelled() or task.exception() is not None:
            return
        # Sessions come and caches fill while a list is read; a server that was replaced meanwhile has another list.
        stamp = self._stamp(server_id)
        if not stamp or stamp[:1] != fetching.deployment:
            return
        now = asyncio.get_running_loop().time()
        next_at = 2 * now - fetching.began
        if fetching.is_current:
            self._listings[server_id] = _Listing(task.result(), stamp, self._clock(), next_at)
        else:
            self._not_before[server_id] = next_at


class FleetTools(Verbs):
    """The verbs of a fleet as a whole: one catalogue of all its tools."""

    _tools: ToolCache

    @abstractmethod
    def _deployed(self, server_ids: Collection[str] | None) -> list[str]:
        """Return the ids of deployed servers, all for ``None``; raises :class:`ServerNotFoundError`."""

    async def list_all_tools(
        self, server_ids: Collection[str] | None = None, *, timeout: float | None = None
    ) -> ToolCatalog:
        """List the tools of several servers, all of them by default, each under a name of its own in the fleet.

        Parameters
        ----------
        server_ids
            Which servers; those out of reach are named in ``missing`` with the reason.
        timeout
            Seconds for each server; default: its ``request_timeout_s``.

        What a server lists is kept until it says that it has changed, its session or configuration is replaced, or five
        minutes have passed; one that said how long its list holds (2026-07-28) is asked again after that.

        Raises
        ------
        ServerNotFoundError
            ``server_ids`` names a server that is not deployed.
        """
        return await self._tools.catalog(self._deployed(server_ids), check_timeout(timeout))

    async def call_fleet_tool(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> CallToolResult:
        """Call a tool by its name in the fleet, as :meth:`list_all_tools` gives it; otherwise as :meth:`call_tool`.

        Raises
        ------
        ToolNotFoundError
            No deployed server that can be reached has such a tool.
        """
        end = end_of(timeout)
        server_id, tool = await self._tools.route(as_text(name, "name"), self._deployed(None), check_timeout(timeout))
        left = None if end is None else max(0.0, end - time.monotonic())
        return await self.call_tool(server_id, tool, arguments, timeout=left, key=key, on_progress=on_progress)


def _catalog_of(listings: Mapping[str, list[Tool] | str]) -> ToolCatalog:
    """Put together what servers list, or why they do not, by their ids."""
    missing: dict[str, str] = {}
    found: dict[tuple[str, str], Tool] = {}
    for server_id, listing in listings.items():
        if isinstance(listing, str):
            missing[server_id] = listing
            continue
        for tool in listing:
            # A server that lists a name twice means the first, as far as anybody knows.
            found.setdefault((server_id, tool.name), tool)
    tools = [
        FleetTool(name=name, server_id=pair[0], tool=found[pair])
        for pair, name in sorted(fleet_names(found).items(), key=lambda item: item[1])
    ]
    return ToolCatalog(tools=tuple(tools), missing=missing)


def fleet_names(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Name the tools of a fleet.

    Parameters
    ----------
    pairs
        Server id and tool name of each, every pair once, in any order.

    Returns
    -------
    A name for every pair, at most 64 characters of ``A-Z a-z 0-9 _ -``, that no other pair has: ``{server}__{tool}``
    where that says which is which. Where it does not (a character outside that set, too long, a server id with two
    underscores in a row or one at its end, or what looks like such a hash at the end) a hash of the pair ends the name.
    So a name depends on its own pair, and on other pairs only if two hashes of 32 bits are the same: no server can name
    a tool so that it takes the name of another server's.
    """
    names: dict[tuple[str, str], str] = {}
    doubtful: list[tuple[str, str]] = []
    for pair in pairs:
        plain = _plain_name(*pair)
        if plain is None:
            doubtful.append(pair)
        else:
            names[pair] = plain
    taken = set(names.values())
    digits = _HASH_DIGITS
    while doubtful:
        hashed = {pair: _hashed_name(*pair, digits) for pair in doubtful}
        counts: Mapping[str, int] = _count(hashed.values())
        doubtful = [pair for pair in doubtful if counts[hashed[pair]] > 1 or hashed[pair] in taken]
        named = {pair: name for pair, name in hashed.items() if pair not in doubtful}
        names.update(named)
        taken.update(named.values())
        digits += 2
    return names


def _plain_name(server_id: str, tool: str) -> str | None:
    name = f"{server_id}{_SEPARATOR}{tool}"
    ambiguous = _SEPARATOR in server_id or server_id.endswith("_") or _HASHED.search(name) is not None
    return None if ambiguous or not tool or len(name) > _LONGEST_NAME or _FOREIGN.search(name) else name


def _hashed_name(server_id: str, tool: str, digits: int) -> str:
    import hashlib  # noqa: PLC0415 - an import of the package does without

    pair = f"{len(server_id)}:{server_id}{tool}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(pair).hexdigest()[:digits]
    readable = _FOREIGN.sub("_", f"{server_id}{_SEPARATOR}{tool}")[: _LONGEST_NAME - 1 - digits]
    return f"{readable}_{digest}"


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
