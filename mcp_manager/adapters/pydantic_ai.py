"""Tools of a fleet for pydantic-ai; needs the package pydantic-ai-slim."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mcp_manager.adapters import definitions
from mcp_manager.adapters.answers import ToolAnswer, text_of_block
from mcp_manager.adapters.frameworks import data_of, metadata_of, not_installed
from mcp_manager.adapters.media import media_of
from mcp_manager.adapters.toolset import Toolset, as_toolset
from mcp_manager.errors import InvalidRequestError, ProtocolError
from mcp_manager.results import ContentBlock
from mcp_manager.verbs.fleet_tools import FleetTool

try:
    from pydantic_ai import BinaryContent, ModelRetry, RunContext, ToolFailed, ToolReturn
    from pydantic_ai.tools import AgentDepsT, ToolDefinition
    from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
    from pydantic_core import SchemaValidator, core_schema
except ImportError as _error:
    raise not_installed(__name__, "pydantic-ai-slim") from _error

__all__ = ["FleetToolset", "ToolsetSource"]

ToolsetSource: TypeAlias = Toolset | Callable[[], Awaitable[Toolset]]
"""A toolset, or an async function that returns the current one, such as ``lambda: select_tools(manager)``."""

# The server checks the arguments.
_ANY_ARGUMENTS = SchemaValidator(core_schema.any_schema())


@dataclass(kw_only=True)
class _OfferedTool(ToolsetTool[AgentDepsT]):
    """A tool, and the toolset that it came from."""

    origin: Toolset


class FleetToolset(AbstractToolset[AgentDepsT]):
    """The tools of a toolset, for ``Agent(…, toolsets=[…])``.

    A tool returns text, or a list with pictures and sounds. The ``metadata`` of its return has the result's
    ``structured_content`` and ``_meta``; the metadata of its definition tells its server and its annotations.
    Cancelling a run cancels its calls.

    Parameters
    ----------
    tools
        See :data:`ToolsetSource`. A function is called before every request to the model, so that tools may come and
        go during a run; the manager keeps the lists of tools, so that this seldom asks a server.
    on_tool_error
        What becomes of a failed call: ``fail`` tells the model what happened (``ToolFailed``); ``retry`` also tells it
        to try again (``ModelRetry``), and ends the run after the allowed number of retries. A call that may have been
        executed is never retried.
    id
        The id of this toolset among those of an agent, which durable execution needs.
    """

    def __init__(
        self, tools: ToolsetSource, *, on_tool_error: Literal["fail", "retry"] = "fail", id: str | None = None
    ) -> None:
        if on_tool_error not in ("fail", "retry"):
            raise InvalidRequestError(f"Invalid on_tool_error {on_tool_error!r}: it must be 'fail' or 'retry'")
        self._tools = tools if callable(tools) else as_toolset(tools)
        self._retries = on_tool_error == "retry"
        self._id = id

    @property
    def id(self) -> str | None:
        """The id of this toolset, or ``None``."""
        return self._id

    async def get_tools(self, ctx: RunContext[AgentDepsT]) -> dict[str, ToolsetTool[AgentDepsT]]:
        """Return the current tools by name."""
        toolset = self._tools if isinstance(self._tools, Toolset) else await self._tools()
        return {
            definition.name: _OfferedTool(
                toolset=self,
                tool_def=_definition_of(definition, tool),
                max_retries=ctx.max_retries,
                args_validator=_ANY_ARGUMENTS,
                origin=toolset,
            )
            for definition, tool in zip(toolset.definitions, toolset.tools, strict=True)
        }

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[AgentDepsT], tool: ToolsetTool[AgentDepsT]
    ) -> Any:
        """Call a tool and return what the model gets."""
        assert isinstance(tool, _OfferedTool)
        answer = await tool.origin.answer(name, tool_args)
        if not answer.is_error:
            return _returned(answer)
        if self._retries and _may_be_retried(answer):
            raise ModelRetry(answer.text) from answer.error
        raise ToolFailed(answer.text) from answer.error


def _may_be_retried(answer: ToolAnswer) -> bool:
    # A result with an error is the tool's own answer: it tells the model what was wrong.
    return answer.error is None or answer.error.delivery in ("not_sent", "rejected")


def _returned(answer: ToolAnswer) -> ToolReturn[Any]:
    parts = list(map(_part_of, answer.content))
    value = answer.text if all(isinstance(each, str) for each in parts) else parts
    return ToolReturn(return_value=value, metadata=data_of(answer))


def _part_of(block: ContentBlock) -> str | BinaryContent:
    media = media_of(block)
    if media is None:
        return text_of_block(block)
    return BinaryContent.narrow_type(BinaryContent(media.data, media_type=media.mime_type))


def _definition_of(definition: definitions.ToolDefinition, tool: FleetTool) -> ToolDefinition:
    try:
        return_schema = tool.tool.output_schema
    except ProtocolError:
        return_schema = None
    return ToolDefinition(
        name=definition.name,
        description=definition.description,
        parameters_json_schema=definition.parameters,
        metadata=metadata_of(tool),
        return_schema=return_schema,
        # include_return_schemas() warns of tools that have none otherwise.
        include_return_schema=None if return_schema else False,
    )
