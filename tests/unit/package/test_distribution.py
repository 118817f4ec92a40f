"""What is distributed: every part of the package, the compiled core, and nothing that is only run in a checkout."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "mcp_manager"
NOT_DISTRIBUTED = ("benchmarks", "tests", "examples")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def imported_names(path: Path) -> set[str]:
    """The names that a file imports, dots and all."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return names


def test_the_packages_listed_are_those_that_there_are() -> None:
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()] == []
    listed = project()["tool"]["setuptools"]["packages"]
    assert listed == sorted(".".join(folder.parts) for folder in folders)


def test_every_extension_is_one_of_the_core() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (modules,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "MODULES"
    )
    assert {PACKAGE / "_core" / f"{module}.pyx" for module in modules} == set(PACKAGE.rglob("*.pyx"))


def test_nothing_distributed_is_of_the_benchmarks_or_needs_them() -> None:
    sources = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyi", ".pyx", ".pxd")]
    assert [str(path) for path in sources if "bench" in str(path.relative_to(ROOT))] == []
    python = [path for path in sources if path.suffix in (".py", ".pyi")]
    needing = {
        str(path): found
        for path in python
        if (found := {name.split(".")[0] for name in imported_names(path)} & set(NOT_DISTRIBUTED))
    }
    assert needing == {}


def test_the_tests_have_what_builds_the_server_of_the_benchmark() -> None:
    settings = project()
    assert set(settings["build-system"]["requires"]) <= set(settings["project"]["optional-dependencies"]["test"])


def test_the_source_distribution_has_the_benchmarks() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    assert {"graft benchmarks", "graft tests"} <= set(manifest)
