"""A server that plays the API of a model's vendor: it answers each request with the next reply of a script."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from aiohttp import web

__all__ = ["ModelApi"]

Reply = dict[str, Any]


class ModelApi:
    """Serve scripted replies on a thread of its own; ``with`` starts and ends it.

    Parameters
    ----------
    check
        Called with the body of each request; what it raises is answered with status 400, as the vendor would, and
        fails the test at the end.
    replies
        The bodies of the replies, one for each request, or functions from the request's body to it.
    """

    def __init__(self, check: Callable[[Any], None], replies: Sequence[Reply | Callable[[Any], Reply]]) -> None:
        self.requests: list[Any] = []
        self.url = ""
        self._check = check
        self._replies = list(replies)
        self._problems: list[BaseException] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="model-api", daemon=True)
        self._runner: web.AppRunner

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if kind is None:
            assert self._problems == []
            assert self._replies == [], "the script was not played to its end"

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        try:
            self._check(body)
            reply = self._replies.pop(0)
            return web.json_response(reply(body) if callable(reply) else reply)
        except Exception as problem:
            self._problems.append(problem)
            return web.json_response({"error": {"message": repr(problem)}}, status=400)
