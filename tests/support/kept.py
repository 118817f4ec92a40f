"""A search for the package's objects that are still in memory, in reference cycles or held by something."""

from __future__ import annotations

import functools
import gc
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, CoroutineType, FrameType, TracebackType
from typing import Any, Final

import mcp_manager

__all__ = ["MARK", "cycles", "holders", "holders_of", "marks", "objects"]

MARK: Final = "kept-mark-"
"""Part of every text that a scenario sends, receives or keeps secret, and of no other text."""

_PACKAGE: Final = str(Path(mcp_manager.__file__).parent)
_SERVERS: Final = "mcp_manager.testing"
_LONGEST_PATH: Final = 12
_WATCHED: Final = frozenset(
    {
        *(
            "McpManager",
            "PyMcpManager",
            "Supervisor",
            "Server",
            "Instance",
            "SessionTemplate",
            "ServerConfig",
            "Session",
        ),
        *("HttpTransport", "HttpSseTransport", "StdioTransport", "Child", "StandingStream", "Channel", "Authorization"),
        *("Attempt", "Negotiation", "Rollout", "Change", "Watch", "DirectCall", "Lease", "Exchange", "WireReply"),
    }
)


def cycles() -> list[str]:
    """Collect garbage and describe the package's objects in it, which only the collector could free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return sorted(filter(None, map(_ours, gc.garbage)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()


def objects() -> Counter[str]:
    """Count the objects of watched types in memory, by type."""
    kinds = watched_types()
    return Counter([type(each).__name__ for each in gc.get_objects() if type(each) in kinds])


# Errors that the package caches on purpose: why a schema cannot be used, for the last 256 schemas.
_REMEMBERED: Final = frozenset({"UnusableSchema"})


def watched_types() -> frozenset[type]:
    """Return the types of objects that must not outlive their call, session or server, errors included."""
    return _watched_types(len(sys.modules))


@functools.lru_cache(maxsize=1)
def _watched_types(_: int) -> frozenset[type]:
    """Find these types in the modules imported so far."""
    return frozenset(
        kind
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "mcp_manager"
        for kind in list(vars(module).values())
        if isinstance(kind, type)
        and _is_ours(kind)
        and (kind.__name__ in _WATCHED or (issubclass(kind, Exception) and kind.__name__ not in _REMEMBERED))
    )


def holders_of(name: str) -> str:
    """Describe what holds the newest object of a watched type."""
    found = [each for each in gc.get_objects() if type(each).__name__ == name and type(each) in watched_types()]
    if not found:
        return "gone by now"
    last = found.pop()
    # Otherwise this list would be a holder.
    found.clear()
    return holders(last)


def marks() -> list[Any]:
    """Return the objects that directly hold text or bytes with :data:`MARK`, except code."""
    found = []
    for each in gc.get_objects():
        if isinstance(each, FrameType | CodeType) or each is globals():
            continue
        if any(_is_marked(held) for held in gc.get_referents(each)):
            found.append(each)
    return [each for each in found if not _is_constant(each)]


def holders(found: object) -> str:
    """Describe the chain of holders of an object, beginning with itself."""
    path: list[str] = []
    at, seen = found, {id(found), id(sys._getframe())}
    for _ in range(_LONGEST_PATH):
        path.append(_described(at))
        above: list[object] = []
        for each in gc.get_referrers(at):
            if id(each) not in seen and each is not above and _may_hold(each, at):
                above.append(each)
        if not above:
            break
        at = above[0]
        seen.add(id(at))
    return " < ".join(path)


def _may_hold(each: object, held: object) -> bool:
    """Tell whether an object may count as a holder; running frames, iterators and lists of all objects do not."""
    if isinstance(each, FrameType):
        return each.f_code.co_filename != __file__ and held in each.f_locals.values()
    if isinstance(each, list) and len(each) > 5_000:
        return False
    return type(each).__name__ not in ("list_iterator", "generator")


def _is_marked(held: object, depth: int = 3) -> bool:
    """Tell whether a value contains the mark; a bytearray does not count, since all connections share one buffer."""
    if isinstance(held, str):
        return MARK in held and held != MARK
    if isinstance(held, bytes):
        return MARK.encode() in held
    # Containers that hold only such texts are not tracked by the collector, so they are searched here.
    if depth == 0 or gc.is_tracked(held) or isinstance(held, type):
        return False
    return any(_is_marked(each, depth - 1) for each in gc.get_referents(held))


def _is_constant(holder: object) -> bool:
    """Tell whether an object is a tuple of a function's constants."""
    return isinstance(holder, tuple) and any(isinstance(each, CodeType) for each in gc.get_referrers(holder))


def _is_ours(kind: type) -> bool:
    module = kind.__module__
    # The scripted servers of scenarios are no part of what is tested.
    return isinstance(module, str) and f"{module}.".startswith("mcp_manager.") and f"{_SERVERS}." not in f"{module}."


def _is_inside(path: str) -> bool:
    return path.startswith(_PACKAGE) and not path.startswith(f"{_PACKAGE}/testing/")


def _ours(each: object) -> str:
    """Return a description of an object of the package, "" for any other."""
    if isinstance(each, TracebackType):
        each = each.tb_frame
    if isinstance(each, FrameType):
        code = each.f_code
        inside = _is_inside(code.co_filename)
        return f"frame of {Path(code.co_filename).stem}.{code.co_qualname}" if inside else ""
    if isinstance(each, CoroutineType) and _is_inside(each.cr_code.co_filename):
        return f"coroutine {each.cr_code.co_qualname}"
    return type(each).__name__ if _is_ours(type(each)) else ""


def _described(each: object) -> str:
    return _ours(each) or f"{type(each).__module__}.{type(each).__name__}({', '.join(_parts(each))})"


def _parts(each: object) -> Iterator[str]:
    if isinstance(each, dict):
        yield from (repr(key)[:40] for key in list(each)[:4])
    else:
        yield repr(each)[:60]
