"""Tools for Anthropic's Messages API.

::

    messages.append({"role": "assistant", "content": message.content})
    messages.extend(await anthropic_messages.answers(toolset, message))
"""

from __future__ import annotations

from typing import Any

from mcp_manager.adapters.answers import ToolAnswer, text_of_block
from mcp_manager.adapters.media import PDF, media_of, pdf_of
from mcp_manager.adapters.tool_calls import ToolCall, answer_all, as_list, check_reply, member
from mcp_manager.adapters.toolset import Toolset, as_toolset
from mcp_manager.results import ContentBlock

__all__ = ["answers", "answers_blocking", "definitions"]


def definitions(toolset: Toolset) -> list[Any]:
    """Return the tools as ``tools`` of a request."""
    return [
        {"name": each.name, "description": each.description, "input_schema": each.parameters}
        for each in as_toolset(toolset).definitions
    ]


async def answers(toolset: Toolset, message: object, *, leave_unknown: bool = False) -> list[Any]:
    """Make the tool calls of a message, all at once, and return the messages to append: one, or none without a call.

    It has the role ``user`` and a block ``tool_result`` for each call, in the order of the calls, with ``is_error``.
    Images and PDF files are part of it; those of a failed tool are only named, because the API takes only text there.

    Parameters
    ----------
    toolset
        The tools that the model was offered.
    message
        A ``Message``, or its ``content``; objects of the package or plain data.
    leave_unknown
        Leave calls of tools that the set does not have to the application, which adds their blocks to the message; else
        the model is told that there is no such tool.

    Raises
    ------
    NotRunningError, CallError
        As for :meth:`Toolset.answer`.
    TypeError
        It is no reply of this API, or ``toolset`` is no toolset.
    """
    check_reply(message, "anthropic_messages")
    answered = await answer_all(as_toolset(toolset), _calls_of(message), leave_unknown=leave_unknown)
    blocks = [_block_of(call, answer) for call, answer in answered]
    return [{"role": "user", "content": blocks}] if blocks else []


def answers_blocking(toolset: Toolset, message: object, *, leave_unknown: bool = False) -> list[Any]:
    """Make the tool calls of a message from a thread, with a :class:`PyMcpManager`; see :func:`answers`."""
    return as_toolset(toolset).run_blocking(answers(toolset, message, leave_unknown=leave_unknown))


def _calls_of(message: object) -> list[ToolCall]:
    content = message if isinstance(message, list | tuple) else as_list(member(message, "content"))
    return [
        ToolCall(member(each, "id"), member(each, "name") or "", member(each, "input"))
        for each in content
        if member(each, "type") == "tool_use"
    ]


def _block_of(call: ToolCall, answer: ToolAnswer) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": call.id}
    if answer.is_error:
        # The API refuses an error without text, and one with anything else.
        return {**block, "content": [{"type": "text", "text": answer.text}], "is_error": True}
    parts = [part for each in answer.content if (part := _part_of(each)) is not None]
    return {**block, "content": parts}


def _part_of(block: ContentBlock) -> dict[str, Any] | None:
    media, pdf = media_of(block), pdf_of(block)
    if media is not None and media.kind == "image":
        return {"type": "image", "source": _base64(media.mime_type, media.base64)}
    if pdf is not None:
        return {"type": "document", "title": pdf.name, "source": _base64(PDF, pdf.base64)}
    text = text_of_block(block)
    # The API refuses empty text.
    return {"type": "text", "text": text} if text.strip() else None


def _base64(media_type: str, data: str) -> dict[str, str]:
    return {"type": "base64", "media_type": media_type, "data": data}
