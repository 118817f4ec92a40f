"""``python -m tests.fuzz``: run every target in child processes, so that a crash is seen, told and can be repeated."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOGS: Final = ROOT / "build" / "fuzz"
# The checkout comes last: where the package is installed apart from it, its folder here has no compiled modules.
_CHILD: Final = (
    f"import runpy, sys; sys.path.append({str(ROOT)!r}); runpy.run_module('tests.fuzz', run_name='__main__')"
)
TARGETS: Final = ("api", "messages", "replies", "mending", "stateless_frame", "events", "wires", "served", "loopback")
BATCH: Final = 100
# Of one sequence; it takes milliseconds, and ten times that under a sanitizer.
STUCK_AFTER_S: Final = 30
MOST_MEMORY: Final = 3 << 30
# What is huge is refused as it is without a sanitizer, by MemoryError.
SANITIZER_OPTIONS: Final = "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048"


def target_of(name: str) -> Callable[[random.Random, Callable[[str], None]], None]:
    """Return what fuzzes one target; the core is loaded by a child, and only there."""
    from . import api, parsers, traffic  # noqa: PLC0415

    return {
        "api": api.fuzz,
        "messages": parsers.fuzz_messages,
        "replies": parsers.fuzz_replies,
        "mending": parsers.fuzz_mending,
        "stateless_frame": parsers.fuzz_stateless_frame,
        "events": parsers.fuzz_events,
        "wires": traffic.fuzz_wires,
        "served": traffic.fuzz_served,
        "loopback": traffic.fuzz_loopback,
    }[name]


def run_child(name: str, seed: int, sequences: int, log_path: Path) -> None:
    """Run sequences in this process; the log holds the last one, up to its last operation."""
    if "asan" not in os.environ.get("LD_PRELOAD", ""):
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    faulthandler.enable()
    fuzz = target_of(name)
    # What is there for good need not be looked through again and again.
    gc.freeze()
    with log_path.open("wb", buffering=0) as log:
        for each in range(seed, seed + sequences):
            faulthandler.dump_traceback_later(STUCK_AFTER_S, exit=True)
            log.seek(0)
            log.truncate()
            log.write(b"seed %d\n" % each)
            fuzz(random.Random(f"{name} {each}"), lambda line: log.write(line.encode("utf-8", "replace") + b"\n"))
    faulthandler.cancel_dump_traceback_later()


def run_batch(name: str, seed: int, sequences: int) -> bool:
    """Run sequences in a child; tell what happened if it does not end well."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log_path = LOGS / f"{name}-{seed}.log"
    command = [sys.executable, "-P", "-c", _CHILD, "--child", str(log_path), "--target", name]
    command += ["--seed", str(seed), "--sequences", str(sequences)]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "malloc"}
    environment["ASAN_OPTIONS"] = ":".join(filter(None, [SANITIZER_OPTIONS, os.environ.get("ASAN_OPTIONS")]))
    environment.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
    child = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    if child.returncode == 0:
        log_path.unlink(missing_ok=True)
        return True
    operations = log_path.read_text(encoding="utf-8").splitlines()
    failed = int(operations[0].split()[1]) if operations else seed
    ending = f"signal {signal.Signals(-child.returncode).name}" if child.returncode < 0 else f"exit {child.returncode}"
    print(f"\n{name} failed ({ending}) in the sequence of seed {failed}; the last operations, all in {log_path}:")
    print("\n".join(operations[-25:]))
    print(child.stderr.decode("utf-8", "replace")[:6000])
    print(f"again: python -m tests.fuzz --target {name} --seed {failed} --sequences 1")
    print(f"after the same ones as here: --seed {seed} --sequences {failed - seed + 1}")
    return False


def run_target(name: str, seed: int, sequences: int | None, seconds: float) -> bool:
    """Run batches until there were enough, or time is up."""
    started, done = time.monotonic(), 0
    while sequences is None or done < sequences:
        count = BATCH if sequences is None else min(BATCH, sequences - done)
        if not run_batch(name, seed + done, count):
            return False
        done += count
        if sequences is None and time.monotonic() - started >= seconds:
            break
    print(f"{name}: {done} sequences from seed {seed}, {time.monotonic() - started:.1f} s", flush=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the compiled core.")
    parser.add_argument("--seed", type=int, help="of the first sequence; the next ones count on from it")
    parser.add_argument("--target", action="append", choices=TARGETS, help="more than once for several; default all")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=60.0, help="for all targets together (default 60)")
    length.add_argument("--sequences", type=int, help="of each target, in place of a time")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if given.seed is None else given.seed
    names = given.target or list(TARGETS)
    if given.child is not None:
        run_child(names[0], seed, given.sequences, given.child)
        return 0
    if "loopback" in names:
        from benchmarks.calls.build import build_loopback  # noqa: PLC0415

        # A child has too little time and memory to compile it.
        build_loopback()
    print(f"seed {seed}", flush=True)
    passed = [run_target(name, seed, given.sequences, given.seconds / len(names)) for name in names]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
