"""The catalogue of all tools of the fleet: their unique names, and a cache of each server's list."""

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
# The function-calling interfaces of language models accept names that match ^[a-zA-Z0-9_-]{1,64}$.
_LONGEST_NAME: Final = 64
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")
_HASH_DIGITS: Final = 8
_HASHED: Final = re.compile(r"_[0-9a-f]{8,}$")
_MAX_AGE_NS: Final = 300 * 10**9
_CONCURRENCY: Final = 64
_FEW: Final = 5_000
# Event loops limit the length of a delay; this is shorter, and longer than anybody waits.
_LONGEST_WAIT_S: Final = 1e6
_METHOD_NOT_FOUND: Final = -32601

Stamp = tuple[object, ...]
"""What a list of tools was read from; if the stamp of a server changes, its list may have changed.

The first member identifies the deployment: it changes only when the server is replaced or removed.
"""


class FleetTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool under its name in the fleet.

    Parameters
    ----------
    name
        The unique name in the fleet, for :meth:`call_fleet_tool`: 1 to 64 characters of ``A-Z a-z 0-9 _ -``.
    server_id
        The id of the server that has the tool.
    tool
        The tool as its server lists it, with the server's own name.
    """

    name: str
    server_id: str
    tool: Tool


class ToolCatalog(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of several servers.

    Parameters
    ----------
    tools
        The tools, sorted by their names in the fleet.
    missing
        Why a server's tools could not be listed, by server id.
    """

    tools: tuple[FleetTool, ...]
    missing: dict[str, str]


class _Listing:
    """The cached tools of one server.

    ``next_at`` is the loop time before which a change notification does not cause another listing.
    """

    __slots__ = ("fetched_ns", "next_at", "stamp", "tools")

    def __init__(self, tools: list[Tool], stamp: Stamp, fetched_ns: int, next_at: float) -> None:
        self.tools = tools
        self.stamp = stamp
        self.fetched_ns = fetched_ns
        self.next_at = next_at


class _Fetching:
    """A listing in progress.

    ``is_current`` becomes false when the list changes while it is read. ``began`` is the loop time at which the server
    was asked, 0 before that.
    """

    __slots__ = ("began", "deployment", "is_current", "task")

    def __init__(self, deployment: Stamp) -> None:
        self.deployment = deployment
        self.task: asyncio.Task[list[Tool]]
        self.is_current = True
        self.began = 0.0


class ToolCache:
    """Cache the tools of servers; one task fetches a list for all who ask for it.

    A list is used until its server's stamp changes, :meth:`drop` is called, or five minutes have passed, because a
    change notification over HTTP can get lost. A list that changes often is fetched again only after a pause as long as
    the last fetch took.

    Parameters
    ----------
    fetch
        ``await fetch(server_id, timeout)`` lists a server's tools.
    stamp
        ``stamp(server_id)`` returns the present :data:`Stamp` of a server, ``()`` if it was removed.
    clock
        Returns monotonic nanoseconds.
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
        # Increases whenever a cached list may have become outdated.
        self.version = 0

    async def holders(self, tool: str, server_ids: Collection[str], timeout: float) -> tuple[list[str], bool]:
        """Return the servers that list a tool, and whether all of them could be listed.

        Parameters
        ----------
        tool
            The name of the tool.
        server_ids
            The servers to consider.
        timeout
            Seconds for each server.
        """
        listings = await asyncio.gather(*(self._tools_or_reason(each, timeout) for each in server_ids))
        holders: list[str] = []
        for server_id, listing in zip(server_ids, listings, strict=True):
            if not isinstance(listing, str) and any(each.name == tool for each in listing):
                holders.append(server_id)
        return holders, not any(isinstance(listing, str) for listing in listings)

    async def catalog(self, server_ids: Collection[str], timeout: float | None) -> ToolCatalog:
        """Return the tools of these servers; ``timeout`` is in seconds for each server."""
        listings = await asyncio.gather(*(self._tools_or_reason(each, timeout) for each in server_ids))
        by_server = dict(zip(server_ids, listings, strict=True))
        # Naming takes microseconds of Python code for each tool; many tools are named in a thread.
        if sum(len(listing) for listing in listings if not isinstance(listing, str)) <= _FEW:
            catalog = _catalog_of(by_server)
        else:
            catalog = await asyncio.to_thread(_catalog_of, by_server)
        self._routes.update((each.name, (each.server_id, each.tool.name)) for each in catalog.tools)
        return catalog

    async def route(self, name: str, server_ids: Collection[str], timeout: float | None) -> tuple[str, str]:
        """Return the server id and the tool of a name in the fleet, from an earlier catalogue or from a new one.

        Parameters
        ----------
        name
            The name in the fleet.
        server_ids
            All deployed servers.
        timeout
            Seconds for each server, if a new catalogue is needed.

        Raises
        ------
        ToolNotFoundError
            No server that could be listed has a tool of this name.
        """
        route = self._routes.get(name)
        if route is None or route[0] not in server_ids:
            self._routes.clear()
            catalog = await self.catalog(server_ids, timeout)
            route = self._routes.get(name)
            if route is None:
                import difflib  # noqa: PLC0415 - not needed to import the package

                near = await asyncio.to_thread(difflib.get_close_matches, name, list(self._routes), n=1)
                raise ToolNotFoundError(name, nearest=near[0] if near else None, missing=sorted(catalog.missing))
        return route

    def drop(self, server_id: str) -> None:
        """Drop the list of a server; a list that is being read is not cached either."""
        self.version += 1
        listing = self._listings.pop(server_id, None)
        if listing is not None:
            self._not_before[server_id] = listing.next_at
        fetching = self._fetching.get(server_id)
        if fetching is not None and fetching.began:
            fetching.is_current = False

    def forget(self, server_id: str) -> None:
        """Forget the list of a server that was removed, and the names of its tools."""
        self.drop(server_id)
        self._not_before.pop(server_id, None)
        fetching = self._fetching.pop(server_id, None)
        if fetching is not None:
            fetching.is_current = False
        self._routes = {name: pair for name, pair in self._routes.items() if pair[0] != server_id}

    def began(self, server_id: str, kind: str) -> None:
        """Drop the list of a server when change notifications of ``kind`` start: earlier changes went unnoticed."""
        if kind == TOOLS_CHANGED:
            self.drop(server_id)

    async def aclose(self) -> None:
        """Cancel all fetches."""
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
            # The list has changed since this fetch began: wait for its end, then fetch again.
            is_old = not fetching.is_current
            # Not awaited directly: a caller that gives up would cancel the fetch for the others.
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
            # The timeout was that of the caller who started the fetch: try again.

    def _start(self, server_id: str, timeout: float | None) -> _Fetching:
        before = self._fetching.pop(server_id, None)
        if before is not None:
            # A fetch from an earlier deployment, whose pause does not apply to this one.
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
        # The rest of the stamp may change while a list is read, but the list of another deployment is not cached.
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
    """List and call the tools of all servers by names that are unique in the fleet."""

    _tools: ToolCache

    @abstractmethod
    def _deployed(self, server_ids: Collection[str] | None) -> list[str]:
        """Return these ids, or for ``None`` those of all deployed servers.

        Raises
        ------
        ServerNotFoundError
            A server is not deployed.
        InvalidRequestError
            It is not a collection.
        NotRunningError
            The manager does not run, or runs on another event loop.
        """

    async def list_all_tools(
        self, server_ids: Collection[str] | None = None, *, timeout: float | None = None
    ) -> ToolCatalog:
        """Return the tools of several servers, each with a name that is unique in the fleet.

        A server's list is cached until the server notifies a change, its session or configuration is replaced, the time
        passes for which the server said it is valid (2026-07-28), or five minutes have passed.

        Parameters
        ----------
        server_ids
            The servers to list; default: all. The result names those that cannot be listed in ``missing``.
        timeout
            Seconds for each server; default: its ``request_timeout_s``.

        Raises
        ------
        ServerNotFoundError
            A server in ``server_ids`` is not deployed.
        InvalidRequestError
            ``server_ids`` is not a collection, or ``timeout`` is invalid.
        NotRunningError
            The manager does not run, or runs on another event loop.
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
        """Call a tool by its name in the fleet and return its result.

        Parameters
        ----------
        name
            The name in the fleet, as :meth:`list_all_tools` returns it.
        timeout
            Seconds for everything together, including new lists if the name is not known yet. Default: the
            ``request_timeout_s`` of each server for its list, and that of the tool's server for the call.
        arguments, key, on_progress
            See :meth:`call_tool`, whose errors it raises.

        Raises
        ------
        ToolNotFoundError
            No deployed server that can be listed has a tool of this name.
        """
        end = end_of(timeout)
        server_id, tool = await self._tools.route(as_text(name, "name"), self._deployed(None), check_timeout(timeout))
        left = None if end is None else max(0.0, end - time.monotonic())
        return await self.call_tool(server_id, tool, arguments, timeout=left, key=key, on_progress=on_progress)


def _catalog_of(listings: Mapping[str, list[Tool] | str]) -> ToolCatalog:
    """Make a catalogue from the lists of servers, or the reasons why they are missing, by server id."""
    missing: dict[str, str] = {}
    found: dict[tuple[str, str], Tool] = {}
    for server_id, listing in listings.items():
        if isinstance(listing, str):
            missing[server_id] = listing
            continue
        for tool in listing:
            # If a server lists a name twice, the first entry counts.
            found.setdefault((server_id, tool.name), tool)
    tools = [
        FleetTool(name=name, server_id=pair[0], tool=found[pair])
        for pair, name in sorted(fleet_names(found).items(), key=lambda item: item[1])
    ]
    return ToolCatalog(tools=tuple(tools), missing=missing)


def fleet_names(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Give every tool of a fleet a unique name of at most 64 characters of ``A-Z a-z 0-9 _ -``.

    The name is ``{server}__{tool}`` if that is valid and unambiguous. Otherwise it ends in a hash of the pair: if it
    contains another character or is too long, if the server id contains two underscores in a row or ends in one, or if
    the name itself ends like a hash. A name depends on other pairs only if two 32-bit hashes collide, so no server can
    take the name of another server's tool by the choice of its own names.

    Parameters
    ----------
    pairs
        The server id and tool name of each tool, every pair once, in any order.

    Returns
    -------
    The name of each pair.
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
    import hashlib  # noqa: PLC0415 - not needed to import the package

    pair = f"{len(server_id)}:{server_id}{tool}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(pair).hexdigest()[:digits]
    readable = _FOREIGN.sub("_", f"{server_id}{_SEPARATOR}{tool}")[: _LONGEST_NAME - 1 - digits]
    return f"{readable}_{digest}"


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
