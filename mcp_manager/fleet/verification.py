"""The comparison of a new configuration's tools with those of the old one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from mcp_manager._core.jsonrpc import ERROR
from mcp_manager.config.redaction import printable
from mcp_manager.errors import ProtocolError, RpcError
from mcp_manager.fleet.argument_schemas import first_difference, what_it_accepts
from mcp_manager.protocol.error_codes import METHOD_NOT_FOUND
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.methods import LIST_TOOLS
from mcp_manager.protocol.request import encode_method
from mcp_manager.protocol.rpc_error import rpc_error
from mcp_manager.results import Tool, drain_pages
from mcp_manager.servers.instance import Instance
from mcp_manager.transports.base import Request

__all__ = ["ToolCheck", "listed_tools", "tool_arguments", "what_is_amiss"]

ToolCheck = Literal["off", "superset", "same"]
"""The tools that a new configuration must have: ``off``: any; ``superset``: all old ones; ``same``: exactly those."""

_LIST_TOOLS_RAW: Final = encode_method(LIST_TOOLS)
_NAMED: Final = 5
_PLACE: Final = 120
_LONGEST_NAME: Final = 200

_schema_decoder: JsonDecoder[Any] = JsonDecoder(Any)


def tool_arguments(tools: Mapping[str, Any]) -> dict[str, str]:
    """Return a canonical JSON text of each tool's input schema, by tool name; see :func:`what_it_accepts`."""
    return {name: json.dumps(what_it_accepts(schema), sort_keys=True) for name, schema in tools.items()}


def what_is_amiss(old: Mapping[str, str], new: Mapping[str, str], check: ToolCheck) -> str:
    """Compare the tools of two configurations; say how the new one breaks ``check``, ``""`` if it does not.

    Parameters
    ----------
    old, new
        What :func:`tool_arguments` returned for each configuration.
    check
        See :data:`ToolCheck`.
    """
    if check == "off":
        return ""
    problems = {
        "lacks": sorted(old.keys() - new.keys()),
        "changes the arguments of": [
            f"{name} (at {first_difference(json.loads(old[name]), json.loads(new[name]))[:_PLACE]})"
            for name in sorted(old.keys() & new.keys())
            if old[name] != new[name]
        ],
    }
    if check == "same":
        problems["adds"] = sorted(new.keys() - old.keys())
    return ", and ".join(f"{what} {_listed(names)}" for what, names in problems.items() if names)


async def listed_tools(instance: Instance, deadline_ns: int) -> dict[str, str]:
    """Return :func:`tool_arguments` of one instance's tools, from all pages; empty for a server without tools.

    Parameters
    ----------
    instance
        The instance to ask.
    deadline_ns
        When all pages must have arrived, in monotonic nanoseconds.

    Raises
    ------
    CallError, RpcError
        It did not list its tools, or a schema is malformed.
    """
    server_id = instance.template.server_id

    async def page(cursor: str | None) -> bytes | memoryview:
        params = None if cursor is None else msgspec.json.encode({"cursor": cursor})
        reply = await instance.call(Request(_LIST_TOOLS_RAW, params), deadline_ns)
        if reply.kind == ERROR:
            raise rpc_error(server_id, reply.error or b"", instance.template.secrets)
        return reply.result_buffer or b"null"

    try:
        tools = await drain_pages(server_id, "tools", Tool, page, instance.template.knowledge.faults.count)
    except RpcError as error:
        if error.code == METHOD_NOT_FOUND:
            return {}
        raise
    try:
        return tool_arguments({tool.name: _schema_decoder.decode(tool.input_schema_json) for tool in tools})
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(
            f"a tool's schema is malformed: {error}", server_id=server_id, delivery="answered"
        ) from None


def _listed(names: list[str]) -> str:
    # The names come from the server, so control characters are replaced.
    shown = ", ".join(printable(name[:_LONGEST_NAME]) for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
