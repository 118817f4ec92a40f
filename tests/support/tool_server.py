"""A scripted server with any tools and any results, for tests of what models see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from support.scripted import Request, ScriptedServer

__all__ = ["PIXEL", "TONE", "WEATHER_TOOLS", "ToolServer", "text_result", "weather"]

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
"""A PNG image of one pixel."""
TONE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
"""An empty WAV recording."""

Answer = Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]]

WEATHER_TOOLS: list[dict[str, Any]] = [
    {
        "name": "forecast",
        "description": "Forecast the weather of a city.",
        "inputSchema": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
    {"name": "radar", "description": "Show the rain radar as a picture.", "inputSchema": {"type": "object"}},
    {"name": "fail", "description": "Fail.", "inputSchema": {"type": "object", "properties": {}}},
]


class ToolServer(ScriptedServer):
    """Serve tools whose results the test gives.

    Parameters
    ----------
    tools
        The entries of ``tools/list``.
    answers
        The result of each tool, or a function from its arguments to it; a tool without one repeats its arguments.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]], answers: Mapping[str, Answer] | None = None) -> None:
        super().__init__()
        self.tools = list(tools)
        self.answers = dict(answers or {})
        self.called: list[tuple[str, dict[str, Any]]] = []

    def _result(self, request: Request) -> dict[str, Any]:
        if request.method == "tools/list":
            return self._reply(request, {"tools": self.tools})
        if request.method != "tools/call":
            return super()._result(request)
        name, arguments = request.params["name"], request.params.get("arguments") or {}
        self.called.append((name, arguments))
        answer: Answer = self.answers.get(name) or (lambda given: text_result(str(given)))
        return self._reply(request, answer if isinstance(answer, Mapping) else answer(arguments))

    def _reply(self, request: Request, result: Mapping[str, Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": request.id, "result": dict(result)}


def text_result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    """Return a result with one block of text."""
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


def weather() -> ToolServer:
    """Return a server with a forecast, a picture, and a tool that fails."""
    return ToolServer(
        WEATHER_TOOLS,
        {
            "forecast": lambda given: text_result(f"{given['city']}: sun"),
            "radar": {
                "content": [
                    {"type": "text", "text": "rain in the north"},
                    {"type": "image", "data": PIXEL, "mimeType": "image/png"},
                ]
            },
            "fail": text_result("no such station", is_error=True),
        },
    )
