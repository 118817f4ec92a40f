"""A copy of the checkout, in which one file at a time is changed, built and tested."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.mutation.operators import Mutant

__all__ = ["ROOT", "Checkout"]

ROOT: Final = Path(__file__).resolve().parents[2]
_COPIED: Final = (
    "mcp_manager",
    "benchmarks",
    "tests",
    "setup.py",
    "pyproject.toml",
    "README.md",
)
_FIRST_LIMIT_S: Final = 900.0
_LEAST_LIMIT_S: Final = 60.0
_TIMES_AS_LONG: Final = 4.0


class Checkout:
    """A copy of the checkout below ``folder``; the checkout itself is never changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._limit_s = _FIRST_LIMIT_S
        for name in _COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(ROOT / name, folder / name)

    def failure_unchanged(self, tests: tuple[str, ...]) -> str:
        """Return the first test that fails without any change, or an empty text; its time bounds every later run."""
        began = time.monotonic()
        # Twice: on a busy machine one may fail that is to blame for nothing.
        failure = self._first_failure(tests) and self._first_failure(tests)
        self._limit_s = max(_LEAST_LIMIT_S, _TIMES_AS_LONG * (time.monotonic() - began))
        return failure

    def noticed_by(self, mutant: Mutant, tests: tuple[str, ...]) -> str:
        """Return who noticed a change: the first test that failed, the compiler, or nobody (an empty text)."""
        file = self.folder / "mcp_manager" / mutant.path
        source = file.read_text(encoding="utf-8")
        built = {} if file.suffix == ".py" else {each: each.read_bytes() for each in self._built_from(file)}
        file.write_text(mutant.applied(source), encoding="utf-8")
        try:
            if file.suffix != ".py" and not self._build(file):
                return "the compiler"
            return self._first_failure(tests)
        finally:
            file.write_text(source, encoding="utf-8")
            # The next change may be of the same size and within the same second: its bytecode would look up to date.
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
            for each, content in built.items():
                each.write_bytes(content)

    def _built_from(self, file: Path) -> list[Path]:
        found = [*file.parent.glob(f"{file.stem}.*.so"), *file.parent.glob(f"{file.stem}.*.pyd")]
        if file.suffix != ".pyx" or not found:
            raise SystemExit(f"{file.name} is not a module of the core that is built; build the core first")
        return found

    def _build(self, file: Path) -> bool:
        """Build one module. The compiler optimizes less, since compiling takes longer than the tests."""
        setup = (self.folder / "setup.py").read_text(encoding="utf-8")
        setup = re.sub(r"^MODULES = \(.*?^\)", f'MODULES = ("{file.stem}",)', setup, flags=re.DOTALL | re.MULTILINE)
        (self.folder / "setup_module.py").write_text(setup.replace('"-O3"', '"-O1"'), encoding="utf-8")
        status, _ = self._run([sys.executable, "setup_module.py", "-q", "build_ext", "--inplace"], _FIRST_LIMIT_S)
        return status == 0

    def _first_failure(self, tests: tuple[str, ...]) -> str:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "--no-header",
            "--slow",
        ]
        command += ["--hypothesis-seed=0", "--override-ini", "pythonpath=. tests", *tests]
        status, output = self._run(command, self._limit_s)
        if status == 0:
            return ""
        if status is None:
            return f"a test that did not end within {self._limit_s:.0f} s"
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0].split(" ", 1)[1].split(" - ")[0] if failed else f"pytest, with status {status}"

    def _run(self, command: list[str], limit_s: float) -> tuple[int | None, str]:
        """Run a program in the copy and return its status (``None``: it did not end) and its output."""
        # The copy is imported by the tests' own processes too, and not what is installed.
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as running:
            try:
                output, _ = running.communicate(timeout=limit_s)
                return running.returncode, output
            except subprocess.TimeoutExpired:
                return None, ""
            finally:
                # A change may leave the servers of a test behind, and an interrupted run leaves the tests themselves.
                _end_group(running)


def _end_group(running: subprocess.Popen[str]) -> None:
    try:
        os.killpg(running.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
