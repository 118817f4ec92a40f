"""What a new configuration of a server must keep of the old one's tools."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import orjson

from mcp_manager._core.jsonrpc import ERROR
from mcp_manager.catalog import Tool, drain_pages
from mcp_manager.errors import RpcError
from mcp_manager.pool import Instance
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND
from mcp_manager.protocol.methods import LIST_TOOLS
from mcp_manager.protocol.request import encode_method
from mcp_manager.protocol.rpc_error import rpc_error
from mcp_manager.transports.base import Request

__all__ = ["ToolCheck", "digest_of", "listed_tools", "tool_digests", "what_is_amiss"]

ToolCheck = Literal["off", "superset", "same"]
"""What is asked of the tools of a new configuration: nothing, every old one, or exactly the old ones."""

_LIST_TOOLS_RAW: Final = encode_method(LIST_TOOLS)
_NAMED: Final = 5


def tool_digests(tools: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest of each tool's input schema, by the tool's name; the order of the schema's members is none of it."""
    return {
        name: hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).hexdigest()
        for name, schema in tools.items()
    }


def digest_of(digests: Mapping[str, str]) -> str:
    """Return one digest of all tools, whatever the order of their list."""
    return hashlib.sha256(orjson.dumps(dict(digests), option=orjson.OPT_SORT_KEYS)).hexdigest()


def what_is_amiss(old: Mapping[str, str], new: Mapping[str, str], check: ToolCheck) -> str:
    """Compare the tools of two configurations by their digests and say what is wrong with the new one, ``""`` if nothing."""
    if check == "off":
        return ""
    problems = {
        "lacks": sorted(old.keys() - new.keys()),
        "takes other arguments for": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }
    if check == "same" and digest_of(old) != digest_of(new):
        problems["has beside them"] = sorted(new.keys() - old.keys())
    return ", and ".join(f"{what} {_listed(names)}" for what, names in problems.items() if names)


async def listed_tools(instance: Instance, deadline_ns: int) -> dict[str, str]:
    """Ask one instance for its tools, every page, and return their digests; a server without tools has none.

    Raises
    ------
    CallError, RpcError
        It gave no list.
    """
    server_id = instance.settings.server_id

    async def page(cursor: str | None) -> bytes | memoryview:
        params = None if cursor is None else msgspec.json.encode({"cursor": cursor})
        reply = await instance.call(Request(_LIST_TOOLS_RAW, params), deadline_ns)
        if reply.kind == ERROR:
            raise rpc_error(server_id, reply.error or b"", instance.settings.secrets)
        return reply.result_buffer or b"null"

    try:
        tools = await drain_pages(server_id, "tools", Tool, page, instance.settings.count_fault)
    except RpcError as error:
        if error.code == METHOD_NOT_FOUND:
            return {}
        raise
    return tool_digests({tool.name: msgspec.json.decode(tool.input_schema_json) for tool in tools})


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
