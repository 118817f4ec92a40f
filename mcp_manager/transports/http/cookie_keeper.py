"""Keeps the ``Cookie`` field of one transport up to date as its server sets cookies and as they expire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from yarl import URL

from mcp_manager.runtime.background import bare_context
from mcp_manager.transports.base import MessageTaker
from mcp_manager.transports.http.options import HttpOptions

__all__ = ["CookieKeeper"]

_COOKIE: Final = "Cookie"


class CookieKeeper:
    """Write the cookies of an instance into the header fields of its requests.

    Parameters
    ----------
    options
        The cookie jar, and the secrets that mask cookies.
    endpoint
        The URL that requests go to.
    headers
        The header fields of every request, which this class changes. A configured ``Cookie`` stays as it is, in front.
    sink
        Counts malformed cookies.
    on_change
        Called when the fields or the endpoint have changed.
    """

    __slots__ = (
        "_closed",
        "_ending",
        "_endpoint",
        "_headers",
        "_jar",
        "_on_change",
        "_own",
        "_secrets",
        "_sink",
    )

    def __init__(
        self,
        options: HttpOptions,
        endpoint: URL,
        headers: dict[str, str],
        sink: MessageTaker,
        on_change: Callable[[], None],
    ) -> None:
        self._jar = options.cookies
        self._secrets = options.secrets
        self._jar.belong_to(f"{endpoint.origin()} {options.endpoint}")
        self._endpoint = endpoint
        self._headers = headers
        self._sink = sink
        self._on_change = on_change
        self._ending: asyncio.TimerHandle | None = None
        self._closed = False
        configured = [name for name in headers if name.lower() == "cookie"]
        self._own = "; ".join(headers.pop(name) for name in configured)
        self._write()

    def take(self, values: Sequence[bytes]) -> None:
        """Take the values of the ``Set-Cookie`` fields of a response."""
        wrong = self._jar.take((value.decode("latin-1") for value in values), self._endpoint, time.time())
        for _ in range(wrong):
            self._sink.on_fault("a malformed cookie", "")
        if self._write():
            self._on_change()

    def set_own(self, value: str) -> None:
        """Send this ``Cookie`` in front of the server's own from now on; "" for none."""
        if value != self._own:
            self._own = value
            self._write()

    def on(self, url: URL, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return header fields with the cookies for a URL of the same origin."""
        if url is self._endpoint:
            return headers
        value = self._jar.header(url, time.time(), self._own)
        others = {name: each for name, each in headers.items() if name != _COOKIE}
        return {**others, _COOKIE: value} if value else others

    def move_to(self, endpoint: URL) -> None:
        """Send the cookies of another URL of the same origin from now on."""
        self._endpoint = endpoint
        self._write()
        self._on_change()

    def close(self) -> None:
        """Cancel the timer for expiring cookies; idempotent."""
        self._closed = True
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _write(self) -> bool:
        """Write the field, schedule the next write for when a cookie expires, and return whether the field changed."""
        now_s = time.time()
        before = self._headers.pop(_COOKIE, "")
        value = self._jar.header(self._endpoint, now_s, self._own)
        if value:
            self._headers[_COOKIE] = value
            if value != before:
                self._secrets.add(value, _COOKIE)
        self._watch(now_s)
        return value != before

    def _watch(self, now_s: float) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        ends_at = self._jar.next_expiry(now_s)
        if ends_at is not None and not self._closed:
            self._ending = asyncio.get_running_loop().call_later(ends_at - now_s, self._ended, context=bare_context())

    def _ended(self) -> None:
        self._ending = None
        if self._write():
            self._on_change()
