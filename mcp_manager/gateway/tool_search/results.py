"""The results of the tools that find and describe others: a text for the model, and the same as structured content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from mcp_manager.gateway.tool_search.definitions import definition_in
from mcp_manager.gateway.tool_search.meta_tools import CALL, DESCRIBE, SEARCH
from mcp_manager.gateway.tool_search.tool_index import IndexedTool

__all__ = ["ServerLine", "described", "found", "refused", "servers"]

_MOST_PARAMETERS: Final = 30
_MOST_MISSING: Final = 20
_NOTHING: Final = "There are no tools at present."
_SOURCE: Final = b',"_meta":{"mcp-manager/source":"gateway"}'


class ServerLine(msgspec.Struct, frozen=True):
    """A server as a model is told of it.

    Parameters
    ----------
    name
        Its id.
    description
        What it is for, in one line; "" if it does not say.
    tools
        How many tools of it there are.
    """

    name: str
    description: str
    tools: int

    def __str__(self) -> str:
        said = f": {self.description}" if self.description else ""
        return f"- {self.name} ({_counted(self.tools, 'tool')}){said}"


def found(tools: Sequence[IndexedTool], total: int, missing: Sequence[str]) -> bytes:
    """Return the result of a search.

    Parameters
    ----------
    tools
        What was found, the best first.
    total
        How many tools there are.
    missing
        The servers whose tools are not known at present.
    """
    entries: list[dict[str, Any]] = []
    lines: list[str] = []
    for tool in tools:
        definition = definition_in(tool.raw)
        entries.append(
            {
                "name": tool.name,
                "server": tool.server_id,
                "description": definition.line,
                "parameters": definition.parameters,
                "required": definition.required,
            }
        )
        said = f"\n  {definition.line}" if definition.line else ""
        lines.append(f"{tool.name} (server: {tool.server_id}){said}\n  {_parameters(entries[-1])}")
    if lines:
        lines.insert(0, f"{len(tools)} of {total} tools, the best match first; * marks required parameters.")
        lines.append(f"Call one with {CALL}. For its full definition, use {DESCRIBE}.")
    elif not total:
        lines.append(_NOTHING)
    else:
        lines.append(f"None of the {total} tools matches. Search with other words; an empty query returns the servers.")
    return _result(_with_missing(lines, missing), {"tools": entries, "total": total, **_missing(missing)})


def servers(lines: Sequence[ServerLine], total: int, missing: Sequence[str]) -> bytes:
    """Return the servers as the result of a search without words; parameters as for :func:`found`."""
    text = [_NOTHING]
    if lines:
        counts = f"{_counted(total, 'tool')} on {_counted(len(lines), 'server')}"
        text = [f"{counts}. Search for what a tool does, or for the name of a server.", *map(str, lines)]
    entries = [msgspec.structs.asdict(each) for each in lines]
    return _result(_with_missing(text, missing), {"servers": entries, "total": total, **_missing(missing)})


def described(definitions: Sequence[bytes], unknown: Mapping[str, Sequence[str]], left_out: int) -> bytes:
    """Return definitions of tools, byte for byte.

    Parameters
    ----------
    definitions
        The definitions, as JSON.
    unknown
        The names that no tool has, and for each the tools with names near to it.
    left_out
        How many names were left out, because there were too many.
    """
    lines = [each.decode("utf-8", "replace") for each in definitions]
    lines += [_unknown(name, near) for name, near in unknown.items()]
    if left_out:
        lines.append(f"{left_out} more were left out: describe them with another call.")
    names = [{"name": name, "near": near} for name, near in unknown.items()]
    structured = b'{"tools":[%b],"unknown":%b}' % (b",".join(definitions), msgspec.json.encode(names))
    is_error = b"" if definitions else b',"isError":true' + _SOURCE
    return b'{"content":%b,"structuredContent":%b%b}' % (_content("\n\n".join(lines)), structured, is_error)


def refused(text: str) -> bytes:
    """Return the result of a call that is wrong, so that the model can put it right (2025-11-25, server/tools, errors).

    Its ``_meta`` says that the gateway has made it, so that it is not taken for that of a server.
    """
    return b'{"content":%b,"isError":true%b}' % (_content(text), _SOURCE)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _unknown(name: str, near: Iterable[str]) -> str:
    meant = " or ".join(near)
    return f"Unknown tool: {name}. " + (f"Did you mean {meant}?" if meant else f"Find tools with {SEARCH}.")


def _parameters(entry: Mapping[str, Any]) -> str:
    names, required = entry["parameters"], frozenset(entry["required"])
    if not names:
        return "No parameters"
    shown = [f"{name}*" if name in required else name for name in names[:_MOST_PARAMETERS]]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"Parameters: {', '.join(shown)}{more}"


def _missing(missing: Sequence[str]) -> dict[str, Any]:
    return {"missing": list(missing)} if missing else {}


def _with_missing(lines: list[str], missing: Sequence[str]) -> str:
    if missing:
        more = f" and {len(missing) - _MOST_MISSING} more" if len(missing) > _MOST_MISSING else ""
        lines.append(f"Not available at present: {', '.join(missing[:_MOST_MISSING])}{more}.")
    return "\n".join(lines)


def _result(text: str, structured: dict[str, Any]) -> bytes:
    return b'{"content":%b,"structuredContent":%b}' % (_content(text), msgspec.json.encode(structured))


def _content(text: str) -> bytes:
    return b'[{"type":"text","text":%b}]' % msgspec.json.encode(text)
