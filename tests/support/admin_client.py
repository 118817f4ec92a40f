"""A client of the admin API, and its event stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import aiohttp

__all__ = ["TOKEN", "AdminClient", "Answer", "EventReader"]

TOKEN = "administrators-token-0123456789-abcdef"


class Answer(NamedTuple):
    """A response."""

    status: int
    body: Any
    headers: Any

    @property
    def etag(self) -> str:
        """The revision, with its quotes."""
        return str(self.headers["ETag"])


class EventReader:
    """The events of a stream, as they come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""

    async def block(self) -> dict[str, str]:
        """The fields of the next block that is no comment alone."""
        fields: dict[str, str] = {}
        while True:
            line = (await self.response.content.readline()).decode()
            if not line:
                raise EOFError
            name, _, value = line.rstrip("\n").partition(": ")
            if line != "\n" and name:
                fields[name] = value
            elif line == "\n" and fields and set(fields) != {":"}:
                self.last_id = fields.get("id", self.last_id)
                return fields

    async def until(self, kind: str, **wanted: Any) -> dict[str, Any]:
        """The record of the next event of a kind, with these members."""
        while True:
            block = await self.block()
            if block.get("event") == kind:
                found: dict[str, Any] = json.loads(block["data"])
                if all(found.get(name) == value for name, value in wanted.items()):
                    return found


class AdminClient:
    """Send requests to an admin API."""

    def __init__(self, url: str, token: str | None = TOKEN, **fields: str) -> None:
        self._url = url
        self._fields = {**({} if token is None else {"Authorization": f"Bearer {token}"}), **fields}

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(self._url, timeout=aiohttp.ClientTimeout(total=20))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def ask(self, method: str, path: str, body: Any = None, /, **fields: str) -> Answer:
        """Send a request to a path below ``/api/v1``; the names of header fields have ``_`` in place of ``-``."""
        headers = {**self._fields, **{name.replace("_", "-"): value for name, value in fields.items()}}
        given: dict[str, Any] = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self._http.request(method, f"/api/v1{path}", headers=headers, **given) as response:
            text = await response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            return Answer(response.status, json.loads(text) if is_json and text else text, response.headers)

    async def get(self, path: str) -> Any:
        """The body of a response to GET."""
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.body

    @asynccontextmanager
    async def events(self, last_id: str = "") -> AsyncIterator[EventReader]:
        """Follow the events."""
        headers = {**self._fields, **({"Last-Event-ID": last_id} if last_id else {})}
        async with self._http.get("/api/v1/events", headers=headers) as response:
            assert response.status == 200, await response.text()
            yield EventReader(response)
