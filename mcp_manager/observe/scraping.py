"""Scrapes: which format is asked for, and one reading for all that ask within a second."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Final, Literal, NamedTuple, Self

import msgspec
from prometheus_client.exposition import choose_encoder

from mcp_manager._core.exposition import Chunks, Page
from mcp_manager.config.arguments import as_text, shown
from mcp_manager.errors import InvalidRequestError
from mcp_manager.observe.metric_families import FAMILIES, names_of
from mcp_manager.observe.metric_text import Layout, reading_into
from mcp_manager.observe.metrics import Source
from mcp_manager.observe.slices import Pauses, in_slices
from mcp_manager.serialization import Serializable

__all__ = ["Exposition", "ExpositionStream", "Scrapes", "TextFormat", "text_of", "wanted"]

TextFormat = Literal["text", "openmetrics"]
"""The text format 0.0.4 of Prometheus, or OpenMetrics 1.0."""

Names = Iterable[str]
"""Ids of servers, or names of families."""

_ACCEPTS: Final = {"text": "", "openmetrics": "application/openmetrics-text; version=1.0.0"}
_SHARED_S: Final = 1.0
# Written in a tenth of a millisecond.
_CHUNK_BYTES: Final = 128 * 1024
# Freed in a fifth of a millisecond.
_LARGE_BYTES: Final = 1024 * 1024
_FAMILY_OF: Final = {name: family.name for family in FAMILIES for name in names_of(family)}


class Exposition(Serializable, msgspec.Struct, frozen=True, weakref=True):
    """A page of metrics, to be sent to whoever scrapes.

    Parameters
    ----------
    body
        The page.
    content_type
        The value of its header field ``Content-Type``.
    """

    body: bytes
    content_type: str


class Wanted(NamedTuple):
    """What a scrape shows: servers by id and families by name, ``None`` for all."""

    server_ids: frozenset[str] | None
    families: frozenset[str] | None


class Scraped:
    """The fleet as it was read for a scrape, and its page as long as somebody uses that.

    Its memory is freed when the last of its holders releases it; the first two are :class:`Scrapes`, which shares it,
    and whoever asked for it.
    """

    def __init__(self, began: float, content_type: str, what: Wanted, page: Page) -> None:
        self.began = began
        self.content_type = content_type
        self.what = what
        self.page = page
        self._exposition: Callable[[], Exposition | None] = lambda: None
        self._holders = 2
        self._lock = threading.Lock()
        # Held for as long as a page takes: never on a loop.
        self._writing = threading.Lock()

    def hold(self) -> bool:
        """Add a holder, unless the memory was freed already; tell whether it was added."""
        with self._lock:
            if self._holders:
                self._holders += 1
                return True
            return False

    def release(self) -> None:
        """Remove a holder; after the last one, free the memory: much of it by a thread, since that takes milliseconds."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return
        if self.page.size >= _LARGE_BYTES:
            # On a thread without a loop, and on a loop that is about to end, nothing is held up.
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().run_in_executor(None, self.page.close)
                return
        self.page.close()

    def exposition(self) -> Exposition:
        """Return the whole page; its text is written if nobody has it. Called on a thread without a loop."""
        with self._writing:
            made = self._exposition()
            if made is None:
                made = Exposition(self.page.as_bytes(), self.content_type)
                self._exposition = weakref.ref(made)
            return made


class ExpositionStream:
    """A page of metrics in pieces, to be sent to whoever scrapes: iterate over it once, with ``async for`` or ``for``.

    Each piece is written when it is asked for, and has about 128 KiB. All of them show the fleet at one moment.

    Attributes
    ----------
    content_type
        The value of the header field ``Content-Type``.
    """

    def __init__(self, scraped: Scraped) -> None:
        self.content_type: str = scraped.content_type
        self._scraped = scraped
        self._chunks = Chunks(scraped.page, _CHUNK_BYTES)
        self._has_ended = False

    def __aiter__(self) -> Self:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> bytes:
        """Let other tasks run, and return the next piece."""
        await asyncio.sleep(0)
        chunk = next(self, None)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def __iter__(self) -> Self:
        """Return the stream itself."""
        return self

    def __next__(self) -> bytes:
        """Return the next piece."""
        chunk = next(self._chunks, None)
        if chunk is not None:
            return chunk
        if not self._has_ended:
            self._has_ended = True
            self._scraped.release()
        raise StopIteration


def wanted(servers: Names | None, families: Names | None) -> Wanted:
    """Check what a scrape is to show.

    Raises
    ------
    InvalidRequestError
        There is no family of that name, or an argument is not a collection of strings.
    """
    named = None if families is None else frozenset(map(_family_named, _names(families, "families")))
    return Wanted(None if servers is None else _names(servers, "servers"), named)


def _names(value: object, name: str) -> frozenset[str]:
    if not isinstance(value, Collection) or isinstance(value, str | bytes | bytearray):
        raise InvalidRequestError(f"{name} must be a collection of strings, not {shown(value)}")
    for each in value:
        if not isinstance(each, str):
            raise InvalidRequestError(f"{name} must be a collection of strings, with none like {shown(each)}")
    return frozenset(value)


def _family_named(name: str) -> str:
    family = _FAMILY_OF.get(name)
    if family is None:
        near = get_close_matches(name, _FAMILY_OF, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidRequestError(f"there is no family {shown(name)}{hint}")
    return family


def text_of(source: Source, text_format: TextFormat, what: Wanted, *, is_shared: bool) -> str:
    """Return a page as text.

    Parameters
    ----------
    source
        What to read.
    text_format
        The format.
    what
        What to show.
    is_shared
        Whether other threads are to run meanwhile, such as that of the manager's loop.

    Raises
    ------
    InvalidRequestError
        There is no such format.
    """
    accept = _ACCEPTS.get(as_text(text_format, "format"))
    if accept is None:
        raise InvalidRequestError(f"format must be 'text' or 'openmetrics', not {shown(text_format)}")
    layout = _layout(accept, what)
    page = layout.new_page()
    pause = Pauses() if is_shared else None
    for _ in reading_into(page, source, layout, what.server_ids):
        if pause is not None:
            pause()
    return page.as_text()


class Scrapes:
    """Serve scrapes; those within a second that ask for the same show one reading of the fleet.

    Parameters
    ----------
    clock
        Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._here = asyncio.Lock()
        self._elsewhere = threading.Lock()
        self._latest: Scraped | None = None

    async def whole(
        self, source: Source, accept: str, servers: Names | None, families: Names | None, *, is_here: bool
    ) -> Exposition:
        """Return a page for an ``Accept`` header field; ``is_here`` tells whether this is the manager's loop."""
        scraped = await self._scraped(source, accept, wanted(servers, families), is_here=is_here)
        try:
            return await asyncio.to_thread(scraped.exposition)
        finally:
            scraped.release()

    async def stream(
        self, source: Source, accept: str, servers: Names | None, families: Names | None, *, is_here: bool
    ) -> ExpositionStream:
        """Return a page in pieces; see :meth:`whole`."""
        return ExpositionStream(await self._scraped(source, accept, wanted(servers, families), is_here=is_here))

    async def _scraped(self, source: Source, accept: str, what: Wanted, *, is_here: bool) -> Scraped:
        if is_here:
            async with self._here:
                scraped = self._shared(accept, what) or await self._read_here(source, accept, what)
        else:
            scraped = await asyncio.to_thread(self._read_elsewhere, source, accept, what)
        # What was read of a large fleet is large: the timer must not keep it when another reading has taken its place.
        asyncio.get_running_loop().call_later(_SHARED_S, self._drop, weakref.ref(scraped))
        return scraped

    async def _read_here(self, source: Source, accept: str, what: Wanted) -> Scraped:
        """Read the fleet on the manager's loop, which goes on meanwhile."""
        began, layout = self._clock(), _layout(accept, what)
        page = layout.new_page()
        await in_slices(reading_into(page, source, layout, what.server_ids))
        return self._made(began, accept, what, page)

    def _read_elsewhere(self, source: Source, accept: str, what: Wanted) -> Scraped:
        """Read the fleet on a thread beside the manager's loop."""
        with self._elsewhere:
            shared = self._shared(accept, what)
            if shared is not None:
                return shared
            began, layout, pause = self._clock(), _layout(accept, what), Pauses()
            page = layout.new_page()
            for _ in reading_into(page, source, layout, what.server_ids):
                pause()
            return self._made(began, accept, what, page)

    def _shared(self, accept: str, what: Wanted) -> Scraped | None:
        latest = self._latest
        if latest is None or (latest.content_type, latest.what) != (_content_type(accept), what):
            return None
        return latest if 0 <= self._clock() - latest.began < _SHARED_S and latest.hold() else None

    def _made(self, began: float, accept: str, what: Wanted, page: Page) -> Scraped:
        made = Scraped(began, _content_type(accept), what, page)
        before, self._latest = self._latest, made
        if before is not None:
            before.release()
        return made

    def _drop(self, reading: weakref.ref[Scraped]) -> None:
        scraped = reading()
        if scraped is not None and self._latest is scraped:
            self._latest = None
            scraped.release()


def _content_type(accept: str) -> str:
    return choose_encoder(accept)[1]


def _layout(accept: str, what: Wanted) -> Layout:
    return _layout_of(_content_type(accept), what.families, what.server_ids is not None)


@functools.lru_cache(maxsize=32)
def _layout_of(content_type: str, families: Collection[str] | None, is_of_servers: bool) -> Layout:
    # A content type says all that matters of the header field that asked for it.
    return Layout(choose_encoder(content_type)[0], families, is_of_servers=is_of_servers)
