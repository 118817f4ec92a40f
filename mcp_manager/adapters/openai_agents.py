"""Tools of a fleet for the OpenAI Agents SDK; needs the package openai-agents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from mcp_manager.adapters.answers import ToolAnswer, text_of_block
from mcp_manager.adapters.definitions import ToolDefinition
from mcp_manager.adapters.frameworks import not_installed, usable_schema
from mcp_manager.adapters.media import media_of
from mcp_manager.adapters.toolset import Toolset
from mcp_manager.results import ContentBlock
from mcp_manager.verbs.fleet_tools import FleetTool

try:
    from agents import FunctionTool, Tool, ToolOutputImage, ToolOutputText
    from agents.tool_context import ToolContext
    from agents.tracing import get_current_span
except ImportError as error:
    raise not_installed(__name__, "openai-agents") from error

__all__ = ["tools"]


def tools(toolset: Toolset, *, needs_approval: bool | Callable[[FleetTool], bool] = False) -> list[Tool]:
    """Make tools for the OpenAI Agents SDK of a toolset, for ``Agent(…, tools=[…])``.

    A tool returns text, and pictures as such. A failed call tells the model what happened, and marks the span of the
    call in the trace as failed. Cancelling a run cancels its calls. The schemas are those of the servers, not in strict
    mode, which would make every optional argument required.

    Parameters
    ----------
    toolset
        The tools.
    needs_approval
        Whether a run is interrupted until someone approves the call; or a function that tells it of each tool, for
        instance by its annotations.
    """
    return [
        _tool_of(toolset, definition, needs_approval if isinstance(needs_approval, bool) else needs_approval(tool))
        for definition, tool in zip(toolset.definitions, toolset.tools, strict=True)
    ]


def _tool_of(toolset: Toolset, definition: ToolDefinition, needs_approval: bool) -> FunctionTool:
    return FunctionTool(
        name=definition.name,
        description=definition.description,
        params_json_schema=copy.deepcopy(usable_schema(definition.parameters)),
        on_invoke_tool=partial(_invoke, toolset, definition.name),
        strict_json_schema=False,
        needs_approval=needs_approval,
    )


async def _invoke(toolset: Toolset, name: str, context: ToolContext[Any], arguments: str) -> Any:
    answer = await toolset.answer(name, arguments)
    if answer.is_error:
        _mark_span(context, name, answer)
        return answer.text
    parts = list(map(_part_of, answer.content))
    return answer.text if all(isinstance(each, ToolOutputText) for each in parts) else parts


def _part_of(block: ContentBlock) -> ToolOutputText | ToolOutputImage:
    media = media_of(block)
    if media is None or media.kind != "image":
        return ToolOutputText(text=text_of_block(block))
    return ToolOutputImage(image_url=media.url)


def _mark_span(context: ToolContext[Any], name: str, answer: ToolAnswer) -> None:
    span = get_current_span()
    if span is None:
        return
    config = context.run_config
    may_tell = config is None or config.trace_include_sensitive_data
    data = {"tool_name": name, "error": answer.text} if may_tell else {"tool_name": name}
    span.set_error({"message": "Error running tool (non-fatal)", "data": data})
