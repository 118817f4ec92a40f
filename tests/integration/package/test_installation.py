"""A copy of the package that cannot work says why, and what to do, whichever way it is imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from mcp_manager._core import installation

ROOT = Path(__file__).resolve().parents[3]
USES = ["from mcp_manager import PyMcpManager", "import mcp_manager; mcp_manager.errors", "import mcp_manager.manager"]


def copied(tmp_path: Path, *, is_source: bool) -> Path:
    """Copy the package without its compiled modules."""
    target = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", *([] if is_source else ["*.pyx"]))
    shutil.copytree(ROOT / "mcp_manager", target / "mcp_manager", ignore=ignored)
    if is_source:
        shutil.copy(ROOT / "setup.py", target)
    return target


def imported(folder: Path, code: str, *options: str) -> str:
    """Return the last line of what an interpreter says that runs some code in a folder, as a user who starts it there."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return (done.stderr or done.stdout or "nothing").strip().splitlines()[-1]


@pytest.mark.parametrize("use", USES)
def test_a_checkout_that_was_not_built(use: str, tmp_path: Path) -> None:
    told = imported(copied(tmp_path, is_source=True), use)
    assert told.startswith(f"ImportError: mcp_manager was imported from the source folder {tmp_path}")
    assert f"no compiled modules for this Python ({EXTENSION_SUFFIXES[0][1:]})" in told
    assert f"pip install -e {tmp_path}" in told
    assert "-P" in told


def test_the_installed_package_is_used_without_the_folder_in_the_path(tmp_path: Path) -> None:
    folder = copied(tmp_path, is_source=True)
    code = f"import mcp_manager; mcp_manager.PyMcpManager; print(mcp_manager.__file__.startswith({str(tmp_path)!r}))"
    assert imported(folder, code, "-P") == "False"


def test_a_checkout_whose_build_is_older_than_a_module(tmp_path: Path) -> None:
    folder = copied(tmp_path, is_source=True)
    for source in (ROOT / "mcp_manager" / "_core").glob("*.pyx"):
        if source.stem != "wire":
            (folder / "mcp_manager" / "_core" / f"{source.stem}{EXTENSION_SUFFIXES[0]}").touch()
    told = imported(folder, USES[0])
    assert "lacks the compiled modules wire for this Python" in told
    assert "there are some for" not in told


@pytest.mark.parametrize("tag", ["cpython-39-x86_64-linux-gnu", "cpython-311-riscv64-linux-musl"])
def test_modules_of_another_python_are_named(tag: str, tmp_path: Path) -> None:
    folder = copied(tmp_path, is_source=False)
    (folder / "mcp_manager" / "_core" / f"router.{tag}.so").touch()
    told = imported(folder, USES[0])
    assert f"there are some for {tag}.so" in told
    assert "pip install --force-reinstall" in told
    assert "source folder" not in told


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
CODE = '''
try:
    from mcp_manager import PyMcpManager
except ImportError as error:
    print("refused:", error, flush=True)
'''
def run():
    new = interpreters.create()
    interpreters.run_string(new, CODE)
    interpreters.destroy(new)
"""


@pytest.mark.parametrize("is_first", [True, False])
def test_a_subinterpreter_is_refused_and_the_main_one_served(is_first: bool, tmp_path: Path) -> None:
    pytest.importorskip("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    use = "import mcp_manager; mcp_manager.PyMcpManager().stop(); print('served', flush=True)\n"
    code = SUBINTERPRETER + ("run()\n" + use if is_first else use + "run()\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(line.partition(":")[0] for line in done.stdout.splitlines()) == ["refused", "served"]
    assert "mcp_manager cannot be used in a subinterpreter" in done.stdout


def test_a_lock_that_is_turned_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "sys", types.SimpleNamespace(flags=types.SimpleNamespace(gil=0)))
    monkeypatch.setattr(installation, "_found_good", False)
    with pytest.raises(ImportError, match="needs the global interpreter lock"):
        installation.check()
