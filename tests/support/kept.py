"""What of the package is still held in this process: by cycles that wait for the collector, or by anything at all."""

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
"""Stands in everything that a scenario sends, receives or trusts a server with, and nowhere else."""

_PACKAGE: Final = str(Path(mcp_manager.__file__).parent)
_LONGEST_PATH: Final = 12
_WATCHED: Final = frozenset(
    {
        *("McpManager", "PyMcpManager", "Supervisor", "Instance", "SessionTemplate", "ServerConfig", "Session"),
        *("HttpTransport", "HttpSseTransport", "StdioTransport", "Child", "StandingStream", "Channel", "Authorization"),
        *("Attempt", "Negotiation", "Rollout", "Change", "Watch", "DirectCall", "Lease", "Exchange", "WireReply"),
    }
)


def cycles() -> list[str]:
    """Collect garbage and describe what of the package was in it: cycles, which cost the collector its time."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return sorted(filter(None, map(_ours, gc.garbage)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()


def objects() -> Counter[str]:
    """Count the reachable objects of what a call, a session or a server is made of, and the package's errors."""
    kinds = watched_types()
    return Counter([type(each).__name__ for each in gc.get_objects() if type(each) in kinds])


# Why a schema cannot be used, remembered for the last 256 of them.
_REMEMBERED: Final = frozenset({"UnusableSchema"})


def watched_types() -> frozenset[type]:
    """Return the types of what must not outlive the call, the session or the server that it belongs to."""
    return _watched_types(len(sys.modules))


@functools.lru_cache(maxsize=1)
def _watched_types(_: int) -> frozenset[type]:
    """Find them in what has been imported by now."""
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
    """Say by which way an object of a watched type is held, the last one made of it."""
    found = [each for each in gc.get_objects() if type(each).__name__ == name and type(each) in watched_types()]
    if not found:
        return "gone by now"
    last = found.pop()
    # Or it would be this that holds it.
    found.clear()
    return holders(last)


def marks() -> list[Any]:
    """Return what directly holds text or bytes with :data:`MARK`, code left out."""
    found = []
    for each in gc.get_objects():
        if isinstance(each, FrameType | CodeType) or each is globals():
            continue
        if any(_is_marked(held) for held in gc.get_referents(each)):
            found.append(each)
    return [each for each in found if not _is_constant(each)]


def holders(found: object) -> str:
    """Say by which way an object is held, from itself up."""
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
    """Leave out who is only looking: frames that run, iterators, and lists of all that there is."""
    if isinstance(each, FrameType):
        return each.f_code.co_filename != __file__ and held in each.f_locals.values()
    if isinstance(each, list) and len(each) > 5_000:
        return False
    return type(each).__name__ not in ("list_iterator", "generator")


def _is_marked(held: object, depth: int = 3) -> bool:
    """Whether it is marked; a bytearray is the buffer, of fixed size, into which all connections receive."""
    if isinstance(held, str):
        return MARK in held and held != MARK
    if isinstance(held, bytes):
        return MARK.encode() in held
    # What has nothing but such texts in it is not among what the collector looks at.
    if depth == 0 or gc.is_tracked(held) or isinstance(held, type):
        return False
    return any(_is_marked(each, depth - 1) for each in gc.get_referents(held))


def _is_constant(holder: object) -> bool:
    """Whether it is what a function was compiled with."""
    return isinstance(holder, tuple) and any(isinstance(each, CodeType) for each in gc.get_referrers(holder))


def _is_ours(kind: type) -> bool:
    module = kind.__module__
    return isinstance(module, str) and module.partition(".")[0] == "mcp_manager"


def _ours(each: object) -> str:
    """Describe an object if it belongs to the package, "" if it does not."""
    if isinstance(each, TracebackType):
        each = each.tb_frame
    if isinstance(each, FrameType):
        code = each.f_code
        inside = code.co_filename.startswith(_PACKAGE)
        return f"frame of {Path(code.co_filename).stem}.{code.co_qualname}" if inside else ""
    if isinstance(each, CoroutineType) and each.cr_code.co_filename.startswith(_PACKAGE):
        return f"coroutine {each.cr_code.co_qualname}"
    return type(each).__name__ if _is_ours(type(each)) else ""


def _described(each: object) -> str:
    return _ours(each) or f"{type(each).__module__}.{type(each).__name__}({', '.join(_parts(each))})"


def _parts(each: object) -> Iterator[str]:
    if isinstance(each, dict):
        yield from (repr(key)[:40] for key in list(each)[:4])
    else:
        yield repr(each)[:60]
