"""Scrapes: which format is asked for, and one page for all that ask within a second."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Final, Literal, NamedTuple

import msgspec
from prometheus_client.exposition import choose_encoder

from mcp_manager.config.arguments import as_text, shown
from mcp_manager.errors import InvalidRequestError
from mcp_manager.observe.metric_families import FAMILIES, names_of
from mcp_manager.observe.metric_text import Layout, new_page, writing
from mcp_manager.observe.metrics import Source
from mcp_manager.observe.slices import Pauses, in_slices

__all__ = ["Exposition", "Scrapes", "TextFormat", "text_of", "wanted"]

TextFormat = Literal["text", "openmetrics"]
"""The text format 0.0.4 of Prometheus, or OpenMetrics 1.0."""

_ACCEPTS: Final = {"text": "", "openmetrics": "application/openmetrics-text; version=1.0.0"}
_SHARED_S: Final = 1.0
_FAMILY_OF: Final = {name: family.name for family in FAMILIES for name in names_of(family)}


class Exposition(msgspec.Struct, frozen=True):
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


def wanted(servers: Iterable[str] | None, families: Iterable[str] | None) -> Wanted:
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
    layout, page = _layout(accept, what), new_page()
    pause = Pauses() if is_shared else None
    for _ in writing(page, source, layout, what.server_ids):
        if pause is not None:
            pause()
    return page.take_text(layout.heads, layout.tail)


class Scrapes:
    """Serve scrapes; those within a second that ask for the same get the same page.

    Parameters
    ----------
    clock
        Returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._here = asyncio.Lock()
        self._elsewhere = threading.Lock()
        self._latest: tuple[float, tuple[str, Wanted], Exposition] | None = None

    async def page_here(self, source: Source, accept: str, what: Wanted) -> Exposition:
        """Return a page for an ``Accept`` header field, written on the manager's loop, which goes on meanwhile."""
        async with self._here:
            shared = self._shared(accept, what)
            if shared is not None:
                return shared
            began, layout, page = self._clock(), _layout(accept, what), new_page()
            await in_slices(writing(page, source, layout, what.server_ids))
            body = await asyncio.to_thread(page.take, layout.heads, layout.tail)
            return self._made(began, accept, what, body)

    def page_elsewhere(self, source: Source, accept: str, what: Wanted) -> Exposition:
        """Return a page for an ``Accept`` header field, written on a thread beside the manager's loop."""
        with self._elsewhere:
            shared = self._shared(accept, what)
            if shared is not None:
                return shared
            began, layout, page, pause = self._clock(), _layout(accept, what), new_page(), Pauses()
            for _ in writing(page, source, layout, what.server_ids):
                pause()
            return self._made(began, accept, what, page.take(layout.heads, layout.tail))

    def _shared(self, accept: str, what: Wanted) -> Exposition | None:
        latest = self._latest
        if latest is None:
            return None
        if latest[1] == (_content_type(accept), what) and 0 <= self._clock() - latest[0] < _SHARED_S:
            return latest[2]
        # Not kept while the next one is written: a page of a large fleet is large.
        self._latest = None
        return None

    def _made(self, began: float, accept: str, what: Wanted, body: bytes) -> Exposition:
        made = Exposition(body, _content_type(accept))
        self._latest = began, (made.content_type, what), made
        return made


def _content_type(accept: str) -> str:
    return choose_encoder(accept)[1]


def _layout(accept: str, what: Wanted) -> Layout:
    return _layout_of(_content_type(accept), what.families, what.server_ids is not None)


@functools.lru_cache(maxsize=32)
def _layout_of(content_type: str, families: Collection[str] | None, is_of_servers: bool) -> Layout:
    # A content type says all that matters of the header field that asked for it.
    return Layout(choose_encoder(content_type)[0], families, is_of_servers=is_of_servers)
