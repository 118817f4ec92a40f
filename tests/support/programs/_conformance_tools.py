"""The tools that the official conformance suite calls, the same for both eras.

What a tool needs of its client it asks through a :class:`Call`: in the handshake era that sends requests, in the
stateless era it ends the call with a result that asks for input, and the tool runs again once the answers are there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

__all__ = ["TOOLS", "Call", "Question", "ToolFailure", "elicitation", "listed_tools", "text"]

Question = tuple[str, dict[str, Any]]
Result = dict[str, Any]

PIXEL: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
SILENCE: Final = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
_PAUSE_S: Final = 0.02


class ToolFailure(Exception):
    """A JSON-RPC error that a tool answers with."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Call(Protocol):
    """One call of a tool or a prompt."""

    arguments: Mapping[str, Any]
    capabilities: Mapping[str, Any]

    async def ask(self, questions: Mapping[str, Question]) -> dict[str, Any]:
        """Ask the client several things at once; return the answers by key."""

    async def report(self, progress: float, total: float) -> None:
        """Report progress, if the client wants to know it."""

    async def log(self, level: str, data: Any) -> None:
        """Send a log message, if the client wants it."""

    async def tell(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification to everybody who listens for it."""

    async def interrupt(self) -> None:
        """Close the response stream, for the client to come back for the rest."""


Tool = Callable[[Call], Awaitable[Result]]


def text(content: str, **members: Any) -> Result:
    """Return a result with one text."""
    return {"content": [{"type": "text", "text": content}], **members}


def elicitation(message: str, properties: dict[str, Any], *required: str) -> Question:
    """Return the question for a form."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return "elicitation/create", {"message": message, "requestedSchema": schema}


def sampling(prompt: str, max_tokens: int = 100) -> Question:
    """Return the question for a text of the client's model."""
    message = {"role": "user", "content": {"type": "text", "text": prompt}}
    return "sampling/createMessage", {"messages": [message], "maxTokens": max_tokens}


ROOTS: Final[Question] = ("roots/list", {})
NAME: Final = elicitation("What is your name?", {"name": {"type": "string"}}, "name")


def _always(result: Result) -> Tool:
    async def tool(call: Call) -> Result:
        return result

    return tool


def _asking(**questions: Question) -> Tool:
    """Return a tool that asks once, and tells what the answers are."""

    async def tool(call: Call) -> Result:
        answers = await call.ask(questions)
        return text(json.dumps(answers))

    return tool


async def _logging(call: Call) -> Result:
    for each in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await call.log("info", each)
        await asyncio.sleep(_PAUSE_S)
    return text("logged")


async def _progress(call: Call) -> Result:
    for done in (0, 50, 100):
        await call.report(done, 100)
        await asyncio.sleep(_PAUSE_S)
    return text("progressed")


async def _reconnection(call: Call) -> Result:
    await call.log("info", "the stream ends")
    await call.interrupt()
    await asyncio.sleep(5 * _PAUSE_S)
    return text("reconnected")


async def _sampling(call: Call) -> Result:
    answers = await call.ask({"sample": sampling(str(call.arguments.get("prompt", "")))})
    return text(f"LLM response: {answers['sample']['content']['text']}")


async def _elicitation(call: Call) -> Result:
    fields = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    question = elicitation(str(call.arguments.get("message", "")), fields, "username", "email")
    answers = await call.ask({"user": question})
    return text(f"User response: {json.dumps(answers['user'])}")


async def _greeting(call: Call) -> Result:
    answers = await call.ask({"user_name": NAME})
    return text(f"Hello, {answers['user_name'].get('content', {}).get('name')}!")


async def _several_rounds(call: Call) -> Result:
    first = elicitation("Step 1: What is your name?", {"name": {"type": "string"}}, "name")
    second = elicitation("Step 2: What is your favorite color?", {"color": {"type": "string"}}, "color")
    answers = [await call.ask({"step1": first}), await call.ask({"step2": second})]
    return text(json.dumps(answers))


async def _as_declared(call: Call) -> Result:
    possible = {"elicitation": NAME, "sampling": sampling("Generate a greeting", 50), "roots": ROOTS}
    questions = {name: each for name, each in possible.items() if name in call.capabilities}
    return text(json.dumps(await call.ask(questions))) if questions else text("The client cannot be asked.")


async def _greet(call: Call) -> Result:
    return text(f"Hello, {call.arguments.get('name', 'nobody')}!")


async def _slow_compute(call: Call) -> Result:
    await asyncio.sleep(float(call.arguments.get("seconds", 0)))
    return text(f"computed {call.arguments.get('label', '')}")


async def _failing_job(call: Call) -> Result:
    await asyncio.sleep(_PAUSE_S)
    return text("the job failed", isError=True)


async def _protocol_error_job(call: Call) -> Result:
    await asyncio.sleep(_PAUSE_S)
    raise ToolFailure(-32603, "the job broke the protocol")


async def _confirm_delete(call: Call) -> Result:
    filename = call.arguments.get("filename", "nothing")
    question = elicitation(f"Delete {filename}?", {"confirm": {"type": "boolean"}}, "confirm")
    answers = await call.ask({"confirm": question})
    return text(f"{filename}: {json.dumps(answers['confirm'])}")


async def _multi_input(call: Call) -> Result:
    second = elicitation("Are you sure?", {"confirm": {"type": "boolean"}}, "confirm")
    return text(json.dumps(await call.ask({"name": NAME, "confirm": second})))


async def _arguments(call: Call) -> Result:
    return text(json.dumps(dict(call.arguments)))


def _telling(method: str) -> Tool:
    async def tool(call: Call) -> Result:
        params = {"uri": call.arguments.get("uri", WATCHED)} if method == "notifications/resources/updated" else {}
        await call.tell(method, params)
        return text(f"told {method}")

    return tool


WATCHED: Final = "test://watched-resource"
_EMBEDDED: Final = {"uri": "test://embedded-resource", "mimeType": "text/plain", "text": "An embedded resource."}
_MIXED: Final = {"uri": "test://mixed-content-resource", "mimeType": "application/json", "text": '{"test":"data"}'}
_IMAGE: Final = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
_DEFAULTS: Final = elicitation(
    "Please check the defaults",
    {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    },
)
_TITLED: Final = [{"const": f"value{n}", "title": f"{name} Option"} for n, name in ((1, "First"), (2, "Second"))]
_OPTIONS: Final = ["option1", "option2", "option3"]
_ENUMS: Final = elicitation(
    "Please choose",
    {
        "untitledSingle": {"type": "string", "enum": _OPTIONS},
        "titledSingle": {"type": "string", "oneOf": _TITLED},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": _OPTIONS}},
        "titledMulti": {"type": "array", "items": {"anyOf": _TITLED}},
    },
)
_SCHEMA_2020_12: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
_WITH_HEADER: Final = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}


def _schema(**properties: str) -> dict[str, Any]:
    named = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": named, **({"required": list(named)} if named else {})}


_NONE: Final = _schema()
_CONFIRM: Final = elicitation("Please confirm", {"ok": {"type": "boolean"}}, "ok")
_CAPITAL: Final = sampling("What is the capital of France?")
_GREETING: Final = sampling("Generate a greeting", 50)

TOOLS: Final[dict[str, tuple[dict[str, Any], Tool]]] = {
    "test_simple_text": (_NONE, _always(text("This is a simple text response for testing."))),
    "test_image_content": (_NONE, _always({"content": [_IMAGE]})),
    "test_audio_content": (
        _NONE,
        _always({"content": [{"type": "audio", "data": SILENCE, "mimeType": "audio/wav"}]}),
    ),
    "test_embedded_resource": (_NONE, _always({"content": [{"type": "resource", "resource": _EMBEDDED}]})),
    "test_multiple_content_types": (
        _NONE,
        _always({"content": [{"type": "text", "text": "Three:"}, _IMAGE, {"type": "resource", "resource": _MIXED}]}),
    ),
    "test_error_handling": (
        _NONE,
        _always(text("This tool intentionally returns an error for testing", isError=True)),
    ),
    "test_tool_with_logging": (_NONE, _logging),
    "test_logging_tool": (_NONE, _logging),
    "test_tool_with_progress": (_NONE, _progress),
    "test_reconnection": (_NONE, _reconnection),
    "test_sampling": (_schema(prompt="string"), _sampling),
    "test_elicitation": (_schema(message="string"), _elicitation),
    "test_elicitation_sep1034_defaults": (_NONE, _asking(defaults=_DEFAULTS)),
    "test_elicitation_sep1330_enums": (_NONE, _asking(enums=_ENUMS)),
    "test_missing_capability": (_NONE, _asking(sample=_CAPITAL)),
    "test_streaming_elicitation": (_NONE, _asking(confirm=_CONFIRM)),
    "test_trigger_tool_change": (_NONE, _telling("notifications/tools/list_changed")),
    "test_trigger_prompt_change": (_NONE, _telling("notifications/prompts/list_changed")),
    "test_trigger_resource_change": (_NONE, _telling("notifications/resources/list_changed")),
    "test_trigger_resource_update": (_NONE, _telling("notifications/resources/updated")),
    "test_input_required_result_elicitation": (_NONE, _greeting),
    "test_input_required_result_sampling": (_NONE, _asking(capital_question=_CAPITAL)),
    "test_input_required_result_list_roots": (_NONE, _asking(client_roots=ROOTS)),
    "test_input_required_result_request_state": (_NONE, _asking(confirm=_CONFIRM)),
    "test_input_required_result_multiple_inputs": (
        _NONE,
        _asking(user_name=NAME, greeting=_GREETING, client_roots=ROOTS),
    ),
    "test_input_required_result_multi_round": (_NONE, _several_rounds),
    "test_input_required_result_tampered_state": (_NONE, _asking(confirm=_CONFIRM)),
    "test_input_required_result_capabilities": (_NONE, _as_declared),
    "test_x_mcp_header": (_WITH_HEADER, _arguments),
    "json_schema_2020_12_tool": (_SCHEMA_2020_12, _arguments),
    "greet": (_schema(name="string"), _greet),
    "slow_compute": (_schema(seconds="number", label="string"), _slow_compute),
    "failing_job": (_NONE, _failing_job),
    "protocol_error_job": (_NONE, _protocol_error_job),
    "confirm_delete": (_schema(filename="string"), _confirm_delete),
    "multi_input": (_NONE, _multi_input),
    "test_tool_with_task": (_NONE, _greeting),
}


def listed_tools() -> list[dict[str, Any]]:
    """Return the tools as ``tools/list`` does."""
    return [
        {"name": name, "description": f"The tool {name} of the conformance suite.", "inputSchema": schema}
        for name, (schema, _) in TOOLS.items()
    ]
