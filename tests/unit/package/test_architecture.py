"""The promise of the package's structure: imports point down, the core knows no clock, modules stay small."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mcp_manager

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "mcp_manager"

PARTS = (
    "__main__",
    "cli",
    "gateway",
    "pytest_plugin",
    "adapters",
    "testing",
    "__init__",
    "bindings",
    "manager",
    "telemetry",
    "observe",
    "calls",
    "fleet",
    "verbs",
    "health",
    "servers",
    "session",
    "transports",
    "auth",
    "results",
    "protocol",
    "events",
    "runtime",
    "config",
    "_core",
    "outcomes",
    "backoff",
    "types",
    "errors",
    "serialization",
    "_version",
)
"""The folders and modules at the top of the package, from above: each imports only those that stand below it."""

APART = {
    "session.knowledge": ("session",),
    "transports.http": ("transports.stdio",),
    "transports.http.connections": ("transports.http", "transports.stdio"),
    "transports.stdio": ("transports.http",),
}
"""Folders inside a part, with those that they know nothing of, but for what is inside themselves."""


@functools.cache
def python_modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@functools.cache
def nodes_of(path: Path) -> list[ast.stmt]:
    """The imports and functions of a file, wherever they stand."""
    wanted = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, wanted)]


def unit_of(path: Path) -> str:
    """The top-level part of the package a file belongs to."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


MODULES = {
    ".".join(("mcp_manager", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in python_modules()
}


@functools.cache
def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a file names in an import, wherever it stands: above, in a function, for types."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mcp_manager":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith("mcp_manager."))
    return found


def imported_units(path: Path) -> set[str]:
    """The top-level parts of the package that a file imports from."""
    return {module.split(".")[1] for module in imported_modules(path) if module != "mcp_manager"}


CALL_PATH = ("bindings", "manager", "verbs", "calls", "servers", "session", "transports")
"""The parts that a call passes through."""
SETTLING = {"probe_era"}
"""Functions in them that no call passes through: a session is settled once."""
OPTIONS = {"timeout", "key", "on_progress"}
"""The keyword arguments that all verbs share."""


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of a function's parameters, without the object or class that it belongs to."""
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and inner ones included."""
    return [node for node in nodes_of(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_within(module: str, package: str) -> bool:
    """Whether a module is a package, or inside it."""
    return module == package or module.startswith(f"{package}.")


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """The names on one circle of a graph, in their order; none if there is no circle."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_every_part_has_its_place() -> None:
    assert {unit_of(path) for path in python_modules()} == set(PARTS)


def test_imports_point_down() -> None:
    above = {}
    for path in python_modules():
        unit = unit_of(path)
        found = [each for each in imported_units(path) if each != unit and PARTS.index(each) < PARTS.index(unit)]
        if found:
            above[str(path.relative_to(SOURCE))] = found
    assert above == {}, "these import from above"


@pytest.mark.parametrize("folder", APART)
def test_inner_folders_stand_apart(folder: str) -> None:
    own, forbidden = f"mcp_manager.{folder}", [f"mcp_manager.{each}" for each in APART[folder]]
    for name, path in MODULES.items():
        if is_within(name, own):
            beyond = [each for each in imported_modules(path) if not is_within(each, own)]
            assert [each for each in beyond if any(is_within(each, one) for one in forbidden)] == [], name


def test_no_module_imports_what_imports_it() -> None:
    assert circle_in({name: imported_modules(path) & MODULES.keys() for name, path in MODULES.items()}) == []


@pytest.mark.parametrize("module", ["histogram", "breaker", "router", "jsonrpc", "sse"])
def test_the_core_takes_no_clock_randomness_or_loop(module: str) -> None:
    text = (SOURCE / "_core" / f"{module}.pyx").read_text(encoding="utf-8")
    for forbidden in ("import time", "import random", "import asyncio", "import socket", "monotonic("):
        assert forbidden not in text


def test_files_stay_readable() -> None:
    long = {}
    for path in (path for pattern in ("*.py", "*.pyx", "*.pxd", "*.pyi", "*.h") for path in SOURCE.rglob(pattern)):
        # One extension is one file, so that it is rebuilt alone and can be inlined into others.
        limit = 600 if unit_of(path) == "_core" else 500
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > limit:
            long[str(path.relative_to(SOURCE))] = lines
    assert long == {}


def test_no_function_takes_many_parameters() -> None:
    long = {}
    for path in python_modules():
        # On the call path, fewer are allowed beside the options: see the next test.
        options = OPTIONS if unit_of(path) in CALL_PATH else set[str]()
        for function in functions_of(path):
            own = [name for name in parameters(function) if name not in options]
            if len(own) > 7:
                long[f"{path.relative_to(SOURCE)}: {function.name}"] = own
    assert long == {}


def test_no_function_on_the_call_path_takes_more_than_five() -> None:
    long = {}
    for path in (path for path in python_modules() if unit_of(path) in CALL_PATH):
        for function in functions_of(path):
            # What is made once for many calls is not on their path.
            if function.name != "__init__" and function.name not in SETTLING:
                own = [name for name in parameters(function) if name not in OPTIONS]
                if len(own) > 5:
                    long[f"{path.relative_to(SOURCE)}: {function.name}"] = own
    assert long == {}


def test_every_public_name_exists() -> None:
    assert sorted(mcp_manager.__all__) == mcp_manager.__all__
    for name in mcp_manager.__all__:
        assert getattr(mcp_manager, name) is not None
    assert set(mcp_manager.__all__) <= set(dir(mcp_manager))


def test_what_type_checkers_read_is_what_is_loaded() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    declared = {
        alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert declared == mcp_manager._MODULE_OF
    assert {*declared, "__version__"} == set(mcp_manager.__all__)


def test_subpackages_are_there_without_an_import_of_their_own() -> None:
    ran = run_python("import mcp_manager; print(mcp_manager.errors.CallError is mcp_manager.CallError)")
    assert ran == "True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'mcp_manager' has no attribute 'McpManger'"):
        mcp_manager.McpManger  # type: ignore[attr-defined]  # noqa: B018


def run_python(code: str) -> str:
    """What a new interpreter prints that runs some code, with every warning an error."""
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


def test_importing_the_package_alone_loads_none_of_its_parts() -> None:
    loaded = "sorted(m for m in sys.modules if m.startswith('mcp_manager.') or m in ('asyncio', 'msgspec', 'importlib.abc', 'tempfile'))"
    assert run_python(f"import sys, mcp_manager; print({loaded})") == str(
        ["mcp_manager._version", "mcp_manager.runtime", "mcp_manager.runtime.moved"]
    )


@pytest.mark.parametrize("name", ["McpManager", "PyMcpManager"])
def test_a_manager_loads_nothing_that_waits_until_it_is_used(name: str) -> None:
    parts = {
        "mcp_manager.adapters",
        "mcp_manager.cli",
        "mcp_manager.observe.metrics",
        "mcp_manager.auth.oauth",
        "mcp_manager.telemetry.metrics",
    }
    assert {part for part in parts if importlib.util.find_spec(part) is None} == set()
    heavy = parts | set(
        "aiohttp yarl prometheus_client http.server jsonschema_rs joserfc cryptography dns tomllib uvloop argparse click rich"
        " pydantic httpx mcp opentelemetry google.protobuf".split()
    )
    code = f"import sys; from mcp_manager import {name}; print(sorted({heavy!r} & set(sys.modules)))"
    assert run_python(code) == "[]"


def files_that_name_others() -> list[Path]:
    """The texts of the project, but for the changelog, which also names what is gone."""
    inside = [
        path
        for folder in ("mcp_manager", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".pyi", ".pyx", ".pxd", ".md") and "node_modules" not in path.parts
    ]
    top = [
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "pyproject.toml", "setup.py", "Makefile")
    ]
    return inside + [path for path in top if path.exists()]


def test_every_file_that_a_text_names_exists() -> None:
    named = re.compile(
        r"(?<![\w/.])(?:mcp_manager|tests|benchmarks|examples)/[\w./-]+\.(?:pyx|pyi|pxd|py|md|json|toml)\b"
    )
    found = {
        (name, path) for path in files_that_name_others() for name in named.findall(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 20
    assert sorted(f"{path.relative_to(ROOT)}: {name}" for name, path in found if not (ROOT / name).exists()) == []
