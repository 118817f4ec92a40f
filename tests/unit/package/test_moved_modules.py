"""Modules that had another name are still imported by it, with a warning."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest

import mcp_manager
from mcp_manager.runtime.moved import MOVED

INNER = {"mcp_manager.catalog": "tools", "mcp_manager.dispatch": "routing", "mcp_manager.scaling": "rollout"}
NAMES = [(old, new) for old, new in MOVED.items()] + [
    (f"{old}.{inner}", f"{MOVED[old]}.{inner}") for old, inner in INNER.items()
]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Leave no module behind under its old name, as only its first import warns."""

    def forget() -> None:
        for name in [*sys.modules]:
            if any(name == old or name.startswith(f"{old}.") for old in MOVED):
                del sys.modules[name]
        for old in MOVED:
            vars(mcp_manager).pop(old.removeprefix("mcp_manager."), None)

    forget()
    yield
    forget()


@pytest.mark.filterwarnings("ignore:mcp_manager.*is now:DeprecationWarning")
@pytest.mark.parametrize("old,new", NAMES)
def test_the_old_name_has_what_the_new_one_has(old: str, new: str) -> None:
    module, moved = importlib.import_module(old), importlib.import_module(new)
    names = [name for name in vars(moved) if not name.startswith("__")]
    assert [name for name in names if getattr(module, name) is not getattr(moved, name)] == []
    assert module.__all__ == getattr(moved, "__all__", [])


def test_the_warning_names_the_new_module_and_who_imports() -> None:
    with pytest.warns(DeprecationWarning, match=r"mcp_manager\.snapshot is now mcp_manager\.observe\.snapshot") as seen:
        from mcp_manager.snapshot import FleetSnapshot  # type: ignore[import-not-found]  # noqa: PLC0415
    assert FleetSnapshot is mcp_manager.FleetSnapshot
    assert [each.filename for each in seen] == [__file__]


def test_what_was_pickled_by_an_old_name_is_still_read() -> None:
    by_old_name = b"cmcp_manager.catalog.tools\nTool\n."
    with pytest.warns(DeprecationWarning):
        assert pickle.loads(by_old_name) is mcp_manager.Tool


def test_a_public_name_needs_no_old_module() -> None:
    code = "import mcp_manager as m; print(m.Tool.__module__, m.Applied, m.FleetTool, m.ServerView)"
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("name", ["mcp_manager.nonsense", "mcp_manager.catalog.nonsense"])
@pytest.mark.filterwarnings("ignore:mcp_manager.*is now:DeprecationWarning")
def test_an_unknown_module_is_named_as_it_was_asked_for(name: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'") as raised:
        importlib.import_module(name)
    assert raised.value.name == name


def test_all_that_the_old_packages_offered_is_there() -> None:
    code = (
        "from mcp_manager.bindings import PyMcpManager; from mcp_manager.fleet import Applied;"
        "import mcp_manager; mcp_manager.bindings, mcp_manager.results, mcp_manager.fleet"
    )
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", code], check=True, capture_output=True, timeout=60)
