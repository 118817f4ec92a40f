"""The TypedDicts of the configuration are those that the generator writes from the structs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.field_types import STRUCTS, fields_name, modules

import mcp_manager

MODULES = modules()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_each_module_is_what_the_generator_writes(path: Path) -> None:
    # After a change to a struct: python -m tests.support.field_types
    assert path.read_text(encoding="utf-8") == MODULES[path]


@pytest.mark.parametrize("kind", [kind for kinds in STRUCTS.values() for kind in kinds], ids=lambda kind: kind.__name__)
def test_every_field_is_public_and_has_a_text(kind: type) -> None:
    fields = getattr(mcp_manager, fields_name(kind))
    assert set(fields.__annotations__) == set(kind.__struct_fields__)  # type: ignore[attr-defined]
