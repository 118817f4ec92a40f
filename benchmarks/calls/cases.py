"""The cases that are measured: a framing, a size of the reply and a number of calls in flight."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

import orjson

from benchmarks.calls.replies import render
from mcp_manager.errors import InvalidRequestError

__all__ = ["ALONE", "FULL", "LARGE", "SMALL", "Case", "Expected", "Framing", "parse_case"]

Framing = Literal["json", "sse", "rows"]

_NOTATION: Final = re.compile(r"(json|sse|rows)/(\d+)([kM]?)/(\d+)(?:/(\d+))?")
_UNITS: Final = {"M": 1_000_000, "k": 1000, "": 1}
_MAX_IN_FLIGHT: Final = 1024
_ENDING: Final = 12


class Expected(NamedTuple):
    """How to recognize a correct reply: the end of its JSON, the length of its text, its number of rows."""

    ending: str
    letters: int
    rows: int


class Case(NamedTuple):
    """Calls with replies of ``size`` bytes in a framing, ``in_flight`` at a time, to a server with ``tools`` tools."""

    framing: Framing
    size: int
    in_flight: int
    tools: int = 1

    def __str__(self) -> str:
        unit = next(unit for unit, factor in _UNITS.items() if self.size % factor == 0)
        tools = f"/{self.tools}" if self.tools > 1 else ""
        return f"{self.framing}/{self.size // _UNITS[unit]}{unit}/{self.in_flight}{tools}"

    @property
    def path(self) -> str:
        """The path of the loopback server that gives such replies."""
        return f"/{self.framing}/{self.size}/{self.tools}"

    @property
    def title(self) -> str:
        """The case in words."""
        unit = next(unit for unit, factor in _UNITS.items() if self.size % factor == 0)
        size = f"{self.size // _UNITS[unit]} {unit}B"
        kind = {"json": "JSON", "sse": "SSE", "rows": "rows"}[self.framing]
        return f"{size} {kind}, {self.in_flight} in flight"

    def expected(self) -> Expected:
        """Return how to recognize a correct reply."""
        endpoint = render(self.path.encode())
        assert endpoint is not None
        (answer,) = (each for each in endpoint.answers if each.method == b'"tools/call"')
        document = (b'{"id":0' + answer.suffix[: answer.counted]).strip()
        result: dict[str, Any] = orjson.loads(document)["result"]
        texts = [len(item["text"]) for item in result["content"]]
        rows = result.get("structuredContent", {}).get("rows", [])
        return Expected(document[-_ENDING:].decode(), sum(texts), len(rows))


SMALL: Final = Case("json", 100, 16)
ALONE: Final = Case("json", 100, 1)
LARGE: Final = Case("json", 1_000_000, 1)
FULL: Final = tuple(
    Case(framing, size, in_flight)
    for framing in ("json", "sse")
    for size in (100, 10_000, 1_000_000)
    for in_flight in (1, 16, 64, 256)
)


def parse_case(text: str) -> Case:
    """Parse ``framing/size/in flight``, such as ``json/100/16`` or ``sse/10k/64``, optionally with a number of tools.

    Raises
    ------
    InvalidRequestError
        The text is not written like this, or a number is out of bounds.
    """
    found = _NOTATION.fullmatch(text)
    if found is None:
        raise InvalidRequestError(f"{text!r} is not a case", hint="write framing/bytes/in flight, such as sse/10k/64")
    framing: Framing = found[1]  # type: ignore[assignment]  # the pattern allows no other
    case = Case(framing, int(found[2]) * _UNITS[found[3]], int(found[4]), int(found[5] or 1))
    if not 1 <= case.in_flight <= _MAX_IN_FLIGHT or not 1 <= case.size <= 16_000_000:
        raise InvalidRequestError(
            f"{text!r} is out of bounds", hint=f"1 byte to 16 MB, 1 to {_MAX_IN_FLIGHT} calls in flight"
        )
    return case
