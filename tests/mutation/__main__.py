"""Change the code in small ways, one at a time, and see whether the tests notice.

    python -m tests.mutation                              # the changes of known.toml, each of which has to be noticed
    python -m tests.mutation --sample 50 --seed 3         # changes drawn from the call path and the core
    python -m tests.mutation --sample 20 --only calls/hedging.py

It works on a copy of the checkout, whose core must be built. A drawn change that no test notices is a survivor: the
exit status is 1 unless ``survivors.toml`` gives the reason why nobody can notice it.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import tempfile
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from tests.mutation.checkout import ROOT, Checkout
from tests.mutation.operators import Mutant, mutants_of
from tests.mutation.suites import FILES, suite_of

HERE: Final = Path(__file__).parent


def known() -> list[tuple[Mutant, tuple[str, ...]]]:
    """Return the changes that once went unnoticed, with the tests that notice them now."""
    rows = tomllib.loads((HERE / "known.toml").read_text(encoding="utf-8"))["mutant"]
    return [(Mutant(row["path"], row["old"], row["new"], row.get("nth", 0)), tuple(row["tests"])) for row in rows]


def drawn(count: int, seed: int, only: tuple[str, ...] = ()) -> list[tuple[Mutant, tuple[str, ...]]]:
    """Draw changes from the files that a sample covers, from each file as many as from the next."""
    package, randomness = ROOT / "mcp_manager", random.Random(seed)
    paths = sorted(
        str(file.relative_to(package)) for pattern in FILES for file in package.glob(pattern) if file.stem != "__init__"
    )
    chosen = [path for path in paths if not only or any(fnmatch(path, pattern) for pattern in only)]
    found = [list(mutants_of(path, package / path)) for path in chosen]
    for each in (*found, found):
        randomness.shuffle(each)  # type: ignore[arg-type]  # both are lists
    turns = itertools.chain.from_iterable(itertools.zip_longest(*found))
    return [(each, suite_of(each.path)) for each in itertools.islice(filter(None, turns), count)]


def excused() -> dict[str, str]:
    rows = tomllib.loads((HERE / "survivors.toml").read_text(encoding="utf-8"))["survivor"]
    return {row["name"]: row["reason"] for row in rows}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="how many changes to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", action="append", default=[], help="files of the package, as a pattern; may be repeated"
    )
    options = parser.parse_args()
    chosen = drawn(options.sample, options.seed, tuple(options.only)) if options.sample else known()
    # Ended from outside, the run takes its copy and its tests with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory() as folder:
        checkout = Checkout(Path(folder))
        failed = checkout.failure_unchanged(tuple(dict.fromkeys(test for _, tests in chosen for test in tests)))
        if failed:
            print(f"nothing was changed: the tests fail without a change, {failed}")
            return 2
        survivors = tried(checkout, chosen, excused() if options.sample else {})
    print(
        f"\n{len(chosen)} changes, seed {options.seed}: {len(survivors)} that nobody noticed and nobody has explained"
    )
    for mutant in survivors:
        print(f"    {mutant.place(ROOT / 'mcp_manager')}")
    return 1 if survivors else 0


def tried(checkout: Checkout, chosen: list[tuple[Mutant, tuple[str, ...]]], reasons: dict[str, str]) -> list[Mutant]:
    """Make every change and return those that nobody noticed and nobody has explained."""
    survivors = []
    for number, (mutant, tests) in enumerate(chosen, 1):
        noticed = checkout.noticed_by(mutant, tests)
        reason = reasons.get(mutant.name, "")
        if not noticed and not reason:
            survivors.append(mutant)
        end = f"noticed by {noticed}" if noticed else f"SURVIVED: {reason}" if reason else "SURVIVED"
        print(f"{number}/{len(chosen)} {mutant.place(ROOT / 'mcp_manager')}\n    {end}", flush=True)
    return survivors


if __name__ == "__main__":
    sys.exit(main())
