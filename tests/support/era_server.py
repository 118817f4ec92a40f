"""A scripted server for 2026-07-28, the handshake revisions, or both, which refuses incomplete requests."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from support.scripted import Request, ScriptedServer

__all__ = ["HANDSHAKE", "META", "STATELESS", "EraServer", "decoded_header", "refusal"]

STATELESS: Final = "2026-07-28"
HANDSHAKE: Final = "2025-11-25"
META: Final = "io.modelcontextprotocol/"

_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
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
        if HANDSHAKE in self.speaks and _meta(request) is None:
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
        meta = _meta(request)
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
        headers = request.headers
        params = request.params if isinstance(request.params, dict) else {}
        if headers.get("mcp-protocol-version") != meta.get(f"{META}protocolVersion"):
            return f"MCP-Protocol-Version: {headers.get('mcp-protocol-version')}"
        if headers.get("mcp-method") != request.method:
            return f"Mcp-Method: {headers.get('mcp-method')}"
        member = _NAMED.get(request.method or "")
        if member is not None and decoded_header(headers.get("mcp-name")) != params.get(member):
            return f"Mcp-Name: {headers.get('mcp-name')}"
        if request.method == "tools/call" and params.get("name") == "query" and self.token is not None:
            value = params.get("arguments", {}).get("region")
            if decoded_header(headers.get(f"mcp-param-{self.token.lower()}")) != value:
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


def decoded_header(value: str | None) -> str | None:
    """Decode a header value as servers must (2026-07-28, streamable HTTP, value encoding)."""
    if value is None or not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    return base64.b64decode(value[9:-2], validate=True).decode()


def refusal(request_id: object, code: int, data: object = None, message: str = "scripted") -> dict[str, Any]:
    """Make a JSON-RPC error."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def _meta(request: Request) -> dict[str, Any] | None:
    params = request.params
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta if isinstance(meta, dict) and f"{META}protocolVersion" in meta else None


def _result(request: Request, result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request.id, "result": result}
