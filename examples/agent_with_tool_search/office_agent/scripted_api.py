"""A model without network: a local server that plays the API of OpenAI or Anthropic, and replies as a script says.

The agent talks to it with the vendor's own package, as it does to a real model. The scripts make the mistakes that
models make: they repeat a call blindly, and name a channel that does not exist.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from mcp_manager.adapters import estimated_tokens

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Say:
    """One reply: a text, and calls."""

    text: str
    calls: tuple[Call, ...] = ()


Script = Generator[Say, list[str], None]
"""Yields replies, and gets the answers to the calls of each."""


def search(query: str) -> Call:
    return "search_tools", {"query": query}


def found_names(answer: str) -> list[str]:
    """Return the names of the tools that a search has found."""
    return [str(each["name"]) for each in json.loads(answer)["tools"]]


def picked(names: list[str], ending: str) -> str:
    """Return the tool that a model would choose."""
    found = next((each for each in names if each.endswith(ending)), None)
    if found is None:
        raise LookupError(f"the script needs a tool {ending}, and has only {', '.join(names)}")
    return found


def book_a_room(offered: list[str]) -> Script:
    """Book a room and tell the team: with an answer that gets lost, and a channel that does not exist."""
    is_searching = "search_tools" in offered

    def call(name: str, **arguments: Any) -> Call:
        return ("call_tool", {"name": name, "arguments": arguments}) if is_searching else (name, arguments)

    if is_searching:
        queries = "list rooms", "create room booking", "create chat post"
        answers = yield Say("", tuple(map(search, queries)))
        offered = [name for each in answers for name in found_names(each)]
    yield Say("", (call(picked(offered, "__list_rooms")),))
    when = {"start": "Thursday 10:00", "end": "Thursday 11:00"}
    booking = call(picked(offered, "__create_room_booking"), room="Aare", **when, purpose="Quarterly review")
    (said,) = yield Say("Aare is large enough.", (booking,))
    if "not approve" in said:
        yield Say("I have booked nothing, because you did not approve it.")
        return
    if said.startswith("Error:"):
        # A hasty model tries again.
        yield Say("", (booking,))
        (bookings,) = yield Say("", (call(picked(offered, "__list_room_bookings"), text="Thursday"),))
        if "Aare" not in bookings:
            yield Say("", (booking,))
    post = picked(offered, "__create_post")
    text = "The review is on Thursday at 10:00 in Aare."
    (said,) = yield Say("The room is booked. Now the team.", (call(post, channel="everyone", text=text),))
    if "review-team" in said:
        yield Say("", (call(post, channel="review-team", text=text),))
    yield Say("Aare is booked for Thursday, 10:00 to 11:00, and the review team knows.")


def search_for_ever(offered: list[str]) -> Script:
    """Never come to an end."""
    while True:
        yield Say("There must be a better tool.", (search("a better tool"),))


TASKS: Final[dict[str, Callable[[list[str]], Script]]] = {
    "Book a room for six on Thursday at 10, and tell the review team.": book_a_room,
    "Find the best of all tools.": search_for_ever,
}


@contextlib.asynccontextmanager
async def scripted_api() -> AsyncGenerator[str]:
    """Serve the APIs on a free port of 127.0.0.1; yields the URL."""
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", _openai)
    app.router.add_post("/v1/messages", _anthropic)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _next(task: str, offered: list[str], answers: list[list[str]]) -> Say:
    """Play a script from the beginning, because the API remembers nothing; return what follows the answers."""
    script = TASKS[task](offered)
    said = next(script)
    for each in answers:
        said = script.send(each)
    return said


async def _openai(request: web.Request) -> web.Response:
    body = await request.json()
    answers: list[list[str]] = []
    for message in body["messages"]:
        if message["role"] == "assistant":
            answers.append([])
        elif message["role"] == "tool":
            answers[-1].append(message["content"])
    offered = [each["function"]["name"] for each in body["tools"]]
    said = _next(body["messages"][1]["content"], offered, answers)
    calls = [
        {
            "id": f"call_{len(answers)}_{number}",
            "type": "function",
            "function": {"name": name, "arguments": _json(given)},
        }
        for number, (name, given) in enumerate(said.calls)
    ]
    reply: dict[str, Any] = {"role": "assistant", "content": said.text or None}
    if calls:
        reply["tool_calls"] = calls
    choice = {"index": 0, "message": reply, "finish_reason": "tool_calls" if calls else "stop"}
    read, written = estimated_tokens(_json(body)), estimated_tokens(_json(reply))
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    envelope = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
    return web.json_response({**envelope, "choices": [choice], "usage": usage})


async def _anthropic(request: web.Request) -> web.Response:
    body = await request.json()
    messages = body["messages"][1:]
    answers = [[_text_of(block) for block in each["content"]] for each in messages if each["role"] == "user"]
    offered = [each["name"] for each in body["tools"]]
    said = _next(body["messages"][0]["content"], offered, answers)
    content: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
    content += [
        {"type": "tool_use", "id": f"call_{len(answers)}_{number}", "name": name, "input": given}
        for number, (name, given) in enumerate(said.calls)
    ]
    usage = {"input_tokens": estimated_tokens(_json(body)), "output_tokens": estimated_tokens(_json(content))}
    envelope = {"id": "1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
    stop_reason = "tool_use" if said.calls else "end_turn"
    return web.json_response({**envelope, "content": content, "stop_reason": stop_reason, "usage": usage})


def _text_of(block: dict[str, Any]) -> str:
    text = "\n".join(str(part["text"]) for part in block["content"])
    return f"Error: {text}" if block.get("is_error") else text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
