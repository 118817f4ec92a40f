"""What servers list, kept as they wrote it; a server that does not answer keeps nobody from the lists of the others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from mcp_manager._core.splicing import UnclearMemberError, member_range
from mcp_manager.errors import McpManagerError, RpcError, ServerNotFoundError
from mcp_manager.gateway.endpoints.kinds import KINDS, TOOLS, Kind
from mcp_manager.gateway.security.definitions import PINNED
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.gateway.tool_search.tool_indexes import ToolIndexes
from mcp_manager.manager import McpManager
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.tool_rules import rules_of
from mcp_manager.runtime.background import background_task, bare_context
from mcp_manager.types import ServerState

__all__ = ["Entry", "Listing", "Listings", "Lists", "input_schema_of", "read_entries"]

_log = logging.getLogger(__name__)

_MAX_AGE_S: Final = 300.0
# Without notifications of changes, only looking again shows them.
_MAX_AGE_UNTOLD_S: Final = 60.0
_CONCURRENCY: Final = 64
# A listing that takes longer no longer counts against the limit, so that servers that hang do not use it up.
_COUNTED_S: Final = 1.0
_SHORTEST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
# Beyond it, the names in a list are read in a thread.
_MANY: Final = 2_000
# Beyond it, definitions are compared in a thread.
_MANY_COMPARED: Final = 100
_LONGEST_KEY: Final = 8_192
# How often a list that changes while it is read is read again at once.
_AT_ONCE: Final = 2
_RESTING: Final = frozenset({ServerState.UNHEALTHY, ServerState.MAINTENANCE, ServerState.STOPPED})

_members_decoder: JsonDecoder[dict[str, msgspec.Raw]] = JsonDecoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)


class Entry(msgspec.Struct, frozen=True):
    """An entry of a list.

    Parameters
    ----------
    key
        What names it: the name of a tool, the URI of a resource.
    raw
        The entry as its server wrote it.
    start, end
        Where in it the value of that member is.
    """

    key: str
    raw: bytes
    start: int
    end: int

    def renamed(self, key: str) -> bytes:
        """Return the entry under another name, and otherwise byte for byte as it is."""
        return self.raw if key == self.key else self.raw[: self.start] + msgspec.json.encode(key) + self.raw[self.end :]


Listing = tuple[Entry, ...]
"""The entries of one server, each key once, in the order of the server."""


class Lists(msgspec.Struct, frozen=True):
    """The lists of several servers.

    Parameters
    ----------
    found
        By server id, in the order that was asked for.
    missing
        Why the list of a server is not there, or is an old one, by server id.
    """

    found: dict[str, Listing]
    missing: dict[str, str]


class _Kept:
    """What is known of one list of one server.

    ``stamp`` is that of the server when it was read. ``until`` is the loop time after which it is read again while the
    old one is used; ``retry_at`` that before which a server that has failed is not asked. ``is_outdated`` says that the
    list has changed, so that who asks for it waits for the new one; ``changes`` counts how often that was said.
    ``was_missed`` says that somebody got a list without this one. ``shown`` is the list without what pins hide.
    """

    __slots__ = (
        "asked",
        "changes",
        "failure",
        "hidden",
        "is_outdated",
        "listing",
        "retry_at",
        "shown",
        "stamp",
        "task",
        "until",
        "was_missed",
    )

    def __init__(self) -> None:
        self.listing: Listing | None = None
        self.hidden: frozenset[str] = frozenset()
        self.shown: Listing | None = None
        self.stamp: tuple[Any, ...] = ()
        self.until = 0.0
        self.is_outdated = True
        self.changes = 0
        self.was_missed = False
        self.failure = ""
        self.retry_at = 0.0
        self.task: asyncio.Task[None] | None = None
        self.asked = 0.0


class Listings:
    """Keep the lists of servers; one task reads a list for all who ask for it.

    A list is read again when its server says that it has changed, has a new session or configuration, or after the time
    for which the server said it is valid, at most five minutes. A server that does not answer keeps its last list.

    Parameters
    ----------
    manager
        The fleet.
    patience_s
        Seconds that callers wait for a server; reading goes on after that.
    pins
        Compares what servers list with what was pinned. If it hides what differs, a list that its server says has
        changed is not used until it was read again.
    """

    def __init__(
        self,
        manager: McpManager,
        patience_s: float = 5.0,
        pins: Pins | None = None,
    ) -> None:
        self._manager = manager
        self.pins: Pins = Pins() if pins is None else pins
        self.is_personal: Callable[[str], bool] | None = None
        """Tells which servers get something of each client. Their lists are those that they show to the gateway."""
        self._patience_s = patience_s
        self._kept: dict[tuple[str, Kind], _Kept] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._watchers: list[Callable[[str, Kind], None]] = []
        self._is_closed = False
        # Made of the tools in them; endpoints share them, too.
        self.indexes: ToolIndexes = ToolIndexes()
        # Increases whenever a list has changed or has to be read again.
        self.version: int = 0

    def watch(self, watcher: Callable[[str, Kind], None]) -> None:
        """Call ``watcher(server_id, kind)`` when a list turns out to be another one than clients know; it must not raise.

        It is not called for changes that :meth:`changed` has told of.
        """
        self._watchers.append(watcher)

    def servers(self) -> list[str]:
        """Return the ids of all deployed servers."""
        return self._manager._deployed(None)

    def is_deployed(self, server_id: str) -> bool:
        """Return whether a server is deployed."""
        return server_id in self._manager._servers

    def priority(self, server_id: str) -> int:
        """Return the priority of a server, 0 if it is not deployed."""
        supervisor = self._manager._servers.get(server_id)
        return 0 if supervisor is None else supervisor.config.priority

    def changed(self, server_id: str, method: str) -> None:
        """Read the lists again that a notification says have changed."""
        for kind in KINDS.values():
            kept = self._kept.get((server_id, kind))
            if kind.change == method and kept is not None:
                kept.is_outdated = True
                kept.changes += 1
                kept.retry_at = 0.0
                kept.failure = ""
                self.version += 1
        if server_id not in self._manager._servers:
            self._forget(server_id)

    def recovered(self, server_id: str) -> None:
        """Read the lists of a server again that answers again; watchers are told if they are others than before."""
        for kind in KINDS.values():
            kept = self._kept.get((server_id, kind))
            if kept is not None and not self._is_closed:
                kept.retry_at = 0.0
                self._read(server_id, kind, kept)

    async def of(self, server_ids: Iterable[str], kind: Kind, patience_s: float | None = None) -> Lists:
        """Return the lists of servers, and wait for those that are not known yet or have changed.

        Nobody waits for a server whose list could not be read before: it is asked again without that.

        Parameters
        ----------
        server_ids
            The servers.
        kind
            Which list.
        patience_s
            Seconds to wait, counted from when somebody first asked for a list that is being read.
        """
        patience_s = self._patience_s if patience_s is None else patience_s
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting: dict[asyncio.Task[None], float] = {}
        chosen = list(server_ids)
        for server_id in chosen:
            kept = self._kept.get((server_id, kind))
            if kept is None:
                kept = self._kept[server_id, kind] = _Kept()
            if self._is_due(server_id, kind, kept, now):
                task = self._read(server_id, kind, kept)
                if kept.is_outdated and not kept.failure:
                    waiting[task] = kept.asked + patience_s
        while waiting:
            now = loop.time()
            left = max(waiting.values()) - now
            await asyncio.wait(waiting, timeout=max(0.0, left))
            now = loop.time()
            waiting = {task: end for task, end in waiting.items() if not task.done() and end > now}
        return self._gathered(chosen, kind)

    async def aclose(self) -> None:
        """Read nothing more. Idempotent."""
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._kept.clear()
        await self.indexes.aclose()

    def _forget(self, server_id: str) -> None:
        for kind in KINDS.values():
            self._kept.pop((server_id, kind), None)
        self.pins.forget(server_id)

    def _gathered(self, server_ids: list[str], kind: Kind) -> Lists:
        found: dict[str, Listing] = {}
        missing: dict[str, str] = {}
        for server_id in server_ids:
            kept = self._kept.get((server_id, kind))
            if kept is None:
                continue
            listing = None if kept.is_outdated and self._has_to_be_new(kind) else kept.shown
            if listing is not None:
                found[server_id] = self._permitted(server_id, kind, listing)
            if kept.failure:
                missing[server_id] = kept.failure
            elif listing is None or (kept.is_outdated and kept.task is not None):
                missing[server_id] = f"its {kind.member} were not listed within {self._patience_s:g} s"
            kept.was_missed |= listing is None
        return Lists(found, missing)

    def _has_to_be_new(self, kind: Kind) -> bool:
        return self.pins.blocks and self.pins.concerns(kind)

    def compare_again(self) -> None:
        """Compare all lists with the pins, which have changed; watchers are told of those that differ now."""
        for (server_id, kind), kept in list(self._kept.items()):
            if kept.listing is None or kind not in PINNED:
                continue
            before = kept.shown
            different = self._compared(server_id, kind, kept.listing) if self.pins.is_on else {}
            self._show(server_id, kind, kept, kept.listing, different)
            if kept.shown is not before:
                self.version += 1
                for watcher in self._watchers:
                    watcher(server_id, kind)

    def _compared(self, server_id: str, kind: Kind, listing: Listing) -> dict[str, str]:
        return self.pins.compare(server_id, kind, ((each.key, each.raw) for each in listing))

    def _show(self, server_id: str, kind: Kind, kept: _Kept, listing: Listing, different: dict[str, str]) -> None:
        """Keep a list, and what of it is shown."""
        hidden = self.pins.note(server_id, kind, different) if self.pins.concerns(kind) else frozenset()
        if kept.listing is listing and kept.hidden == hidden:
            return
        kept.listing, kept.hidden = listing, hidden
        kept.shown = tuple(each for each in listing if each.key not in hidden) if hidden else listing

    def _permitted(self, server_id: str, kind: Kind, listing: Listing) -> Listing:
        """Return a list without the tools that the configuration forbids by now."""
        supervisor = self._manager._servers.get(server_id)
        rules = None if supervisor is None or kind is not TOOLS else rules_of(supervisor.config.tools)
        if rules is None:
            return listing
        permitted = tuple(each for each in listing if rules.permits(each.key))
        return listing if len(permitted) == len(listing) else permitted

    def _is_due(self, server_id: str, kind: Kind, kept: _Kept, now: float) -> bool:
        if self._is_closed:
            return False
        if kept.task is not None:
            return kept.is_outdated
        if now < kept.retry_at:
            return False
        if not (kept.is_outdated or now >= kept.until or kept.stamp != self._stamp(server_id, kind)):
            return False
        # A server that is known not to answer is asked again once it is well.
        return kept.listing is None or not self._is_resting(server_id)

    def _is_resting(self, server_id: str) -> bool:
        try:
            return self._manager.server_state(server_id) in _RESTING
        except ServerNotFoundError:
            return True

    def _stamp(self, server_id: str, kind: Kind) -> tuple[Any, ...]:
        stamp = self._manager._stamp(server_id)
        return stamp if kind is TOOLS else stamp[:1] + stamp[2:]

    def _read(self, server_id: str, kind: Kind, kept: _Kept) -> asyncio.Task[None]:
        if kept.task is None:
            kept.asked = asyncio.get_running_loop().time()
            reading = self._refresh(server_id, kind, kept)
            kept.task = background_task(reading, f"read {kind.method}", among=self._tasks, context=bare_context())
        return kept.task

    async def _refresh(self, server_id: str, kind: Kind, kept: _Kept) -> None:
        loop = asyncio.get_running_loop()
        await self._slots.acquire()
        is_counted = True

        def no_longer_count() -> None:
            nonlocal is_counted
            if is_counted:
                is_counted = False
                self._slots.release()

        timer = loop.call_later(_COUNTED_S, no_longer_count, context=bare_context())
        began = loop.time()
        try:
            for _ in range(_AT_ONCE):
                changes, deployment = kept.changes, self._stamp(server_id, kind)[:1]
                listing = await self._fetch(server_id, kind)
                if changes == kept.changes:
                    break
            different: dict[str, str] = {}
            pins = -1
            while pins != self.pins.version:
                pins = self.pins.version
                different = await self._compared_later(server_id, kind, listing) if self.pins.concerns(kind) else {}
            if deployment == self._stamp(server_id, kind)[:1] and self._kept.get((server_id, kind)) is kept:
                self._keep(server_id, kind, kept, listing, (changes, different))
        except McpManagerError as error:
            pause_s = min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, loop.time() - began))
            # Clients are not told more: the reason may name what is inside the network.
            why = "it answered with an error" if isinstance(error, RpcError) else "it does not answer"
            level = logging.DEBUG if kept.failure else logging.WARNING
            _log.log(level, "merged lists lack the %s of server %r: %s", kind.member, server_id, str(error))
            kept.failure = f"its {kind.member} could not be listed: {why}"
            if self.is_personal is not None and self.is_personal(server_id):
                kept.failure = (
                    f"its {kind.member} are listed for each client alone: at /servers/{quote(server_id, safe='')}/mcp"
                )
            kept.retry_at = loop.time() + pause_s
            self.version += 1
        finally:
            timer.cancel()
            no_longer_count()
            kept.task = None

    async def _compared_later(self, server_id: str, kind: Kind, listing: Listing) -> dict[str, str]:
        if len(listing) <= _MANY_COMPARED:
            return self._compared(server_id, kind, listing)
        return await asyncio.to_thread(self._compared, server_id, kind, listing)

    def _keep(
        self, server_id: str, kind: Kind, kept: _Kept, listing: Listing, read: tuple[int, dict[str, str]]
    ) -> None:
        """Keep a list; ``read`` has the changes that it has, and what is not as pinned."""
        changes, different = read
        before, had_failed = kept.listing, bool(kept.failure)
        # A list that changes all the time is used as it is, and read again for who asks next.
        is_told, kept.is_outdated = kept.changes > 0, kept.changes != changes
        kept.changes = 0
        kept.stamp = self._stamp(server_id, kind)
        kept.until = asyncio.get_running_loop().time() + self._max_age_s(server_id, kind)
        kept.failure = ""
        kept.retry_at = 0.0
        is_news = listing != before if before is not None else bool(listing) and kept.was_missed
        # Who has asked since the server told of the change got no list at all.
        is_told = is_told and not (kept.was_missed and self._has_to_be_new(kind))
        is_news = is_news or (kept.was_missed and self._has_to_be_new(kind))
        kept.was_missed = False
        shown = kept.shown
        self._show(server_id, kind, kept, listing if listing != before or before is None else before, different)
        if kept.shown is not shown or had_failed or self._has_to_be_new(kind):
            self.version += 1
        if is_news and not is_told:
            for watcher in self._watchers:
                watcher(server_id, kind)

    def _max_age_s(self, server_id: str, kind: Kind) -> float:
        identity = self._manager.server(server_id).identity if server_id in self._manager._servers else None
        offered = {} if identity is None else identity.capabilities.get(kind.capability)
        is_told = isinstance(offered, dict) and offered.get("listChanged") is True
        return _MAX_AGE_S if is_told else _MAX_AGE_UNTOLD_S

    async def _fetch(self, server_id: str, kind: Kind) -> Listing:
        identity = self._manager.server(server_id).identity
        if identity is not None and kind is not TOOLS and kind.capability not in identity.capabilities:
            return ()
        try:
            entries = await self._manager._list(server_id, kind.method, kind.field, msgspec.Raw, None)
        except RpcError as error:
            if error.code == METHOD_NOT_FOUND:
                return ()
            raise
        if len(entries) <= _MANY:
            return read_entries(entries, kind)
        return await asyncio.to_thread(read_entries, entries, kind)


def input_schema_of(tool: Entry) -> bytes | None:
    """Return the input schema of a tool as its server wrote it; ``None`` if it has none that all readers find."""
    try:
        place = member_range(tool.raw, b"inputSchema")
    except UnclearMemberError:
        return None
    return None if place is None else tool.raw[place[0] : place[1]]


def read_entries(entries: list[msgspec.Raw], kind: Kind) -> Listing:
    """Return the entries that have a name; of several with the same one, the first."""
    found: dict[str, Entry] = {}
    for raw in entries:
        entry = _read_entry(bytes(raw), kind)
        if entry is not None:
            found.setdefault(entry.key, entry)
    return tuple(found.values())


def _read_entry(raw: bytes, kind: Kind) -> Entry | None:
    try:
        place = member_range(raw, kind.key.encode())
    except UnclearMemberError:
        # Written again, every member is there once, and without escapes in its name.
        try:
            raw = msgspec.json.encode(_members_decoder.decode(raw))
            place = member_range(raw, kind.key.encode())
        except (ValueError, RecursionError):
            return None
    if place is None:
        return None
    try:
        key = _text_decoder.decode(raw[place[0] : place[1]])
    except msgspec.DecodeError:
        return None
    return Entry(key, raw, *place) if 0 < len(key) <= _LONGEST_KEY else None
