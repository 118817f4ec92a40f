"""The dependency groups name what the extras of the same names do."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT: dict[str, Any] = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[str | dict[str, str]]] = PROJECT["dependency-groups"]
OWN_EXTRAS = re.compile(rf"{PROJECT['project']['name']}\[(.+)\]")


def in_extra(name: str) -> Iterator[str]:
    """Yield what an extra requires, with what is in other extras of the project that it names."""
    for requirement in EXTRAS[name]:
        own = OWN_EXTRAS.fullmatch(requirement)
        if own is None:
            yield requirement
            continue
        for inner in own[1].split(","):
            yield from in_extra(inner)


def in_group(name: str) -> Iterator[str]:
    """Yield what a group requires, with what is in the groups that it includes."""
    for entry in GROUPS[name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from in_group(entry["include-group"])


@pytest.mark.parametrize("name", ["test", "models", "bench", "lint"])
def test_a_group_requires_what_the_extra_requires(name: str) -> None:
    assert sorted(in_group(name)) == sorted(in_extra(name))


def test_the_group_for_developers_has_all_others() -> None:
    others = {requirement for name in GROUPS.keys() - {"dev"} for requirement in in_group(name)}
    assert set(in_group("dev")) >= others


def test_no_group_requires_the_package_itself() -> None:
    # An installer would take it from an index, in place of the checkout.
    assert [each for name in GROUPS for each in in_group(name) if each.startswith(PROJECT["project"]["name"])] == []
