"""Keeps renamed modules importable by their old names for one release, with a :class:`DeprecationWarning`.

It lists only modules with a public name, which users may have imported from there or pickled.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

__all__ = ["MOVED", "install_finder"]

MOVED: Final = {
    "mcp_manager.catalog": "mcp_manager.results",
    "mcp_manager.dispatch": "mcp_manager.calls",
    "mcp_manager.dispatch.flight_log": "mcp_manager.calls.call_log",
    "mcp_manager.metrics": "mcp_manager.observe.metrics",
    "mcp_manager.scaling": "mcp_manager.fleet",
    "mcp_manager.snapshot": "mcp_manager.observe.snapshot",
    "mcp_manager.task_verbs": "mcp_manager.verbs.tasks",
    "mcp_manager.tool_catalog": "mcp_manager.verbs.fleet_tools",
    "mcp_manager.views": "mcp_manager.observe.views",
}
"""The new name of each moved module; the modules inside a moved package moved with it."""


# Not derived from the classes of importlib.abc, which takes 8 ms to import.
class _MovedModules:
    """Find modules of this package by their old names, and load them: a finder and loader in one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load a module by its old name, ``None`` for every other name."""
        # Declared a package, so that Python asks this finder for the modules inside it as well.
        if _name_of(fullname) is None:
            return None
        return ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type]  # a loader by its methods

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python to make the module object."""

    def exec_module(self, module: ModuleType) -> None:
        """Forward the module's attributes to the new module."""
        old = module.__name__
        name = _name_of(old)
        assert name is not None
        try:
            moved = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise ModuleNotFoundError(f"No module named {old!r}", name=old) from error
        warnings.warn(f"{old} is now {name}; the old name is kept for one release", DeprecationWarning, stacklevel=2)
        module.__doc__ = moved.__doc__
        module.__dict__["__all__"] = getattr(moved, "__all__", [])
        module.__dict__["__getattr__"] = lambda attribute: getattr(moved, attribute)


def install_finder() -> None:
    """Install the finder, last, so that it is asked only for modules that nothing else finds; idempotent."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())


def _name_of(old: str) -> str | None:
    if old in MOVED:
        return MOVED[old]
    package, _, inner = old.rpartition(".")
    return f"{MOVED[package]}.{inner}" if package in MOVED else None
