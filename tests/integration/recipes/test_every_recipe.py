"""Every recipe is complete: its README, its row in the index, its test, and the packages that it needs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from support.documents import blocks_of
from support.notebooks import program_of
from support.recipes import EXAMPLES, ROOT

INDEX: Final = (EXAMPLES / "README.md").read_text(encoding="utf-8")
FOLDERS: Final = sorted(path for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")
ELSEWHERE: Final = {"observability": "tests/integration/observe/test_dashboards.py"}
"""Where a recipe is tested that has no test of its name here."""
FILE: Final = re.compile(r"[\w./-]+\.(?:py|toml|ya?ml|json|ipynb|txt|service|env|Dockerfile)|(?:[\w.-]+/)*Dockerfile")
"""What must be a file of the project in a command of a README."""
each_recipe: Final = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def readme_of(folder: Path) -> Path:
    return folder / "README.md"


def programs_of(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Yield each program of a recipe, notebooks included."""
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(folder.rglob("*.ipynb")):
        yield path, ast.parse(program_of(path))


def imported_by(folder: Path) -> set[str]:
    """The names of the packages from elsewhere that a recipe imports."""
    found: set[str] = set()
    for _, program in programs_of(folder):
        for node in ast.walk(program):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    own = {path.stem for path in folder.rglob("*.py")} | {path.parent.name for path in folder.rglob("__init__.py")}
    return found - own - set(sys.stdlib_module_names) - {"mcp_manager"}


def requirements(lines: list[str]) -> set[str]:
    """The canonical names of the packages in lines of requirements."""
    texts = [line.partition("#")[0].strip() for line in lines]
    return {canonical(Requirement(text).name) for text in texts if text}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@each_recipe
def test_it_has_a_readme_a_row_and_a_test(folder: Path) -> None:
    assert readme_of(folder).is_file()
    assert len(re.findall(rf"^\| \[{folder.name}\]\({folder.name}/README\.md\) \| .+ \|$", INDEX, re.MULTILINE)) == 1
    test = ROOT / ELSEWHERE.get(folder.name, f"tests/integration/recipes/test_{folder.name}.py")
    assert folder.name in test.read_text(encoding="utf-8")


def test_the_index_names_no_other_recipe() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(\w+/README\.md\)", INDEX, re.MULTILINE)
    assert sorted(rows) == [folder.name for folder in FOLDERS]


@each_recipe
def test_it_imports_only_what_is_listed(folder: Path) -> None:
    listed = folder / "requirements.txt"
    own = requirements(listed.read_text(encoding="utf-8").splitlines()) if listed.exists() else set()
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    of_modules = importlib.metadata.packages_distributions()
    unlisted = {
        name
        for name in imported_by(folder)
        if not {canonical(each) for each in of_modules.get(name, [name])} & (own | requirements(package))
    }
    assert unlisted == set()


@pytest.mark.parametrize("path", [EXAMPLES / "README.md", *map(readme_of, FOLDERS)], ids=lambda path: path.parent.name)
def test_links_lead_somewhere_and_commands_name_files_that_exist(path: Path) -> None:
    links = [each for each in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")) if "://" not in each]
    for link in links:
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link
    if path.parent == EXAMPLES:
        return  # Its programs and commands are run by test_documentation.py.
    places = [path.parent, ROOT]
    written = set(re.findall(r"(?:-o|--output|>)[= ](\S+)", path.read_text(encoding="utf-8")))
    for block in blocks_of(path):
        if block.language == "bash":
            for name in FILE.findall(block.text):
                assert name in written or name.startswith("/") or any((each / name).exists() for each in places), name


def anchors_of(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
