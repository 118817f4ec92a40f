"""The records of tools and of their results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, Self

import msgspec

from mcp_manager.errors import ProtocolError, ToolError
from mcp_manager.protocol.answer_hints import hint_for
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.results.content import ContentBlock, TextContent
from mcp_manager.results.record import Icon, Record, Result
from mcp_manager.results.targets import Target, target_of
from mcp_manager.results.tool_data import data_in

if TYPE_CHECKING:
    # Type checkers have it at hand; with the default, CallToolResult alone means CallToolResult[Any].
    from typing_extensions import TypeVar

    DataT = TypeVar("DataT", default=Any)
else:
    from typing import TypeVar

    DataT = TypeVar("DataT")

__all__ = ["CallToolResult", "Tool", "ToolAnnotations", "ToolCall", "ToolExecution", "promises_of"]

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

    task_support: Literal["forbidden", "optional", "required"] | None = None


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


class ToolCall(NamedTuple):
    """What the result of a tool call does not say itself.

    ``failure`` is the text of a failed tool, with credentials masked; ``into`` the type that the caller wants, ``None``
    for any; ``is_wrapped`` whether the tool's output schema says that its data is wrapped into an object.
    """

    server_id: str | None = None
    tool: str | None = None
    failure: str | None = None
    into: Any = None
    is_wrapped: bool = False


_UNTOLD: Final = ToolCall()
_CALL: Final = "_call"
_DATA: Final = "_data"
_LONGEST_FAILURE: Final = 16_384


class CallToolResult(Result, Generic[DataT], frozen=True, kw_only=True):
    """The result of a tool call.

    ``CallToolResult[T]`` has ``data`` of type ``T``: that of ``call_tool(..., into=T)``.

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

    @property
    def data(self) -> DataT:
        """What the tool returned, as Python data: of the type that the call was given as ``into``, else of any.

        It is the structured content. Servers of FastMCP wrap what is no object as ``{"result": …}`` and mark that; then
        it is the inner value. Without structured content, it is the text of the only block: decoded if it is a JSON
        object or array (with ``into``: any JSON that fits), else as it is. ``None`` if there is nothing of these.

        Raises
        ------
        ToolError
            The tool failed (``is_error``).
        ProtocolError
            The text is JSON that is too large to decode.
        """
        known: dict[str, Any] = self.__dict__
        if _DATA not in known:
            self.raise_for_error()
            into = self._call.into
            known[_DATA] = self._read(None if into is None else target_of(into))
        data: DataT = known[_DATA]
        return data

    def raise_for_error(self) -> Self:
        """Return the result itself, for chaining; raise :class:`ToolError` if the tool failed (``is_error``)."""
        if not self.is_error:
            return self
        call = self._call
        text = (self.text if call.failure is None else call.failure)[:_LONGEST_FAILURE]
        error = ToolError(text or "it gave no text", server_id=call.server_id, hint=hint_for(text))
        error.tool, error.result = call.tool, self
        try:
            raise error
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del error

    @property
    def _call(self) -> ToolCall:
        call: ToolCall = self.__dict__.get(_CALL, _UNTOLD)
        return call

    def _came_of(self, call: ToolCall, target: Target | None) -> None:
        """Remember the call, and decode the data if a type is wanted; raises as :attr:`data`, and ``Misfit``."""
        self.__dict__[_CALL] = call
        if target is not None and not self.is_error:
            self.__dict__[_DATA] = self._read(target)

    def _read(self, target: Target | None) -> Any:
        block = self.content[0] if len(self.content) == 1 else None
        mark = (self.meta or {}).get("fastmcp")
        return data_in(
            self.structured_content,
            block.text if isinstance(block, TextContent) else None,
            target,
            is_wrapped=self._call.is_wrapped or (isinstance(mark, dict) and mark.get("wrap_result") is True),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        made = super().__reduce__()
        call = self.__dict__.get(_CALL)
        # The data is decoded again on its next use.
        return made if call is None else (*made, {_CALL: call})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
