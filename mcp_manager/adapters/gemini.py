"""Tools for Google's Gemini API, as ``google-genai`` takes them.

::

    contents.append(response.candidates[0].content)
    contents.extend(await gemini.answers(toolset, response))
"""

from __future__ import annotations

import base64
from typing import Any

from mcp_manager.adapters.answers import ToolAnswer, text_of_block
from mcp_manager.adapters.gemini_schema import json_schema_subset, openapi_schema
from mcp_manager.adapters.media import PDF, media_of, pdf_of
from mcp_manager.adapters.tool_calls import ToolCall, answer_all, as_list, check_reply, member
from mcp_manager.adapters.toolset import Toolset, as_toolset
from mcp_manager.results import ContentBlock

__all__ = ["answers", "answers_blocking", "definitions"]


def definitions(toolset: Toolset, *, openapi: bool = False) -> list[Any]:
    """Return the tools as ``tools`` of a ``GenerateContentConfig``.

    Parameters
    ----------
    toolset
        The tools.
    openapi
        Write the schemas in the older form, ``parameters``: a part of OpenAPI, without references. By default, they are
        JSON Schema (``parameters_json_schema``), without the keywords that the API does not know.
    """
    declarations = []
    as_toolset(toolset)
    for name, each in zip(_names_of(toolset), toolset.definitions, strict=True):
        declaration: dict[str, Any] = {"name": name, "description": each.description}
        if not openapi:
            declaration["parameters_json_schema"] = json_schema_subset(each.parameters)
        elif each.parameters["properties"]:
            # The older form has no object without properties.
            declaration["parameters"] = openapi_schema(each.parameters)
        declarations.append(declaration)
    return [{"function_declarations": declarations}] if declarations else []


async def answers(toolset: Toolset, response: object, *, media: bool = True, leave_unknown: bool = False) -> list[Any]:
    """Make the function calls of a response, all at once, and return the contents to append: one, or none without a call.

    It has the role ``user`` and a ``function_response`` for each call, in the order of the calls: ``{"output": …}``, or
    ``{"error": …}`` if the tool failed. Images, sound and PDF files are ``parts`` of it.

    Parameters
    ----------
    toolset
        The tools that the model was offered.
    response
        A ``GenerateContentResponse``, or its ``Content``; objects of the package or plain data.
    media
        Whether the model takes images, sound and PDF files in function responses, as Gemini 3 does; else it gets a note
        that there were some.
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
    check_reply(response, "gemini")
    as_toolset(toolset)
    own = dict(zip(_names_of(toolset), (each.name for each in toolset), strict=True))
    said = _calls_of(response)
    calls = [each._replace(name=own.get(each.name, each.name)) for each in said]
    answered = await answer_all(toolset, calls, leave_unknown=leave_unknown)
    shown = {name: each for each, name in own.items()}
    parts = [_part_of(call._replace(name=shown.get(call.name, call.name)), answer, media) for call, answer in answered]
    return [{"role": "user", "parts": parts}] if parts else []


def answers_blocking(
    toolset: Toolset, response: object, *, media: bool = True, leave_unknown: bool = False
) -> list[Any]:
    """Make the function calls of a response from a thread, with a :class:`PyMcpManager`; see :func:`answers`."""
    return as_toolset(toolset).run_blocking(answers(toolset, response, media=media, leave_unknown=leave_unknown))


def _names_of(toolset: Toolset) -> list[str]:
    """Return the names of the tools for Gemini, where a name begins with a letter or underscore."""
    taken = {each.name for each in toolset}
    names = []
    for each in toolset:
        name = each.name
        while not (name[0].isalpha() or name[0] == "_") or (name != each.name and name in taken):
            name = f"_{name}"
        taken.add(name)
        names.append(name)
    return names


def _calls_of(response: object) -> list[ToolCall]:
    candidates = as_list(member(response, "candidates"))
    content = member(candidates[0], "content") if candidates else response
    return [
        ToolCall(member(call, "id"), member(call, "name") or "", member(call, "args"))
        for part in as_list(member(content, "parts"))
        if (call := member(part, "function_call", "functionCall")) is not None
    ]


def _part_of(call: ToolCall, answer: ToolAnswer, media: bool) -> dict[str, Any]:
    blobs = [blob for each in answer.content if (blob := _blob_of(each)) is not None] if media else []
    text = "\n".join(text_of_block(each) for each in answer.content if not media or _blob_of(each) is None)
    function_response: dict[str, Any] = {
        "name": call.name,
        "response": {"error" if answer.is_error else "output": text},
    }
    if call.id is not None:
        function_response["id"] = call.id
    if blobs:
        function_response["parts"] = [{"inline_data": each} for each in blobs]
    return {"function_response": function_response}


def _blob_of(block: ContentBlock) -> dict[str, Any] | None:
    """Return binary data of a block as the package takes it; ``None`` if there is none that the API takes."""
    media, pdf = media_of(block), pdf_of(block)
    if media is not None:
        return {"mime_type": media.mime_type, "data": media.data}
    return None if pdf is None else {"mime_type": PDF, "data": base64.b64decode(pdf.base64)}
