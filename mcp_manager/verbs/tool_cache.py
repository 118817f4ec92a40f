"""A cache of the tools of all servers; a server that does not answer keeps nobody from the tools of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from mcp_manager.errors import McpManagerError, RpcError, ToolNotFoundError
from mcp_manager.protocol.methods import TOOLS_CHANGED
from mcp_manager.results import Tool
from mcp_manager.runtime.background import background_task
from mcp_manager.verbs.tool_catalog import ToolCatalog, catalog_of, possible_owners

__all__ = ["Stamp", "ToolCache"]

_MAX_AGE_NS: Final = 300 * 10**9
_CONCURRENCY: Final = 64
# A listing that takes longer no longer counts against the limit, so that servers that hang do not use it up.
_COUNTED_S: Final = 1.0
# A failed listing that took longer is not repeated at once.
_SLOW_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
# How long a search for servers with a tool waits for all servers if some are found sooner.
_GLANCE_S: Final = 1.0
_FEW: Final = 5_000
# Comparing a name with more names takes more than a few milliseconds, so it is done in a thread.
_COMPARED: Final = 200
_MOST_ROUTES: Final = 1_000_000
# Event loops limit the length of a delay; this is shorter, and longer than anybody waits.
_LONGEST_WAIT_S: Final = 1e6
_METHOD_NOT_FOUND: Final = -32601

Stamp = tuple[object, ...]
"""What a list of tools was read from; if the stamp of a server changes, its list may have changed.

The first member identifies the deployment: it changes only when the server is replaced or removed.
"""


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

    ``is_current`` becomes false when the list changes while it is read. ``asked`` is the loop time at which the first
    caller asked for it, ``began`` that at which the server was asked, 0 before that.
    """

    __slots__ = ("asked", "began", "deployment", "is_current", "task")

    def __init__(self, deployment: Stamp, asked: float) -> None:
        self.deployment = deployment
        self.task: asyncio.Task[list[Tool]]
        self.is_current = True
        self.asked = asked
        self.began = 0.0


class _Failure:
    """A listing that failed after a long time: the reason, and the loop time before which it is not repeated."""

    __slots__ = ("reason", "stamp", "until")

    def __init__(self, reason: str, stamp: Stamp, until: float) -> None:
        self.reason = reason
        self.stamp = stamp
        self.until = until


class ToolCache:
    """Cache the tools of servers; one task fetches a list for all who ask for it.

    A list is used until its server's stamp changes, :meth:`drop` is called, or five minutes have passed, because a
    change notification over HTTP can get lost. A list that changes often is fetched again only after a pause as long as
    the last fetch took.

    Nobody waits long for a server that does not answer: the time that others have waited for the same listing counts.
    A listing goes on after those who asked for it have left. If it fails after more than a second, the server is asked
    again only after a pause as long as that took, at most a minute, or when its stamp changes.

    Parameters
    ----------
    fetch
        ``await fetch(server_id, timeout)`` lists a server's tools, for as long as the server's settings allow, or for
        ``timeout`` seconds if that is longer.
    stamp
        ``stamp(server_id)`` returns the present :data:`Stamp` of a server, ``()`` if it was removed.
    clock
        Returns monotonic nanoseconds.
    patience_s
        Seconds that :meth:`catalog` waits for a server if its caller gives no timeout.
    """

    def __init__(
        self,
        fetch: Callable[[str, float | None], Awaitable[list[Tool]]],
        stamp: Callable[[str], Stamp],
        clock: Callable[[], int],
        patience_s: float = 5.0,
    ) -> None:
        self._fetch = fetch
        self._stamp = stamp
        self._clock = clock
        self._patience_s = patience_s
        self._listings: dict[str, _Listing] = {}
        self._fetching: dict[str, _Fetching] = {}
        self._failures: dict[str, _Failure] = {}
        # The loop time before which a server whose list has changed is not asked again.
        self._not_before: dict[str, float] = {}
        self._tasks: set[asyncio.Task[list[Tool]]] = set()
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._routes: dict[str, tuple[str, str]] = {}
        # Increases whenever a cached list may have become outdated.
        self.version: int = 0

    async def holders(self, tool: str, server_ids: Collection[str], timeout: float) -> tuple[list[str], bool]:
        """Return the servers that list a tool, and whether all of them could be listed.

        Parameters
        ----------
        tool
            The name of the tool.
        server_ids
            The servers to consider.
        timeout
            Seconds for each server; after the first second, those that were found are enough.
        """
        listings: list[list[Tool] | str] = []
        for patience_s in (min(_GLANCE_S, timeout), timeout):
            listings = await asyncio.gather(*(self._tools_or_reason(each, patience_s) for each in server_ids))
            found: list[str] = []
            for server_id, listing in zip(server_ids, listings, strict=True):
                if not isinstance(listing, str) and any(each.name == tool for each in listing):
                    found.append(server_id)
            if found:
                break
        return found, not any(isinstance(listing, str) for listing in listings)

    async def catalog(self, server_ids: Collection[str], timeout: float | None) -> ToolCatalog:
        """Return the tools of these servers.

        Parameters
        ----------
        server_ids
            The servers to list.
        timeout
            Seconds for each server, counted from the beginning of its listing; ``None`` for the default.
        """
        return await self._catalog(server_ids, self._patience_s if timeout is None else timeout)

    async def route(
        self, name: str, server_ids: Callable[[], Collection[str]], timeout: float | None
    ) -> tuple[str, str]:
        """Return the server id and the tool of a name in the fleet, from an earlier catalogue or from a new one.

        Only servers whose tools may have such a name are listed.

        Parameters
        ----------
        name
            The name in the fleet.
        server_ids
            Returns all deployed servers.
        timeout
            Seconds for each server that has to be listed, ``None`` for as long as its listing takes.

        Raises
        ------
        ToolNotFoundError
            No server that could be listed has a tool of this name.
        """
        route = self._routes.get(name)
        if route is None or not self._stamp(route[0]):
            owners = possible_owners(name, server_ids())
            catalog = await self._catalog(owners, timeout)
            route = next(((each.server_id, each.tool.name) for each in catalog.tools if each.name == name), None)
            if route is None:
                # Another server's tool is never suggested: it may do something else altogether.
                names = [each.name for each in catalog.tools] if len(owners) == 1 else []
                near = (
                    _nearest(name, names) if len(names) <= _COMPARED else await asyncio.to_thread(_nearest, name, names)
                )
                raise ToolNotFoundError(name, nearest=near, missing=catalog.missing)
        return route

    def drop(self, server_id: str) -> None:
        """Drop the list of a server; a list that is being read is not cached either."""
        self.version += 1
        self._failures.pop(server_id, None)
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

    async def _catalog(self, server_ids: Collection[str], timeout: float | None) -> ToolCatalog:
        listings = await asyncio.gather(*(self._tools_or_reason(each, timeout) for each in server_ids))
        by_server = dict(zip(server_ids, listings, strict=True))
        # Naming takes microseconds of Python code for each tool; many tools are named in a thread.
        if sum(len(listing) for listing in listings if not isinstance(listing, str)) <= _FEW:
            catalog = catalog_of(by_server)
        else:
            catalog = await asyncio.to_thread(catalog_of, by_server)
        if len(self._routes) > _MOST_ROUTES:
            self._routes.clear()
        self._routes.update((each.name, (each.server_id, each.tool.name)) for each in catalog.tools)
        return catalog

    async def _tools_or_reason(self, server_id: str, timeout: float | None) -> list[Tool] | str:
        """Return the tools of a server, or why they cannot be listed within ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        while True:
            known = self._known(server_id)
            if known is not None:
                return known
            fetching = self._fetching.get(server_id)
            if fetching is None or fetching.deployment != self._stamp(server_id)[:1]:
                fetching = self._start(server_id, timeout)
            # The list has changed since this fetch began: wait for its end, then fetch again.
            is_old = not fetching.is_current
            left = None
            if timeout is not None and end is not None:
                # What others have waited for it counts.
                left = max(0.0, min(end, fetching.asked + timeout, loop.time() + _LONGEST_WAIT_S) - loop.time())
            # Not awaited directly: a caller that gives up would cancel the fetch for the others.
            done, _ = await asyncio.wait({fetching.task}, timeout=left)
            if not done:
                waited_s = loop.time() - fetching.asked
                return f"its tools were not listed within {waited_s:.1f} s; the listing goes on"
            if fetching.task.cancelled():
                return "the manager was stopped during the listing"
            if not is_old:
                return _result_of(fetching.task)

    def _known(self, server_id: str) -> list[Tool] | str | None:
        """Return the cached tools of a server, or why it is not asked now; ``None`` if it has to be asked."""
        stamp = self._stamp(server_id)
        listing = self._listings.get(server_id)
        if listing is not None and listing.stamp == stamp and self._clock() - listing.fetched_ns < _MAX_AGE_NS:
            return listing.tools
        failure = self._failures.get(server_id)
        if failure is None:
            return None
        left_s = failure.until - asyncio.get_running_loop().time()
        if left_s > 0 and failure.stamp == stamp:
            return f"{failure.reason}; it is asked again after {left_s:.0f} s"
        del self._failures[server_id]
        return None

    def _start(self, server_id: str, timeout: float | None) -> _Fetching:
        before = self._fetching.pop(server_id, None)
        if before is not None:
            # A fetch from an earlier deployment, whose pause does not apply to this one.
            before.is_current = False
            self._not_before.pop(server_id, None)
        asked = asyncio.get_running_loop().time()
        if timeout is not None and timeout <= self._patience_s:
            # The server's own settings say how long a listing may take; who asks for it need not stay.
            timeout = None
        fetching = self._fetching[server_id] = _Fetching(self._stamp(server_id)[:1], asked)
        task = fetching.task = background_task(self._refresh(server_id, timeout, fetching), "list tools")
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._fetched(server_id, fetching))
        return fetching

    async def _refresh(self, server_id: str, timeout: float | None, fetching: _Fetching) -> list[Tool]:
        loop = asyncio.get_running_loop()
        pause_s = self._not_before.get(server_id, 0.0) - loop.time()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        await self._slots.acquire()
        is_counted = True

        def no_longer_count() -> None:
            nonlocal is_counted
            if is_counted:
                is_counted = False
                self._slots.release()

        timer = loop.call_later(_COUNTED_S, no_longer_count)
        try:
            self._not_before.pop(server_id, None)
            fetching.began = loop.time()
            return await self._fetch(server_id, timeout)
        finally:
            timer.cancel()
            no_longer_count()

    def _fetched(self, server_id: str, fetching: _Fetching) -> None:
        task = fetching.task
        self._tasks.discard(task)
        is_latest = self._fetching.get(server_id) is fetching
        if is_latest:
            del self._fetching[server_id]
        if task.cancelled():
            return
        # The rest of the stamp may change while a list is read, but the list of another deployment is not cached.
        stamp = self._stamp(server_id)
        now = asyncio.get_running_loop().time()
        took_s = now - fetching.began
        # Read in any case: nobody may be left who waits for it.
        error = task.exception()
        if not stamp or stamp[:1] != fetching.deployment:
            return
        if error is not None:
            if is_latest and took_s > _SLOW_S and isinstance(error, McpManagerError):
                self._failures[server_id] = _Failure(str(error), stamp, now + min(took_s, _LONGEST_PAUSE_S))
        elif fetching.is_current:
            self._listings[server_id] = _Listing(task.result(), stamp, self._clock(), now + took_s)
        else:
            self._not_before[server_id] = now + took_s


def _result_of(task: asyncio.Task[list[Tool]]) -> list[Tool] | str:
    """Return what a finished fetch has found, or why it has failed."""
    error = task.exception()
    if error is None:
        return task.result()
    try:
        if isinstance(error, RpcError) and error.code == _METHOD_NOT_FOUND:
            return []
        if isinstance(error, McpManagerError):
            return str(error)
        raise error
    finally:
        # Its traceback holds this frame.
        del error


def _nearest(name: str, names: list[str]) -> str | None:
    import difflib  # noqa: PLC0415 - not needed to import the package

    return next(iter(difflib.get_close_matches(name, names, n=1)), None)
