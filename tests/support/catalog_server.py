"""A scripted server of 2025-11-25 with tools, prompts, resources and templates that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_manager.testing.scripted import Request, ScriptedServer

__all__ = ["CatalogServer", "tool"]

_LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


def tool(name: str, **members: Any) -> dict[str, Any]:
    """Return an entry of ``tools/list``."""
    return {"name": name, "inputSchema": {"type": "object"}, **members}


class CatalogServer(ScriptedServer):
    """Serve lists, page by page, and what is in them; every answer says what was asked for.

    A call with the argument ``result`` is answered by that result.

    Parameters
    ----------
    lists
        The entries of ``tools``, ``prompts``, ``resources`` and ``resourceTemplates``.
    capabilities
        The capabilities that it declares; by default those of the lists that are given.
    instructions
        What it tells models, ``None`` for nothing.
    page_size
        How many entries a page has.
    """

    def __init__(
        self,
        lists: Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        capabilities: Mapping[str, Any] | None = None,
        instructions: str | None = None,
        page_size: int = 1_000,
    ) -> None:
        super().__init__()
        self.lists: dict[str, list[Mapping[str, Any]]] = {name: list(entries) for name, entries in lists.items()}
        kinds = {"tools": {}, "prompts": {}, "resources": {"subscribe": True}}
        self.capabilities = {name: kinds[name] for name in kinds if name in lists}
        if "resourceTemplates" in lists:
            self.capabilities["resources"] = kinds["resources"]
        if capabilities is not None:
            self.capabilities = dict(capabilities)
        self.instructions = instructions
        self.page_size = page_size
        self.info: dict[str, Any] = {"name": "catalog", "version": "7", "title": "A catalogue"}

    def _initialize(self, request: Request) -> tuple[int, dict[str, str], dict[str, Any]]:
        status, fields, reply = super()._initialize(request)
        reply["result"] |= {"capabilities": self.capabilities, "serverInfo": self.info}
        if self.instructions is not None:
            reply["result"]["instructions"] = self.instructions
        return status, fields, reply

    def _result(self, request: Request) -> dict[str, Any]:
        params = request.params if isinstance(request.params, dict) else {}
        member = _LISTS.get(request.method or "")
        if member is not None and member in self.lists:
            start = int(params.get("cursor", "0"))
            entries = self.lists[member][start : start + self.page_size]
            result: dict[str, Any] = {member: entries}
            if start + self.page_size < len(self.lists[member]):
                result["nextCursor"] = str(start + self.page_size)
            return self._reply(request, result)
        match request.method:
            case "tools/call":
                if not any(each["name"] == params["name"] for each in self.lists.get("tools", ())):
                    return self._unknown(request, f"Unknown tool: {params['name']}")
                result = {"content": [{"type": "text", "text": params["name"]}]}
                return self._reply(request, params.get("arguments", {}).get("result", result))
            case "prompts/get":
                if not any(each["name"] == params["name"] for each in self.lists.get("prompts", ())):
                    return self._unknown(request, f"Unknown prompt: {params['name']}")
                return self._reply(request, {"messages": [], "description": params["name"]})
            case "resources/read":
                if not self._has(params["uri"]):
                    return self._unknown(request, f"Resource not found: {params['uri']}")
                return self._reply(request, {"contents": [{"uri": params["uri"], "text": params["uri"]}]})
            case "resources/subscribe" | "resources/unsubscribe" | "logging/setLevel":
                return self._reply(request, {})
            case "completion/complete":
                return self._reply(request, {"completion": {"values": [str(params["ref"])]}})
        return super()._result(request)

    def _has(self, uri: str) -> bool:
        if any(each["uri"] == uri for each in self.lists.get("resources", ())):
            return True
        templates = (each["uriTemplate"] for each in self.lists.get("resourceTemplates", ()))
        return any(uri.startswith(each.partition("{")[0]) for each in templates)

    def _reply(self, request: Request, result: Mapping[str, Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": request.id, "result": dict(result)}

    def _unknown(self, request: Request, message: str) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": request.id, "error": {"code": -32602, "message": message}}
