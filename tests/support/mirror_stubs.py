"""The stubs of ``mcp_manager.bindings.mirrors``, made from the source of the classes that are mirrored.

``python -m support.mirror_stubs`` (with ``tests`` in the path) writes them.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import mcp_manager.bindings.mirrors
from mcp_manager.bindings.mirror import Kind, is_mirrored, kind_of, twin_doc
from mcp_manager.calls.for_caller import ForCaller
from mcp_manager.manager import McpManager

__all__ = ["DIRECTORY", "stub_of", "stubs"]

DIRECTORY: Final = Path(mcp_manager.bindings.mirrors.__file__).parent

_MIRRORED: Final = (McpManager, ForCaller)
_PACKAGE: Final = "mcp_manager.bindings.mirrors"
_WIDTH: Final = 120
_PLACES: Final = {
    "ABCMeta": "abc",
    "FleetChange": "mcp_manager.bindings.fleet_change",
    "Mirror": "mcp_manager.bindings.mirror",
}
"""Where the names are from that stubs use and the sources do not."""
_NOTE: Final = "# Written by tests/support/mirror_stubs.py: do not edit.\n\n"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """The source of a module, and its tree."""

    name: str
    text: str
    tree: ast.Module

    def part(self, node: ast.AST) -> str:
        """Return the text of an expression in one line."""
        text = ast.get_source_segment(self.text, node)
        assert text is not None
        return " ".join(text.split())


def stubs() -> dict[str, str]:
    """Return the text of every stub, by the name of its file."""
    owners = list(_owners())
    texts = {
        f"{module}.pyi": stub_of([each for each in owners if _module(each) == module])
        for module in dict.fromkeys(map(_module, owners))
    }
    names = [f"{each.__name__}Mirror" for each in _MIRRORED]
    imports = sorted(
        f"from {_PACKAGE}.{_module(each)} import {each.__name__}Mirror as {each.__name__}Mirror" for each in _MIRRORED
    )
    every = ", ".join(f'"{each}"' for each in sorted(names))
    texts["__init__.pyi"] = "\n".join((_NOTE.rstrip("\n"), "", *imports, "", f"__all__ = [{every}]", ""))
    return texts


def _owners() -> Iterator[type]:
    """Yield every class that has a mirror."""
    yield from dict.fromkeys(each for mirrored in _MIRRORED for each in mirrored.__mro__ if is_mirrored(each))


def _module(owner: type) -> str:
    """Return the name of the stub for a class: that of the class's module."""
    return owner.__module__.rpartition(".")[2]


def stub_of(owners: list[type]) -> str:
    """Return the stub for the mirrors of classes of one module."""
    [source] = {each.__module__: _source(each.__module__) for each in owners}.values()
    body = "".join(f"\n{_class(source, each)}" for each in owners)
    return f"{_NOTE}{_imports(source, body, _module(owners[0]))}{body}"


def _source(name: str) -> Source:
    specification = importlib.util.find_spec(name)
    assert specification is not None and specification.origin is not None
    text = Path(specification.origin).read_text(encoding="utf-8")
    return Source(name, text, ast.parse(text))


def _class(source: Source, owner: type) -> str:
    [definition] = [each for each in source.tree.body if isinstance(each, ast.ClassDef) and each.name == owner.__name__]
    bases = [f"{each.__name__}Mirror" for each in owner.__bases__ if is_mirrored(each)] or ["Mirror"]
    lines = _wrapped(f"class {owner.__name__}Mirror(", [*bases, "metaclass=ABCMeta"], "):", "")
    lines.append(f'    """The public methods of :class:`{owner.__name__}`, for callers on any thread and loop."""')
    functions: dict[str, list[Function]] = {}
    for each in definition.body:
        if isinstance(each, Function) and not each.name.startswith("_"):
            functions.setdefault(each.name, []).append(each)
    for name, written in functions.items():
        kind = kind_of(owner, vars(owner)[name])
        if kind is not None:
            lines.extend(_methods(source, written, vars(owner)[name].__doc__ or "", kind))
    # ruff leaves no blank line after what has no body.
    kept = [each for before, each in zip(["", *lines], lines, strict=False) if each or not before.endswith(" ...")]
    return "\n".join(kept) + "\n"


def _methods(source: Source, written: list[Function], doc: str, kind: Kind) -> Iterator[str]:
    """Yield the lines of a method and of its twin; ``written`` are its overloads, and then the method itself."""
    *overloads, method = written
    full = _doc(method)
    if kind is Kind.PROPERTY:
        yield from ("", "    @property", *_signature(source, method, method.name, "def", None), f"        {full}")
        return
    twin = f'"""{twin_doc(method.name, doc)}"""'
    for keyword, name, text in (("def", method.name, full), ("async def", f"{method.name}_async", twin)):
        for index, each in enumerate(overloads or [method]):
            assert each.returns is not None
            result = _result_of(source.part(each.returns))
            returns = "FleetChange" if kind is Kind.CHANGE and keyword == "def" else result
            lines = _signature(source, each, name, keyword, returns)
            yield ""
            if overloads:
                yield "    @overload"
            # Editors show the docstring of the first overload for all of them.
            yield from (*lines, f"        {text}") if not index else (*lines[:-1], f"{lines[-1]} ...")


def _result_of(annotation: str) -> str:
    prefix = "Coroutine[Any, Any, "
    return annotation[len(prefix) : -1] if annotation.startswith(prefix) else annotation


def _doc(function: Function) -> str:
    """Return the docstring of a function as it is written."""
    first = function.body[0]
    assert isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant), f"{function.name} has no docstring"
    return f'"""{first.value.value!s}"""'


def _signature(source: Source, function: Function, name: str, keyword: str, returns: str | None) -> list[str]:
    """Return the lines of a definition, as ruff formats them."""
    parameters = list(_parameters(source, function.args))
    if returns is None:
        assert function.returns is not None
        returns = source.part(function.returns)
    return _wrapped(f"    {keyword} {name}(", parameters, f") -> {returns}:", "    ")


def _wrapped(head: str, parts: list[str], end: str, indent: str) -> list[str]:
    """Return the lines of a head with parts in parentheses, as ruff formats them."""
    joined = ", ".join(parts)
    if len(one := f"{head}{joined}{end}") <= _WIDTH:
        return [one]
    if len(inner := f"{indent}    {joined}") <= _WIDTH:
        return [head, inner, f"{indent}{end}"]
    return [head, *(f"{indent}    {each}," for each in parts), f"{indent}{end}"]


def _parameters(source: Source, given: ast.arguments) -> Iterator[str]:
    """Yield the parameters of a function as they are written."""
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    for index, (each, default) in enumerate(zip(positional, defaults, strict=True), 1):
        yield _parameter(source, each, default)
        if index == len(given.posonlyargs):
            yield "/"
    if given.vararg is not None:
        yield f"*{_parameter(source, given.vararg, None)}"
    elif given.kwonlyargs:
        yield "*"
    for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield _parameter(source, each, default)
    if given.kwarg is not None:
        yield f"**{_parameter(source, given.kwarg, None)}"


def _parameter(source: Source, parameter: ast.arg, default: ast.expr | None) -> str:
    if parameter.annotation is None:
        return parameter.arg if default is None else f"{parameter.arg}={source.part(default)}"
    typed = f"{parameter.arg}: {source.part(parameter.annotation)}"
    return typed if default is None else f"{typed} = {source.part(default)}"


def _imports(source: Source, body: str, module: str) -> str:
    """Return the imports that a stub needs: those of the source that it uses, and what the source defines itself."""
    used = {each.id for each in ast.walk(ast.parse(body)) if isinstance(each, ast.Name)}
    found: dict[str, set[str]] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if (alias.asname or alias.name) in used:
                    found.setdefault(node.module, set()).add(alias.name)
    defined = {each for each in _defined(source.tree) if each in used}
    if defined:
        found.setdefault(source.name, set()).update(defined)
    for name in used:
        owner = name.removesuffix("Mirror")
        other = next((_module(each) for each in _owners() if each.__name__ == owner and owner != name), None)
        if other is not None and other != module:
            found.setdefault(f"{_PACKAGE}.{other}", set()).add(name)
    for name, place in _PLACES.items():
        if name in used:
            found.setdefault(place, set()).add(name)
    groups = [[place for place in sorted(found) if _rank(place) == rank] for rank in range(3)]
    return "\n".join("".join(_import(place, found[place]) for place in group) for group in groups if group)


def _rank(place: str) -> int:
    """Return the group of imports that a module belongs to, as ruff orders them."""
    if place.startswith("mcp_manager"):
        return 2
    return 0 if place.partition(".")[0] in sys.stdlib_module_names else 1


def _case(name: str) -> int:
    """Return the place of a name among others of one import, as ruff orders them."""
    if len(name) > 1 and name.isupper():
        return 0
    return 1 if name[0].isupper() else 2


def _import(place: str, names: Iterable[str]) -> str:
    ordered = sorted(names, key=lambda name: (_case(name), name))
    line = f"from {place} import {', '.join(ordered)}\n"
    if len(line) <= _WIDTH + 1:
        return line
    return f"from {place} import (\n" + "".join(f"    {each},\n" for each in ordered) + ")\n"


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines itself."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (each.id for each in node.targets if isinstance(each, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def _main() -> None:
    for stub in DIRECTORY.glob("*.pyi"):
        stub.unlink()
    for name, text in stubs().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _main()
