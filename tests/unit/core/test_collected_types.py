"""What the garbage collector sees of the compiled core: everything that may hold more than bytes, text and numbers."""

from __future__ import annotations

import ast
import gc
import importlib
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from mcp_manager._core.breaker import BreakerSettings
from mcp_manager._core.call_path import CallPath
from mcp_manager._core.call_ring import CallRing
from mcp_manager._core.http_message import Exchange, WireReply
from mcp_manager._core.jsonrpc import scan
from mcp_manager._core.router import Router

SOURCES: Final = Path(__file__).resolve().parents[3] / "mcp_manager" / "_core"
HAVE_GC: Final = 1 << 14
# Of no type of these can a reference lead back to who holds it.
SIMPLE: Final = frozenset({"bytes", "str", "bytearray", "int", "float", "bint", "frozenset"})
# Their fields of type ``object`` are an id and a code: text, numbers or None, whatever a peer sends.
UNSEEN: Final = frozenset({"Message"})
_FIELD: Final = re.compile(r"    cdef (?:readonly |public )?([\w.]+)(\[\w+\])? (\w+)$")


class Holder:
    """Holds whatever it is given, and can be watched."""

    def __init__(self) -> None:
        self.held: Any = None


def fields() -> Iterator[tuple[str, str, str, str]]:
    """All fields of extension types: module, class, type and name."""
    for path in sorted(SOURCES.glob("*.p[yx][xd]")):
        owner = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(" "):
                found = re.match(r"cdef class (\w+)", line)
                owner = found[1] if found else ""
            field = _FIELD.match(line)
            if owner and field:
                yield path.stem, owner, field[1], field[3]


def is_object(kind: str) -> bool:
    """Tell whether a field of a type refers to a Python object that may refer to others."""
    return kind not in SIMPLE and (
        kind in ("object", "list", "dict", "set", "tuple") or (kind[:1].isupper() and kind != "Py_ssize_t")
    )


def structs() -> frozenset[str]:
    """The names of C structures and enumerations: no objects."""
    found: set[str] = set()
    for path in SOURCES.glob("*.p[yx][xd]"):
        found.update(re.findall(r"(?:cdef|ctypedef) (?:struct|enum) (\w+)", path.read_text(encoding="utf-8")))
    return frozenset(found)


def test_what_holds_objects_is_seen() -> None:
    seen = 0
    for module, owner, kind, name in fields():
        if kind in structs() or not is_object(kind) or owner in UNSEEN:
            continue
        extension = getattr(importlib.import_module(f"mcp_manager._core.{module}"), owner)
        assert extension.__flags__ & HAVE_GC, f"{owner}.{name} is a {kind}, and the collector does not see it"
        seen += 1
    assert seen > 50


def test_no_other_type_hides_itself() -> None:
    hidden: set[str] = set()
    for path in SOURCES.glob("*.pyx"):
        hidden.update(re.findall(r"@cython\.no_gc\b(?:\n@.*)*\ncdef class (\w+)", path.read_text(encoding="utf-8")))
    assert hidden == UNSEEN


@pytest.mark.parametrize(
    "given", ["null", "1", "-1", "1.5", "1e3", '"text"', '"\\u0061"', "123456789012345678901", "true", "[]", "{}"]
)
def test_an_id_is_text_or_a_number_or_refused(given: str) -> None:
    try:
        message = scan(b'{"jsonrpc":"2.0","id":%b,"result":{}}' % given.encode())
    except ValueError:
        return
    assert message.id is None or type(message.id) in (str, int, float)


# Cycles


def in_a_lease() -> Holder:
    holder, router = Holder(), Router()
    router.add_server("a")
    router.add_backend("a", holder, BreakerSettings())
    holder.held = router.pick("a", "tools/call", 0, 0)
    assert holder.held.payload is holder
    return holder


def in_a_flight() -> Holder:
    holder, router = Holder(), Router()
    router.add_server("a")
    router.add_backend("a", holder, BreakerSettings())
    holder.held = CallPath(router, lambda: 0, 1).begin(router.server("a"), "tools/call", None, 0, 0)
    assert holder.held.lease.payload is holder
    return holder


def in_an_exchange() -> Holder:
    holder, exchange = Holder(), Exchange(b"{}", 1, 0)
    exchange.wire, holder.held = holder, exchange  # type: ignore[assignment]
    return holder


def in_the_headers_of_a_reply() -> Holder:
    holder = Holder()
    headers: list[Any] = [(b"content-type", b"text/plain")]
    holder.held = WireReply(200, headers, b"")
    headers.append((holder, b""))
    return holder


def in_a_recorder() -> Holder:
    holder, ring = Holder(), CallRing(4)
    ring.add("a", "tools/call", holder, 0, 1, 1, 0)
    holder.held = ring
    return holder


@pytest.mark.parametrize("make", [in_a_lease, in_a_flight, in_an_exchange, in_the_headers_of_a_reply, in_a_recorder])
def test_a_cycle_is_collected(make: Callable[[], Holder]) -> None:
    watched = weakref.ref(make())
    gc.collect()
    assert watched() is None


def test_a_record_that_is_written_over_lets_its_label_go() -> None:
    ring, labels = CallRing(2), [Holder() for _ in range(5)]
    watched = [weakref.ref(label) for label in labels]
    for label in labels:
        ring.add("a", "tools/call", label, 0, 1, 1, 0)
    del label
    labels.clear()
    assert [each() is not None for each in watched] == [False, False, False, True, True]
    assert [call.label for call in ring.past_calls()] == [each() for each in watched[3:]]


# Cycles of Python: an exception's traceback holds the frames that it has left, and what is in them


def held_exceptions(source: str) -> Iterator[tuple[str, int]]:
    """Find what functions raise by a name that they still have afterwards; the name of a handler is gone by itself."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _held(function, frozenset())


def _held(node: ast.AST, gone: frozenset[str]) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        inside = gone
        if isinstance(child, ast.ExceptHandler) and child.name:
            inside |= {child.name}
        elif isinstance(child, ast.Try):
            inside |= {
                target.id
                for statement in child.finalbody
                if isinstance(statement, ast.Delete)
                for target in statement.targets
                if isinstance(target, ast.Name)
            }
        elif isinstance(child, ast.Raise) and isinstance(child.exc, ast.Name):
            name = child.exc.id
            if name not in gone and name.islower():
                yield name, child.lineno
        yield from _held(child, inside)


def test_no_function_keeps_what_it_raises() -> None:
    held = [
        f"{path.relative_to(SOURCES.parent)}:{line} raises {name}"
        for path in sorted(SOURCES.parent.rglob("*.py"))
        for name, line in held_exceptions(path.read_text(encoding="utf-8"))
    ]
    assert not held, "raise it in a try whose finally deletes the name: " + ", ".join(held)


def test_what_is_held_is_found() -> None:
    source = """
def held(error, other):
    try:
        if other:
            raise other
    except ValueError as mine:
        raise mine
    finally:
        del other
    raise error from None
"""
    assert list(held_exceptions(source)) == [("error", 10)]
