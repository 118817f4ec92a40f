"""A client of either era that speaks to the gateway in plain JSON, and shows a token with each request."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

import aiohttp

__all__ = ["RawClient"]

_META: Final = "io.modelcontextprotocol/"
_STATELESS: Final = "2026-07-28"
_ACCEPT: Final = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


class RawClient:
    """Send requests to one endpoint.

    Parameters
    ----------
    http, url
        Sends them, and the endpoint.
    revision
        The revision that it speaks.
    token
        What it shows; may change.
    capabilities
        What it can do.
    headers
        Further header fields; may change.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        revision: str,
        *,
        token: str | None = None,
        capabilities: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.url = url
        self.token = token
        self.headers = dict(headers or {})
        self.session: str | None = None
        self._http = http
        self._revision = revision
        self._capabilities = capabilities or {}
        self._ids = itertools.count(1)

    @property
    def is_stateless(self) -> bool:
        return self._revision == _STATELESS

    async def begin(self) -> dict[str, Any]:
        """Make the handshake, or discover; return the response."""
        if self.is_stateless:
            return await self.ask("server/discover")
        params = {
            "protocolVersion": self._revision,
            "capabilities": self._capabilities,
            "clientInfo": {"name": "raw", "version": "1"},
        }
        response = await self.ask("initialize", params)
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return response

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; return the response."""
        return await self.ask("tools/call", {"name": tool, "arguments": arguments})

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request; return the response."""
        params = dict(params or {})
        if self.is_stateless:
            params["_meta"] = {
                _META + "protocolVersion": self._revision,
                _META + "clientInfo": {"name": "raw", "version": "1"},
                _META + "clientCapabilities": self._capabilities,
            }
        id = next(self._ids)
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        headers = {}
        if self.is_stateless:
            headers["Mcp-Method"] = method
            name = params.get("name") or params.get("uri")
            if name:
                headers["Mcp-Name"] = name
        text = await self.post(message, headers)
        for line in text.splitlines():
            found = json.loads(line.removeprefix("data: ")) if line.startswith(("{", "data: {")) else {}
            if found.get("id") == id or "error" in found:
                return found
        raise AssertionError(f"no response in {text!r}")

    async def post(self, message: dict[str, Any], headers: dict[str, str] | None = None) -> str:
        """Send a message; return the body of the response."""
        fields = {**_ACCEPT, **self._fields(), **self.headers, **(headers or {})}
        if self.is_stateless or self.session is not None:
            fields["MCP-Protocol-Version"] = self._revision
        async with self._http.post(self.url, data=json.dumps(message), headers=fields) as response:
            self.session = response.headers.get("Mcp-Session-Id", self.session)
            return await response.text()

    async def end(self) -> None:
        """End the session, if there is one."""
        if self.session is not None:
            async with self._http.delete(self.url, headers={**self._fields(), **self.headers}) as response:
                assert response.status == 200
            self.session = None

    def _fields(self) -> dict[str, str]:
        fields = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return fields if self.session is None else {**fields, "Mcp-Session-Id": self.session}
