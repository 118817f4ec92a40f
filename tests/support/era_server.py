"""A scripted server for 2026-07-28, the handshake revisions, or both, which refuses incomplete requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp_manager.testing.scripted import Request, ScriptedServer
from mcp_manager.testing.scripted.stateless import (
    HANDSHAKE,
    META,
    STATELESS,
    decoded_header,
    header_fault,
    meta_of,
    refusal,
)

__all__ = ["STATE", "EraServer"]

_INPUT: Final = {
    "name": {"method": "elicitation/create", "params": {"mode": "form", "message": "Who?", "requestedSchema": {}}}
}
# With escapes and spaces that decoding and encoding again would change.
STATE: Final = 'a "state" \\u00e9 / \t\u4e16'

Response = tuple[int, dict[str, str], dict[str, Any] | None]


class EraServer(ScriptedServer):
    """Serve one era or both; :attr:`speaks` may change while it runs.

    Its tools: ``echo`` returns its text, ``query`` requires ``region`` in the header ``Mcp-Param-<token>``, ``ask``
    requires an elicitation and its state back, and ``picture`` requires a capability that no client has.

    Parameters
    ----------
    speaks
        The revisions that it speaks.
    token
        The ``x-mcp-header`` of ``query``; ``None`` for no such annotation.
    """

    def __init__(self, *speaks: str, sse: bool = False, token: str | None = "Region") -> None:
        super().__init__(sse=sse)
        self.speaks: tuple[str, ...] = speaks or (STATELESS,)
        self.token = token
        # The answer to `initialize` if the handshake is not spoken: status, code, data.
        self.no_handshake: tuple[int, int, Any] = (400, -32020, None)
        # A session id in every response of the stateless era, as some servers send it.
        self.stray_session: str | None = None

    def answer(self, request: Request) -> Response:
        """Answer in the era of the request."""
        if request.verb != "POST" or not isinstance(request.message, dict):
            return super().answer(request)
        if STATELESS not in self.speaks:
            return super().answer(request)
        if HANDSHAKE in self.speaks and meta_of(request.params) is None:
            return super().answer(request)
        if request.method == "initialize":
            status, code, data = self.no_handshake
            return status, {}, refusal(request.id, code, data)
        status, headers, reply = self._stateless(request)
        if self.stray_session is not None:
            headers = {**headers, "Mcp-Session-Id": self.stray_session}
        return status, headers, reply

    def listed(self) -> list[dict[str, Any]]:
        """Return the result's tools of ``tools/list``."""
        region: dict[str, Any] = {"type": "string"}
        if self.token is not None:
            region["x-mcp-header"] = self.token
        query = {"type": "object", "properties": {"region": region, "text": {"type": "string"}}}
        return [
            {"name": "echo", "inputSchema": {"type": "object"}},
            {"name": "query", "inputSchema": query},
            {"name": "ask", "inputSchema": {"type": "object"}},
        ]

    def _stateless(self, request: Request) -> Response:
        meta = meta_of(request.params)
        fault = self._header_fault(request, meta or {})
        if fault is not None:
            return 400, {}, refusal(request.id, -32020, message=fault)
        if meta is None or f"{META}clientCapabilities" not in meta:
            return 400, {}, refusal(request.id, -32602, message="_meta is incomplete")
        if meta.get(f"{META}protocolVersion") not in self.speaks:
            wanted = meta.get(f"{META}protocolVersion")
            return 400, {}, refusal(request.id, -32022, {"supported": list(self.speaks), "requested": wanted})
        if "id" not in request.message:
            return 202, {}, None
        return self._complete(request, meta)

    def _header_fault(self, request: Request, meta: Mapping[str, Any]) -> str | None:
        fault = header_fault(request, meta)
        if fault is not None:
            return fault
        params = request.params if isinstance(request.params, dict) else {}
        if request.method == "tools/call" and params.get("name") == "query" and self.token is not None:
            value = params.get("arguments", {}).get("region")
            if decoded_header(request.headers.get(f"mcp-param-{self.token.lower()}")) != value:
                return f"Mcp-Param-{self.token}"
        return None

    def _complete(self, request: Request, meta: Mapping[str, Any]) -> Response:
        params = request.params
        result: dict[str, Any]
        match request.method:
            case "server/discover":
                result = {
                    "supportedVersions": list(self.speaks),
                    "capabilities": {"tools": {}},
                    "ttlMs": 0,
                    "cacheScope": "private",
                    "_meta": {f"{META}serverInfo": {"name": "era", "version": "1"}},
                }
            case "tools/list":
                result = {"tools": self.listed(), "ttlMs": 0, "cacheScope": "private"}
            case "tools/call" if params["name"] == "ask":
                return 200, {}, _result(request, self._asked(params))
            case "tools/call" if params["name"] == "picture":
                missing: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
                return 400, {}, refusal(request.id, -32021, missing)
            case "tools/call":
                text = params.get("arguments", {}).get("text", "")
                with self._lock:
                    self.executed.append(text)
                result = {"content": [{"type": "text", "text": text}], "isError": False}
            case _:
                return 404, {}, refusal(request.id, -32601)
        return 200, {}, _result(request, {"resultType": "complete", **result})

    def _asked(self, params: dict[str, Any]) -> dict[str, Any]:
        answers = params.get("inputResponses")
        if answers is None:
            return {"resultType": "input_required", "inputRequests": _INPUT, "requestState": STATE}
        assert params.get("requestState") == STATE
        name = answers["name"]["content"]["name"]
        with self._lock:
            self.executed.append(name)
        return {"resultType": "complete", "content": [{"type": "text", "text": name}], "isError": False}


def _result(request: Request, result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request.id, "result": result}
