"""Tools of a fleet for LangChain and LangGraph; needs the package langchain-core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcp_manager.adapters.answers import ToolAnswer, text_of_block
from mcp_manager.adapters.frameworks import data_of, expandable_schema, metadata_of, not_installed
from mcp_manager.adapters.media import media_of
from mcp_manager.adapters.toolset import Toolset, as_toolset

try:
    from langchain_core.tools import BaseTool, ToolException
    from pydantic import PrivateAttr
except ImportError as _error:
    raise not_installed(__name__, "langchain-core") from _error

__all__ = ["LangChainTool", "tools"]

HandleToolError = bool | str | Callable[[ToolException], str]


class LangChainTool(BaseTool):
    """One tool of a fleet; :func:`tools` makes it."""

    _toolset: Toolset = PrivateAttr()

    # A tool may have an argument of any name, such as self, config or run_manager.
    def _run(self, /, *_: Any, **arguments: Any) -> tuple[Any, Any]:
        return _told(self._toolset.answer_blocking(self.name, arguments))

    async def _arun(self, /, *_: Any, **arguments: Any) -> tuple[Any, Any]:
        return _told(await self._toolset.answer(self.name, arguments))


def tools(toolset: Toolset, *, handle_tool_error: HandleToolError = True) -> list[BaseTool]:
    """Make LangChain tools of a toolset, for ``create_agent``, a ``ToolNode`` or ``bind_tools``.

    A tool returns text, or blocks of content if the result has pictures or sounds. Its artifact has the result's
    ``structured_content`` and ``_meta``, and is ``None`` without either. Its ``metadata`` tells its server and its
    annotations. ``ainvoke`` works with every manager, ``invoke`` with a :class:`PyMcpManager`. Cancelling a run cancels
    its calls.

    Parameters
    ----------
    toolset
        The tools.
    handle_tool_error
        What becomes of a failed call. ``True``: the model is told what happened in a message with ``status="error"``,
        and the run goes on. Text: the model is told this. A function: it is told what the function returns for the
        ``ToolException``. ``False``: the exception is raised.
    """
    return [_tool_of(toolset, number, handle_tool_error) for number in range(len(as_toolset(toolset)))]


def _tool_of(toolset: Toolset, number: int, handle_tool_error: HandleToolError) -> LangChainTool:
    definition = toolset.definitions[number]
    tool = LangChainTool(
        name=definition.name,
        description=definition.description,
        args_schema=expandable_schema(definition.parameters),
        metadata=metadata_of(toolset.tools[number]),
        response_format="content_and_artifact",
        handle_tool_error=handle_tool_error,
    )
    tool._toolset = toolset
    return tool


def _told(answer: ToolAnswer) -> tuple[str | list[dict[str, Any]], dict[str, Any] | None]:
    """Return the content and the artifact of a message."""
    if answer.is_error:
        raise ToolException(answer.text) from answer.error
    blocks = list(map(_block_of, answer.content))
    return answer.text if all(each["type"] == "text" for each in blocks) else blocks, data_of(answer)


def _block_of(block: Any) -> dict[str, Any]:
    media = media_of(block)
    if media is None:
        return {"type": "text", "text": text_of_block(block)}
    # A ToolMessage may contain no block of the type audio.
    kind = "image" if media.kind == "image" else "file"
    return {"type": kind, "base64": media.base64, "mime_type": media.mime_type}
