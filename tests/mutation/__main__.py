"""Change the code in small ways, one at a time, and see whether the tests notice.

    python -m tests.mutation                              # the changes of known.toml, each of which has to be noticed
    python -m tests.mutation --sample 50 --seed 3         # changes drawn from the call path and the core
    python -m tests.mutation --sample 20 --only dispatch/hedging.py

It works on a copy of the checkout, whose core must be built. A drawn change that no test notices is a survivor: the
exit status is 1 unless ``survivors.toml`` gives the reason why nobody can notice it.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from tests.mutation.operators import Mutant, mutants_of
from tests.mutation.suites import FILES, suite_of

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = Path(__file__).parent
_LIMIT_S: Final = 300.0


class Copy:
    """A copy of the checkout, in which one file at a time is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("mcp_manager", "tests", "setup.py", "pyproject.toml", "README.md"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.html"))
            else:
                shutil.copy2(source, folder / name)

    def is_noticed(self, mutant: Mutant, tests: tuple[str, ...]) -> str:
        """Return who noticed a change: the first test that failed, the compiler, or nobody (an empty text)."""
        file = self.folder / "mcp_manager" / mutant.path
        source = file.read_text(encoding="utf-8")
        file.write_text(mutant.applied(source), encoding="utf-8")
        try:
            if file.suffix != ".py" and not self._build():
                return "the compiler"
            return self._first_failure(tests)
        finally:
            file.write_text(source, encoding="utf-8")
            if file.suffix != ".py":
                self._build()

    def _build(self) -> bool:
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=False).returncode == 0

    def _first_failure(self, tests: tuple[str, ...]) -> str:
        # Named so that the copy is imported, and not what is installed; a change may make a test wait for ever.
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
        command += ["-p", "no:randomly", "--override-ini", "pythonpath=. tests"]
        try:
            done = subprocess.run(
                command, cwd=self.folder, capture_output=True, text=True, check=False, timeout=_LIMIT_S
            )
        except subprocess.TimeoutExpired:
            return "a test that did not end"
        if done.returncode == 0:
            return ""
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0].split(" ", 1)[1].split(" - ")[0] if failed else f"pytest, with status {done.returncode}"


def known() -> list[tuple[Mutant, tuple[str, ...]]]:
    """Return the changes that once went unnoticed, with the tests that notice them now."""
    rows = tomllib.loads((HERE / "known.toml").read_text(encoding="utf-8"))["mutant"]
    return [(Mutant(row["path"], row["old"], row["new"], row.get("nth", 0)), tuple(row["tests"])) for row in rows]


def drawn(count: int, seed: int, only: str) -> list[tuple[Mutant, tuple[str, ...]]]:
    """Draw changes from the files that a sample covers."""
    package = ROOT / "mcp_manager"
    paths = sorted(
        str(file.relative_to(package)) for pattern in FILES for file in package.glob(pattern) if file.stem != "__init__"
    )
    chosen = [path for path in paths if not only or fnmatch(path, only)]
    found = list(itertools.chain.from_iterable(mutants_of(path, package / path) for path in chosen))
    return [(each, suite_of(each.path)) for each in random.Random(seed).sample(found, min(count, len(found)))]


def excused() -> dict[str, str]:
    rows = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))["survivor"]
    return {row["name"]: row["reason"] for row in rows}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="files of the package, as a pattern")
    options = parser.parse_args()
    chosen = drawn(options.sample, options.seed, options.only) if options.sample else known()
    reasons, survivors = excused(), 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        for number, (mutant, tests) in enumerate(chosen, 1):
            noticed = copy.is_noticed(mutant, tests)
            reason = reasons.get(mutant.name, "") if options.sample else ""
            survivors += not noticed and not reason
            end = f"noticed by {noticed}" if noticed else f"SURVIVED: {reason}" if reason else "SURVIVED"
            print(f"{number}/{len(chosen)} {mutant.name}\n    {end}", flush=True)
    print(f"{len(chosen)} changes, seed {options.seed}: {survivors} that nobody noticed and nobody has explained")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
