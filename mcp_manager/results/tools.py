"""Tools: what there is to call, and what a call returned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from mcp_manager.errors import ProtocolError
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.results.content import ContentBlock, TextContent
from mcp_manager.results.record import Icon, Record, Result

__all__ = ["CallToolResult", "Tool", "ToolAnnotations", "ToolExecution", "promises_of"]


_NO_SCHEMA: Final = msgspec.Raw(b"null")


class ToolAnnotations(Record, frozen=True, kw_only=True):
    """What the server claims of a tool: not to be trusted unless the server is. ``None`` where it says nothing."""

    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class ToolExecution(Record, frozen=True, kw_only=True):
    """How a tool is called: ``task_support`` is ``forbidden``, ``optional`` or ``required`` (2025-11-25, tasks)."""

    task_support: str | None = None


class Tool(Record, frozen=True, kw_only=True):
    """One entry of ``tools/list``.

    The schemas are most of a long list and seldom looked at: they are kept as received, and decoded on every access.
    """

    name: str
    title: str | None = None
    description: str | None = None
    input_schema_json: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"{}"), name="inputSchema")
    output_schema_json: msgspec.Raw = msgspec.field(default=_NO_SCHEMA, name="outputSchema")
    annotations: ToolAnnotations | None = None
    execution: ToolExecution | None = None
    icons: list[Icon] | None = None
    meta: dict[str, Any] | None = msgspec.field(default=None, name="_meta")

    @property
    def is_repeatable(self) -> bool:
        """Whether it says that calling it twice does no more than calling it once; a hint, which may be wrong."""
        hints = self.annotations
        return hints is not None and (hints.read_only_hint is True or hints.idempotent_hint is True)

    @property
    def has_output_schema(self) -> bool:
        """Whether it says what its structured content is like."""
        return self.output_schema_json is not _NO_SCHEMA and bytes(self.output_schema_json) != b"null"

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments; raises :class:`ProtocolError` if it is no object."""
        return self._schema(self.input_schema_json)

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the structured content, if there is one; raises :class:`ProtocolError` if it is no object."""
        return self._schema(self.output_schema_json) if self.has_output_schema else None

    def _schema(self, schema: msgspec.Raw) -> dict[str, Any]:
        try:
            return _schema_decoder.decode(schema)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError(f"a schema of tool {self.name!r} is malformed: {error}", delivery="answered") from None


_schema_decoder = JsonDecoder(dict[str, Any])


def promises_of(tools: Iterable[Tool]) -> tuple[list[tuple[str, bool]], list[tuple[str, bytes]]]:
    """Return what tools say of themselves: whether each is repeatable, and the output schemas of those that have one."""
    repeatable: list[tuple[str, bool]] = []
    schemas: list[tuple[str, bytes]] = []
    for tool in tools:
        repeatable.append((tool.name, tool.is_repeatable))
        if tool.has_output_schema:
            schemas.append((tool.name, bytes(tool.output_schema_json)))
    return repeatable, schemas


class CallToolResult(Result, frozen=True, kw_only=True):
    """What a tool returned. ``is_error`` is the tool's own failure; the server and the call were fine."""

    content: list[ContentBlock] = msgspec.field(default_factory=list)
    structured_content: Any = None
    is_error: bool = False

    @property
    def text(self) -> str:
        """The text blocks of ``content``, joined by newlines."""
        return "\n".join(block.text for block in self.content if isinstance(block, TextContent))
