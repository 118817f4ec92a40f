"""Tools for OpenAI's Responses API.

::

    items.extend(response.output)
    items.extend(await openai_responses.answers(toolset, response))
"""

from __future__ import annotations

from typing import Any

from mcp_manager.adapters.answers import ToolAnswer, text_of_block
from mcp_manager.adapters.media import PDF, media_of, pdf_of
from mcp_manager.adapters.openai_chat import functions, text_of
from mcp_manager.adapters.openai_strict import without_nulls
from mcp_manager.adapters.tool_calls import ToolCall, answer_all, as_list, check_reply, member
from mcp_manager.adapters.toolset import Toolset, as_toolset
from mcp_manager.results import ContentBlock

__all__ = ["answers", "answers_blocking", "definitions"]


def definitions(toolset: Toolset, *, strict: bool = False) -> list[Any]:
    """Return the tools as ``tools`` of a request.

    Parameters
    ----------
    toolset
        The tools.
    strict
        Have OpenAI hold the model to the schemas. A tool whose schema has no strict form is offered without it.
    """
    # The API's own default is strict, which refuses most schemas.
    return [{"type": "function", "strict": False, **each} for each in functions(toolset, strict=strict)]


async def answers(toolset: Toolset, response: object, *, leave_unknown: bool = False) -> list[Any]:
    """Make the function calls of a response, all at once, and return the items to append to the input.

    There is one ``function_call_output`` for each call, in the order of the calls; none if the model calls no function.
    Images and PDF files are part of it.

    Parameters
    ----------
    toolset
        The tools that the model was offered.
    response
        A ``Response``, or its ``output``; objects of the package or plain data.
    leave_unknown
        Leave calls of functions that the set does not have to the application; else the model is told that there is no
        such tool.

    Raises
    ------
    NotRunningError, CallError
        As for :meth:`Toolset.answer`.
    TypeError
        It is no reply of this API, or ``toolset`` is no toolset.
    """
    check_reply(response, "openai_responses")
    answered = await answer_all(toolset, _calls_of(as_toolset(toolset), response), leave_unknown=leave_unknown)
    return [
        {"type": "function_call_output", "call_id": call.id, "output": _output_of(answer)} for call, answer in answered
    ]


def answers_blocking(toolset: Toolset, response: object, *, leave_unknown: bool = False) -> list[Any]:
    """Make the function calls of a response from a thread, with a :class:`PyMcpManager`; see :func:`answers`."""
    return as_toolset(toolset).run_blocking(answers(toolset, response, leave_unknown=leave_unknown))


def _calls_of(toolset: Toolset, response: object) -> list[ToolCall]:
    output = response if isinstance(response, list | tuple) else as_list(member(response, "output"))
    found = []
    for each in output:
        if member(each, "type") == "function_call":
            name = member(each, "name") or ""
            arguments = without_nulls(member(each, "arguments"), toolset.definition(name))
            found.append(ToolCall(member(each, "call_id"), name, arguments))
    return found


def _output_of(answer: ToolAnswer) -> str | list[dict[str, Any]]:
    parts = [_part_of(each) for each in answer.content]
    if all(each["type"] == "input_text" for each in parts):
        return text_of(answer)
    return [{"type": "input_text", "text": "Error:"}, *parts] if answer.is_error else parts


def _part_of(block: ContentBlock) -> dict[str, Any]:
    media, pdf = media_of(block), pdf_of(block)
    if media is not None and media.kind == "image":
        return {"type": "input_image", "image_url": media.url, "detail": "auto"}
    if pdf is not None:
        return {"type": "input_file", "filename": pdf.name, "file_data": f"data:{PDF};base64,{pdf.base64}"}
    return {"type": "input_text", "text": text_of_block(block)}
