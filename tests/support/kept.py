"""What of the package is still held in this process: by cycles that wait for the collector, or by anything at all."""

from __future__ import annotations

import functools
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

import mcp_manager

__all__ = ["MARK", "cycles", "holders", "is_watched", "marks", "objects"]

MARK: Final = "kept-mark-"
"""Stands in everything that a scenario sends, receives or trusts a server with, and nowhere else."""

_PACKAGE: Final = str(Path(mcp_manager.__file__).parent)
_LONGEST_PATH: Final = 12
_WATCHED: Final = frozenset(
    {
        *("McpManager", "PyMcpManager", "Supervisor", "Instance", "SessionSettings", "ServerConfig", "Session"),
        *("HttpTransport", "HttpSseTransport", "StdioTransport", "Child", "StandingStream", "Channel", "Authorization"),
        *("Attempt", "Negotiation", "Rollout", "Change", "Watch", "Flight", "Lease", "Exchange", "WireReply"),
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
    return Counter(type(each).__name__ for each in gc.get_objects() if is_watched(type(each)))


@functools.cache
def is_watched(kind: type) -> bool:
    """Tell whether objects of a type must not outlive the call, the session or the server that they belong to."""
    return _is_ours(kind) and (kind.__name__ in _WATCHED or issubclass(kind, Exception))


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
    path, seen, at = [], {id(found)}, found
    for _ in range(_LONGEST_PATH):
        path.append(_described(at))
        above = [each for each in gc.get_referrers(at) if id(each) not in seen and not isinstance(each, FrameType)]
        above = [each for each in above if not isinstance(each, list) or len(each) < 10_000]
        if not above:
            break
        at = above[0]
        seen |= {id(each) for each in above} | {id(above)}
    return " < ".join(path)


def _is_marked(held: object) -> bool:
    """Whether it is marked; a bytearray is the buffer, of fixed size, into which all connections receive."""
    if isinstance(held, str):
        return MARK in held and held != MARK
    return isinstance(held, bytes) and MARK.encode() in held


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
    code = getattr(each, "cr_code", None)
    if code is not None and code.co_filename.startswith(_PACKAGE):
        return f"coroutine {code.co_qualname}"
    return type(each).__name__ if _is_ours(type(each)) else ""


def _described(each: object) -> str:
    return _ours(each) or f"{type(each).__module__}.{type(each).__name__}({', '.join(_parts(each))})"


def _parts(each: object) -> Iterator[str]:
    if isinstance(each, dict):
        yield from (repr(key)[:40] for key in list(each)[:4])
    else:
        yield repr(each)[:60]
