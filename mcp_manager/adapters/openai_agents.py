"""Tools of a fleet for the OpenAI Agents SDK; needs the package openai-agents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from mcp_manager.adapters.answers import ToolAnswer, text_of_block
from mcp_manager.adapters.definitions import ToolDefinition
from mcp_manager.adapters.frameworks import not_installed
from mcp_manager.adapters.media import media_of
from mcp_manager.adapters.openai_strict import strict_parameters, without_nulls
from mcp_manager.adapters.toolset import Toolset, as_toolset
from mcp_manager.results import ContentBlock
from mcp_manager.verbs.fleet_tools import FleetTool

try:
    from agents import FunctionTool, Tool, ToolOutputImage, ToolOutputText
    from agents.tool_context import ToolContext
    from agents.tracing import get_current_span
except ImportError as _error:
    raise not_installed(__name__, "openai-agents") from _error

__all__ = ["tools"]


def tools(
    toolset: Toolset, *, strict: bool = False, needs_approval: bool | Callable[[FleetTool], bool] = False
) -> list[Tool]:
    """Make tools for the OpenAI Agents SDK of a toolset, for ``Agent(…, tools=[…])``.

    A tool returns text, and pictures as such. A failed call tells the model what happened, and marks the span of the
    call in the trace as failed. Cancelling a run cancels its calls.

    Parameters
    ----------
    toolset
        The tools.
    strict
        Have OpenAI hold the model to the schemas. A tool whose schema has no strict form is offered without it.
    needs_approval
        Whether a run is interrupted until someone approves the call; or a function that tells it of each tool, for
        instance by its annotations.
    """
    return [
        _tool_of(
            toolset,
            definition,
            strict_parameters(definition.parameters) if strict else None,
            needs_approval if isinstance(needs_approval, bool) else needs_approval(tool),
        )
        for definition, tool in zip(as_toolset(toolset).definitions, toolset.tools, strict=True)
    ]


def _tool_of(
    toolset: Toolset, definition: ToolDefinition, strict_form: dict[str, Any] | None, needs_approval: bool
) -> FunctionTool:
    is_strict = strict_form is not None
    return FunctionTool(
        name=definition.name,
        description=definition.description,
        params_json_schema=strict_form or copy.deepcopy(definition.parameters),
        on_invoke_tool=partial(_invoke, toolset, definition, is_strict),
        strict_json_schema=is_strict,
        needs_approval=needs_approval,
    )


async def _invoke(
    toolset: Toolset, definition: ToolDefinition, is_strict: bool, context: ToolContext[Any], arguments: str
) -> Any:
    given = without_nulls(arguments, definition) if is_strict else arguments
    answer = await toolset.answer(definition.name, given)
    if answer.is_error:
        _mark_span(context, definition.name, answer)
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
