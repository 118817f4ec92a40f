"""The records of tools and of their results."""

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
    """What a server claims about a tool; do not trust it unless you trust the server.

    Every field is ``None`` if the server does not say.

    Parameters
    ----------
    title
        A name for people.
    read_only_hint
        Whether calls change nothing.
    destructive_hint
        Whether calls may delete or overwrite something.
    idempotent_hint
        Whether a repeated call has no further effect.
    open_world_hint
        Whether the tool deals with the outside world, such as the web.
    """

    title: str | None = None
    read_only_hint: bool | None = None
    destructive_hint: bool | None = None
    idempotent_hint: bool | None = None
    open_world_hint: bool | None = None


class ToolExecution(Record, frozen=True, kw_only=True):
    """How a tool may be called.

    Parameters
    ----------
    task_support
        Whether calls may become tasks: ``forbidden``, ``optional`` or ``required`` (2025-11-25, tasks); or ``None``.
    """

    task_support: str | None = None


class Tool(Record, frozen=True, kw_only=True):
    """One entry of ``tools/list``.

    Parameters
    ----------
    name
        The tool's name.
    title, description
        Texts for people and models, or ``None``.
    input_schema_json, output_schema_json
        The schemas as received. ``input_schema`` and ``output_schema`` decode them on every access, because they are
        the bulk of a long list and seldom needed.
    annotations
        What the server claims about the tool, or ``None``.
    execution
        How the tool may be called, or ``None``.
    icons
        Pictures for a user interface, or ``None``.
    meta
        The entry's ``_meta``, or ``None``.
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
        """Whether the server claims that calls are safe to repeat (read-only or idempotent); the claim may be wrong."""
        hints = self.annotations
        return hints is not None and (hints.read_only_hint is True or hints.idempotent_hint is True)

    @property
    def has_output_schema(self) -> bool:
        """Whether it has an output schema."""
        return self.output_schema_json is not _NO_SCHEMA and bytes(self.output_schema_json) != b"null"

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments; raises :class:`ProtocolError` if it is not an object."""
        return self._schema(self.input_schema_json)

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the structured content, or ``None``; raises :class:`ProtocolError` if it is no object."""
        return self._schema(self.output_schema_json) if self.has_output_schema else None

    def _schema(self, schema: msgspec.Raw) -> dict[str, Any]:
        try:
            return _schema_decoder.decode(schema)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError(f"a schema of tool {self.name!r} is malformed: {error}", delivery="answered") from None


_schema_decoder = JsonDecoder(dict[str, Any])


def promises_of(tools: Iterable[Tool]) -> tuple[list[tuple[str, bool]], list[tuple[str, bytes]]]:
    """Return what a list of tools declares: name and :attr:`Tool.is_repeatable` of each, and name and output schema."""
    repeatable: list[tuple[str, bool]] = []
    schemas: list[tuple[str, bytes]] = []
    for tool in tools:
        repeatable.append((tool.name, tool.is_repeatable))
        if tool.has_output_schema:
            schemas.append((tool.name, bytes(tool.output_schema_json)))
    return repeatable, schemas


class CallToolResult(Result, frozen=True, kw_only=True):
    """The result of a tool call.

    Parameters
    ----------
    content
        The blocks of content.
    structured_content
        The structured result, which the tool's output schema describes; or ``None``.
    is_error
        Whether the tool itself failed; server and call worked.
    result_type
        ``complete`` from 2026-07-28 on, ``None`` before.
    meta
        The result's ``_meta``, or ``None``.
    """

    content: list[ContentBlock] = msgspec.field(default_factory=list)
    structured_content: Any = None
    is_error: bool = False

    @property
    def text(self) -> str:
        """The text blocks of ``content``, joined by newlines."""
        return "\n".join(block.text for block in self.content if isinstance(block, TextContent))
