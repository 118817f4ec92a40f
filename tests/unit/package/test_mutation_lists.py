"""The lists of changes that tests have to notice: they fit the code as it is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from tests.mutation.__main__ import drawn, excused, known  # noqa: E402
from tests.mutation.operators import Mutant, mutants_of  # noqa: E402
from tests.mutation.suites import FILES, suite_of  # noqa: E402

PACKAGE = ROOT / "mcp_manager"


@pytest.mark.parametrize("mutant,tests", known(), ids=lambda each: each.path if isinstance(each, Mutant) else "")
def test_a_known_change_can_be_made_and_its_tests_are_there(mutant: Mutant, tests: tuple[str, ...]) -> None:
    source = (PACKAGE / mutant.path).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1
    assert mutant.applied(source) != source
    assert tests
    assert [each for each in tests if not (ROOT / each).exists()] == []


@pytest.mark.parametrize(
    "path", sorted({str(file.relative_to(PACKAGE)) for each in FILES for file in PACKAGE.glob(each)})
)
def test_tests_answer_for_every_file_of_a_sample(path: str) -> None:
    tests = suite_of(path)
    assert tests
    assert [each for each in tests if not (ROOT / each).exists()] == []


def test_a_seed_draws_the_same_changes_again() -> None:
    assert drawn(5, 7, ("calls/*",)) == drawn(5, 7, ("calls/*",)) != drawn(5, 8, ("calls/*",))


def test_every_change_makes_a_difference(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    source = "def f(a: int, *b: int) -> int:\n    if a < 1 and b:\n        a += 2\n    g(a)\n    return -a\n"
    file.write_text(source, encoding="utf-8")
    changed = {mutant.applied(source) for mutant in mutants_of("code.py", file)}
    assert source not in changed
    for one in (
        "a <= 1 and b",
        "a < 2 and b",
        "a < 1 or b",
        "not (a < 1 and b)",
        "a -= 2",
        "a += 3",
        "    pass\n    return",
    ):
        assert any(one in each for each in changed), one
    assert all("-a" in each and "*b" in each for each in changed)


def test_a_sample_draws_from_every_file_as_much() -> None:
    only = ("calls/hedging.py", "calls/retry_rules.py", "_core/paced.pyx")
    drawn_from = [mutant.path for mutant, _ in drawn(12, 3, only)]
    assert {path: drawn_from.count(path) for path in only} == dict.fromkeys(only, 4)


def test_an_explained_survivor_can_still_be_drawn() -> None:
    paths = {str(file.relative_to(PACKAGE)) for each in FILES for file in PACKAGE.glob(each)}
    names = {mutant.name for path in paths for mutant in mutants_of(path, PACKAGE / path)}
    assert set(excused()) <= names
