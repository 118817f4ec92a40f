"""The surface of the compiled core: every class and function that a module has, with what its stub says of it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import Any, Final, NamedTuple

import mcp_manager._core

__all__ = ["CLASSES", "FUNCTIONS", "Parameters", "parameters_of"]

# Waits for connections for as long as it is asked to; the target "loopback" talks to it.
_LEFT_OUT: Final = frozenset({"_fill_tables"})


class Parameters(NamedTuple):
    """What a function takes: names and annotations of what goes by position and by name, how many are needed."""

    positional: tuple[tuple[str, ast.expr | None], ...]
    named: tuple[tuple[str, ast.expr | None], ...]
    required: int


def _modules() -> list[Any]:
    names = sorted(module.name for module in pkgutil.iter_modules(mcp_manager._core.__path__))
    return [importlib.import_module(f"mcp_manager._core.{name}") for name in names]


def _read(function: ast.FunctionDef, *, is_method: bool) -> Parameters:
    given = function.args
    positional = [*given.posonlyargs, *given.args][is_method:]
    named = tuple((each.arg, each.annotation) for each in given.kwonlyargs)
    return Parameters(
        tuple((each.arg, each.annotation) for each in positional), named, len(positional) - len(given.defaults)
    )


def _read_stubs() -> dict[str, Parameters]:
    found: dict[str, Parameters] = {}
    for path in sorted(Path(mcp_manager._core.__path__[0]).glob("*.pyi")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = _read(node, is_method=False)
            elif isinstance(node, ast.ClassDef):
                for each in node.body:
                    if isinstance(each, ast.FunctionDef) and not each.decorator_list:
                        found[f"{node.name}.{each.name}"] = _read(each, is_method=True)
    return found


_STUBS: Final = _read_stubs()


def parameters_of(kind: type, name: str) -> Parameters | None:
    """Return what a method takes, wherever it was defined; ``None`` if no stub tells."""
    for each in kind.__mro__:
        found = _STUBS.get(f"{each.__name__}.{name}")
        if found is not None:
            return found
    return None


CLASSES: Final[list[type]] = sorted(
    (
        value
        for module in _modules()
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ),
    key=lambda kind: kind.__qualname__,
)
FUNCTIONS: Final[list[tuple[str, Any, Parameters | None]]] = [
    (name, value, _STUBS.get(name))
    for module in _modules()
    for name, value in sorted(vars(module).items())
    if callable(value) and not isinstance(value, type) and name not in _LEFT_OUT and not name.startswith("__")
    if getattr(value, "__module__", None) == module.__name__
]
