"""The arguments of one server's tools that are also sent as header fields (2026-07-28, streamable HTTP)."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.parameter_headers import (
    ANNOTATION,
    InvalidAnnotation,
    MirroredParameter,
    mirrored_parameters,
    parameter_fields,
)
from mcp_manager.session.knowledge.peer_faults import PeerFaults

__all__ = ["MirroredTools"]

_ANNOTATION: bytes = ANNOTATION.encode()


class _Tool(msgspec.Struct, rename="camel"):
    name: str
    input_schema: msgspec.Raw = msgspec.Raw(b"{}")


class _Call(msgspec.Struct):
    name: str
    arguments: Any = None


class _Named(msgspec.Struct):
    name: str


_page_decoder = JsonDecoder(dict[str, msgspec.Raw])
_tools_decoder = JsonDecoder(list[msgspec.Raw])
_tool_decoder = JsonDecoder(_Tool)
_schema_decoder: JsonDecoder[Any] = JsonDecoder(Any)
_call_decoder = msgspec.json.Decoder(_Call)
_named_decoder = msgspec.json.Decoder(_Named)


class MirroredTools:
    """Learn from ``tools/list`` which arguments to mirror, and render them as header fields.

    Parameters
    ----------
    faults
        Counts tools that are left out because their annotations are invalid.

    Attributes
    ----------
    parameters
        The mirrored parameters, by tool. Read only.
    """

    __slots__ = ("_faults", "parameters")

    def __init__(self, faults: PeerFaults) -> None:
        self._faults = faults
        self.parameters: dict[str, tuple[MirroredParameter, ...]] = {}

    @property
    def any(self) -> bool:
        """Whether any tool has mirrored arguments."""
        return bool(self.parameters)

    def fields(self, params: bytes | None) -> bytes:
        """Render the header fields for the params of a ``tools/call``."""
        if not self.parameters:
            return b""
        try:
            parameters = self.parameters.get(_named_decoder.decode(params or b"{}").name)
            if parameters is None:
                return b""
            return parameter_fields(parameters, _call_decoder.decode(params or b"{}").arguments)
        except (msgspec.DecodeError, RecursionError):
            # The server will refuse such a call for its body.
            return b""

    def learn(self, result: bytes) -> bytes | None:
        """Learn from a page of ``tools/list``; return it without its invalid tools, ``None`` if none is invalid.

        A tool that breaks the rules for ``x-mcp-header`` must not be used (streamable HTTP, schema extension).
        """
        try:
            page = _page_decoder.decode(result)
            tools = _tools_decoder.decode(page["tools"])
        except (msgspec.DecodeError, RecursionError, KeyError):
            # Decoding the list for the caller reports what is wrong with it.
            return None
        kept = [tool for tool in tools if self._take(tool)]
        if len(kept) == len(tools):
            return None
        page["tools"] = msgspec.Raw(msgspec.json.encode(kept))
        return msgspec.json.encode(page)

    def _take(self, raw: msgspec.Raw) -> bool:
        """Learn one tool; tell whether it may be used."""
        try:
            tool = _tool_decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return True
        self.parameters.pop(tool.name, None)
        schema = bytes(tool.input_schema)
        if _ANNOTATION not in schema and b"\\u" not in schema:
            return True
        try:
            parameters = mirrored_parameters(_schema_decoder.decode(schema))
        except InvalidAnnotation as error:
            self._faults.count("a tool with invalid header annotations", f"{tool.name[:80]!r}: {error}")
            return False
        except (msgspec.DecodeError, RecursionError):
            return True
        if parameters:
            self.parameters[tool.name] = parameters
        return True
