"""What a program does on its pipes to play a fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from mcp_manager.testing.faults import connections, dialogues, endings, messages, responses
from mcp_manager.testing.scripted import Fault
from mcp_manager.testing.scripted.stateless import meta_of

__all__ = ["Instruction", "instructions_for", "is_played_by_programs"]

Instruction = dict[str, Any]
"""One step of the program: ``write`` (a message), ``raw`` (text), ``sleep`` (seconds, ``null`` for ever), ``exit`` (code),
``stderr`` (bytes), ``close_stdout``, or ``ignore_sigterm``."""

_NEVER: Final[Instruction] = {"sleep": None}

_PLAYED: Final = (
    endings.Reset,
    endings.Stall,
    endings.TruncateStream,
    endings.AcceptedWithoutAnswer,
    dialogues.InputRequired,
    dialogues.ListChangedStorm,
    connections.Answer,
    connections.Close,
    messages.Result,
    messages.TruncatedJson,
    messages.WrongId,
    messages.StringId,
    messages.DuplicateReply,
    messages.RpcErrorReply,
    responses.Oversize,
)


def is_played_by_programs(fault: Fault) -> bool:
    """Tell whether a fault exists for a program."""
    return isinstance(fault, _PLAYED)


def instructions_for(
    fault: Fault, message: dict[str, Any], reply: Callable[[], dict[str, Any]], questions: dict[Any, dict[str, Any]]
) -> list[Instruction]:
    """Return the steps that play a fault.

    Parameters
    ----------
    fault
        The fault.
    message
        The request of the client.
    reply
        Executes the request, and returns the proper reply.
    questions
        The requests that wait for an answer of the client, by the id of the question.
    """
    envelope: dict[str, Any] = {"jsonrpc": "2.0", "id": message.get("id")}
    match fault:
        case endings.Reset() | endings.Stall() | endings.TruncateStream():
            return _ending(fault, reply)
        case connections.Close():
            return [{"close_stdout": True}]
        case endings.AcceptedWithoutAnswer():
            reply()
            return []
        case messages.WrongId():
            return [{"write": {**reply(), "id": 987_654_321}}]
        case messages.StringId():
            return [{"write": {**reply(), "id": str(message.get("id"))}}]
        case messages.DuplicateReply():
            proper = reply()
            return [{"write": proper}, {"write": {**proper, "result": {"second": True}}}]
        case messages.TruncatedJson():
            text = json.dumps(reply())
            return [{"raw": text[: len(text) // 2] + "\n"}]
        case messages.Result():
            return [{"write": {**envelope, "result": fault.result}}]
        case messages.RpcErrorReply():
            return [{"write": {**envelope, "error": {"code": fault.code, "message": fault.message}}}]
        case responses.Oversize():
            content = [{"type": "text", "text": "x" * fault.size}]
            return [{"write": {**envelope, "result": {"content": content}}}]
        case dialogues.InputRequired() if meta_of(message.get("params")) is not None:
            return [{"write": {**envelope, "result": fault.result()}}]
        case dialogues.InputRequired():
            question_id = f"question-{len(questions) + 1}-of-{message.get('id')}"
            questions[question_id] = message
            return [{"write": {"jsonrpc": "2.0", "id": question_id, **fault.question}}]
        case dialogues.ListChangedStorm():
            storm: list[Instruction] = []
            for _ in range(fault.count):
                storm += [{"write": fault.notification}, {"sleep": 1 / fault.rate}]
            return [*storm, {"write": reply()}]
    return [{"write": reply()}]


def _ending(
    fault: endings.Reset | endings.Stall | endings.TruncateStream, reply: Callable[[], dict[str, Any]]
) -> list[Instruction]:
    """Return the steps up to the fault's point, the fault, and what follows it."""
    after = "half" if isinstance(fault, endings.TruncateStream) else fault.after
    if after == "request":
        before, rest = "", None
    else:
        text = json.dumps(reply()) + "\n"
        # A pipe has no headers: nothing of the reply is sent.
        size = len(text) // 2 if after == "half" else 0
        before, rest = text[:size], text[size:]
    do: list[Instruction] = [{"raw": before}] if before else []
    if not isinstance(fault, endings.Stall):
        return [*do, {"close_stdout": True}]
    if fault.s is None:
        return [*do, _NEVER]
    return [*do, {"sleep": fault.s}, {"raw": rest} if rest is not None else {"write": reply()}]
