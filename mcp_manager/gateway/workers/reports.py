"""``Reports``: what one worker says of all: it asks its siblings, and answers when they ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from mcp_manager.gateway.workers.metrics import labelled, merged
from mcp_manager.gateway.workers.siblings import Siblings

__all__ = ["Reports"]

_METRICS: Final = "/siblings/metrics"
_READY: Final = "/siblings/ready"
# Less than Prometheus waits for a scrape, 10 s, and a prober for an answer.
_METRICS_S: Final = 5.0
_READY_S: Final = 1.0
_ready_decoder = msgspec.json.Decoder(list[str])


class Reports:
    """Gather metrics and readiness from all workers; a sibling that does not answer in time is left out.

    Parameters
    ----------
    siblings
        The other workers.
    page
        Returns the metrics of this worker in the format of an ``Accept`` header field.
    ready
        Returns the ids of the servers that are ready, without those whose program a sibling runs.
    """

    def __init__(
        self, siblings: Siblings, page: Callable[[str], Awaitable[bytes]], ready: Callable[[], list[str]]
    ) -> None:
        self._siblings = siblings
        self._page = page
        self._ready = ready

    async def metrics(self, accept: str) -> bytes:
        """Return the metrics of all workers on one page; every sample has the label ``worker``."""
        own, others = await asyncio.gather(
            self._labelled(accept), self._siblings.get(_METRICS, _METRICS_S, {"Accept": accept})
        )
        pages = {self._siblings.number: own, **others}
        # It takes a while for a large fleet.
        return await asyncio.to_thread(merged, [pages[number] for number in sorted(pages)])

    async def ready_servers(self, enough: int) -> set[str]:
        """Return the ids of the servers that are ready in any worker; the siblings are asked unless ``enough`` are here."""
        found = set(self._ready())
        if len(found) < enough:
            for listed in (await self._siblings.get(_READY, _READY_S)).values():
                found.update(_ready_decoder.decode(listed))
        return found

    async def answer(self, request: web.Request, path: str) -> web.Response | None:
        """Answer a sibling that asks; ``None`` for all other requests."""
        if path not in (_METRICS, _READY) or not self._siblings.trust.shows_secret(request):
            return None
        if path == _METRICS:
            return web.Response(body=await self._labelled(request.headers.get("Accept", "")))
        return web.Response(body=msgspec.json.encode(self._ready()))

    async def _labelled(self, accept: str) -> bytes:
        return await asyncio.to_thread(labelled, await self._page(accept), self._siblings.number)
