"""The output schemas of one server's tools, and checks against them (2025-06-18, server/tools, output schema)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from mcp_manager.protocol.bounded_schema import MAX_SCHEMA_BYTES, UnusableSchema, bounded_schema, has_few_parts
from mcp_manager.session.knowledge.peer_faults import PeerFaults

__all__ = ["OutputSchemas"]

_MAX_TOTAL_BYTES: Final = 8 * 1024 * 1024
_MAX_AGE_NS: Final = 300 * 10**9
_UNUSABLE: Final = "an output schema that cannot be used"


class OutputSchemas:
    """Keep the output schemas of one server's tools, from the last complete list.

    Parameters
    ----------
    faults
        Counts schemas that cannot be used; results of their tools are not checked.
    clock
        Monotonic nanoseconds.
    """

    __slots__ = ("_clock", "_faults", "_learnt_ns", "_schemas", "_stamp", "_wrapping", "epoch")

    def __init__(self, faults: PeerFaults, clock: Callable[[], int]) -> None:
        self._faults = faults
        self._clock = clock
        self._schemas: dict[str, bytes] = {}
        # Tools whose schemas were looked at, and whether these say that results are wrapped.
        self._wrapping: dict[str, bool] = {}
        self._stamp: object = None
        self._learnt_ns = 0
        # Raised by forget(), because a list that was requested before is outdated after it.
        self.epoch: int = 0

    def learn(self, schemas: Iterable[tuple[str, bytes]], stamp: object, epoch: int) -> None:
        """Replace everything by the schemas of a complete list, unless :meth:`forget` was called since its request.

        Parameters
        ----------
        schemas
            Name and schema, as JSON, of every tool that has a schema.
        stamp
            Identifies the list; see :meth:`is_current`.
        epoch
            The value of ``epoch`` when the list was requested.
        """
        if epoch != self.epoch:
            return
        learnt: dict[str, bytes] = {}
        total = 0
        for tool, schema in schemas:
            total += min(len(schema), MAX_SCHEMA_BYTES + 1)
            if total > _MAX_TOTAL_BYTES:
                self._faults.count(_UNUSABLE, "the schemas of all tools together are too large")
                break
            # A schema that is too large is refused for its size, which its first bytes are enough to show.
            learnt.setdefault(tool, schema[: MAX_SCHEMA_BYTES + 1])
        self._schemas = learnt
        self._wrapping = {}
        self._stamp = stamp
        self._learnt_ns = self._clock()

    def forget(self) -> None:
        """Forget all schemas, because the server says that its tools have changed."""
        self._schemas = {}
        self._wrapping = {}
        self.epoch += 1

    def knows(self, tool: str) -> bool:
        """Tell whether a tool is known to have an output schema."""
        return tool in self._schemas

    def wraps(self, tool: str) -> bool:
        """Tell whether a tool's schema says that its data is wrapped into an object, as FastMCP marks it."""
        wraps = self._wrapping.get(tool)
        if wraps is None:
            wraps = self._wrapping[tool] = _marks_wrapping(self._schemas.get(tool, b""))
        return wraps

    def is_current(self, stamp: object) -> bool:
        """Tell whether the schemas come from the list with this stamp, and are less than five minutes old."""
        return self._stamp == stamp and self._clock() - self._learnt_ns < _MAX_AGE_NS

    async def find_fault(self, tool: str, content: Any) -> str | None:
        """Return what is wrong with a tool's structured content; ``None`` if nothing is, or it cannot be checked.

        Parameters
        ----------
        tool
            The name of the tool.
        content
            The structured content; ``None`` if it is null or missing, which only a schema that allows null accepts. A
            large content is checked in another thread.
        """
        text = self._schemas.get(tool)
        if text is None:
            return None
        if has_few_parts(content):
            return self._fault_of(tool, _judged(text, content))
        return self._fault_of(tool, await asyncio.to_thread(_judged, text, content))

    def _fault_of(self, tool: str, verdict: str | UnusableSchema | None) -> str | None:
        if isinstance(verdict, UnusableSchema):
            self._faults.count(_UNUSABLE, f"tool {tool[:80]!r}: {verdict}")
            return None
        return verdict


class _Marked(msgspec.Struct):
    wraps: bool = msgspec.field(default=False, name="x-fastmcp-wrap-result")


_marked_decoder = msgspec.json.Decoder(_Marked)


def _marks_wrapping(schema: bytes) -> bool:
    try:
        return b"x-fastmcp-wrap-result" in schema and _marked_decoder.decode(schema).wraps
    except (msgspec.DecodeError, RecursionError):
        return False


def _judged(text: bytes, content: Any) -> str | UnusableSchema | None:
    """Return what is wrong with a content, ``None`` if nothing is, or why the schema cannot be used."""
    schema = bounded_schema(text)
    if isinstance(schema, UnusableSchema):
        return schema
    try:
        fault = schema.fault_in(content)
    except UnusableSchema as reason:
        return reason
    if fault is None:
        return None
    return "it has no structured content" if content is None else f"its structured content breaks the schema {fault}"
