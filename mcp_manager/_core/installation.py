"""Checks that the package can run here: in this interpreter, and with compiled modules built for it."""

from __future__ import annotations

import importlib.machinery
import os
import sys
from typing import Final

__all__ = ["check"]

_CORE: Final = os.path.dirname(os.path.abspath(__file__))
_PACKAGE: Final = os.path.dirname(_CORE)
_SHOWN: Final = 4

_found_good = False


def check() -> None:
    """Check the installation before a module fails to import half-way; a check that passed is not repeated.

    Raises
    ------
    ImportError
        The compiled modules are missing or were built for another Python, or the package cannot run in this
        interpreter.
    """
    global _found_good
    if not _found_good:
        _check_interpreter()
        _check_compiled(_CORE)
        _found_good = True


def _check_interpreter() -> None:
    if getattr(sys.flags, "gil", None) == 0:
        raise ImportError(
            "mcp_manager needs the global interpreter lock, which is turned off (start Python without -X gil=0 and "
            "PYTHON_GIL=0; its compiled modules then turn it on)"
        )
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found]  # noqa: PLC0415  (its name from Python 3.13 on)
    except ImportError:
        try:
            import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]  # noqa: PLC0415
        except ImportError:
            return
    if interpreters.get_current() != interpreters.get_main():
        raise ImportError(
            "mcp_manager cannot be used in a subinterpreter: its compiled modules support one interpreter per process "
            "(use threads, or one process each)"
        )


def _check_compiled(folder: str) -> None:
    """Look for the compiled modules of this Python: one per ``.pyx`` file, or ``router`` if there are no sources."""
    try:
        names = set(os.listdir(folder))
    except OSError:
        # The package is not in a folder: its loader is responsible for the modules.
        return
    modules = {name.removesuffix(".pyx") for name in names if name.endswith(".pyx")} or {"router"}
    suffixes = [suffix.lstrip(".") for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    missing = sorted(module for module in modules if not any(f"{module}.{suffix}" in names for suffix in suffixes))
    if not missing:
        return
    parent = os.path.dirname(_PACKAGE)
    is_source = os.path.exists(os.path.join(parent, "setup.py"))
    where = f"the source folder {parent}" if is_source else _PACKAGE
    if len(missing) < len(modules):
        lacks = f"lacks the compiled modules {', '.join(missing[:_SHOWN])}"
        lacks += f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    else:
        lacks = "has no compiled modules"
    tags = sorted({name.split(".", 1)[1] for name in names if name.endswith((".so", ".pyd"))} - set(suffixes))
    others = f"; there are some for {', '.join(tags[:_SHOWN])}" if tags else ""
    hint = (
        f"build them with: pip install -e {parent}; or, to use an installed copy, start Python in another folder or with -P"
        if is_source
        else "reinstall it for this Python: pip install --force-reinstall --no-cache-dir pymcp-manager"
    )
    raise ImportError(
        f"mcp_manager was imported from {where}, which {lacks} for this Python ({suffixes[0]}{others}) ({hint})",
        name="mcp_manager._core",
        path=folder,
    )
