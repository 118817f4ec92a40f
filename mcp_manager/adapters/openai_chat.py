"""Tools for OpenAI's Chat Completions API, and for the many servers that speak it.

::

    messages.append(completion.choices[0].message)
    messages.extend(await openai_chat.answers(toolset, completion))
"""

from __future__ import annotations

from typing import Any

from mcp_manager.adapters.answers import ToolAnswer
from mcp_manager.adapters.media import media_of
from mcp_manager.adapters.openai_strict import strict_parameters, without_nulls
from mcp_manager.adapters.tool_calls import ToolCall, answer_all, as_list, check_reply, member
from mcp_manager.adapters.toolset import Toolset, as_toolset

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
    return [{"type": "function", "function": each} for each in functions(toolset, strict=strict)]


def functions(toolset: Toolset, *, strict: bool) -> list[dict[str, Any]]:
    """Return the functions as both APIs of OpenAI describe them."""
    found = []
    for each in as_toolset(toolset).definitions:
        narrowed = strict_parameters(each.parameters) if strict else None
        function = {"name": each.name, "description": each.description}
        found.append(
            {**function, "parameters": narrowed or each.parameters, "strict": narrowed is not None}
            if strict
            else {**function, "parameters": each.parameters}
        )
    return found


async def answers(
    toolset: Toolset, completion: object, *, images: bool = True, leave_unknown: bool = False
) -> list[Any]:
    """Make the tool calls of a reply, all at once, and return the messages to append after the reply's own.

    There is one message with the role ``tool`` for each call, in the order of the calls; none if the model calls no
    tool. These messages hold only text, so one with the role ``user`` follows if a result contains images.

    Parameters
    ----------
    toolset
        The tools that the model was offered.
    completion
        A ``ChatCompletion``, or its message; an object of the package or plain data.
    images
        Whether the model can see images; else it gets a note that there was one.
    leave_unknown
        Leave calls of tools that the set does not have to the application; else the model is told that there is no
        such tool.

    Raises
    ------
    NotRunningError, CallError
        As for :meth:`Toolset.answer`.
    TypeError
        It is no reply of this API, or ``toolset`` is no toolset.
    """
    check_reply(completion, "openai_chat")
    calls = [_with_arguments(as_toolset(toolset), each) for each in _calls_of(completion)]
    answered = await answer_all(toolset, calls, leave_unknown=leave_unknown)
    messages: list[Any] = [
        {"role": "tool", "tool_call_id": call.id, "content": text_of(answer)} for call, answer in answered
    ]
    shown = [part for call, answer in answered for part in _image_parts(call, answer)] if images else []
    return [*messages, {"role": "user", "content": shown}] if shown else messages


def answers_blocking(
    toolset: Toolset, completion: object, *, images: bool = True, leave_unknown: bool = False
) -> list[Any]:
    """Make the tool calls of a reply from a thread, with the tools of a :class:`PyMcpManager`; see :func:`answers`."""
    return as_toolset(toolset).run_blocking(answers(toolset, completion, images=images, leave_unknown=leave_unknown))


def text_of(answer: ToolAnswer) -> str:
    """Return an answer as text, in which an error is marked: the API has no field for it."""
    return f"Error: {answer.text}" if answer.is_error else answer.text


def _calls_of(completion: object) -> list[ToolCall]:
    choices = as_list(member(completion, "choices"))
    message = member(choices[0], "message") if choices else completion
    return [
        ToolCall(member(each, "id"), member(function, "name") or "", member(function, "arguments"))
        for each in as_list(member(message, "tool_calls"))
        # Calls of custom tools, whose input is free text, are none of ours.
        if (function := member(each, "function")) is not None
    ]


def _with_arguments(toolset: Toolset, call: ToolCall) -> ToolCall:
    return call._replace(arguments=without_nulls(call.arguments, toolset.definition(call.name)))


def _image_parts(call: ToolCall, answer: ToolAnswer) -> list[dict[str, Any]]:
    urls = [found.url for each in answer.content if (found := media_of(each)) is not None and found.kind == "image"]
    if not urls:
        return []
    title = {"type": "text", "text": f"What {call.name} (tool call {call.id}) returned:"}
    return [title, *({"type": "image_url", "image_url": {"url": each}} for each in urls)]
