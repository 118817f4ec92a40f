"""The benchmark's server is compiled on first use: once, by one process, and again when its source has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.calls.checkout import ROOT, child_environment

BUILD = "from benchmarks.calls.build import build_loopback; print(build_loopback()); import benchmarks.calls.loopback"
SAID = "compiling the benchmark's server"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the loopback server waits with epoll")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the benchmark in which nothing has been built."""
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def building(checkout: Path, code: str = BUILD, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(checkout), child_environment()["PYTHONPATH"]])
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": paths},
    )


def test_several_processes_build_it_once_and_a_new_source_builds_it_again(checkout: Path) -> None:
    first = [building(checkout) for _ in range(3)]
    outputs = [process.communicate(timeout=100) for process in first]
    assert [process.returncode for process in first] == [0, 0, 0], outputs
    (built,) = {Path(out.strip()) for out, _ in outputs}
    assert built.is_relative_to(checkout / "build" / "benchmarks")
    assert "".join(errors for _, errors in outputs).count("\n") == 1
    assert SAID in "".join(errors for _, errors in outputs)
    assert {path.name for path in built.parent.iterdir()} == {"lock", built.name}
    assert {path.name for path in checkout.iterdir()} == {"benchmarks", "build"}

    with building(checkout) as again:
        assert again.communicate(timeout=60) == (f"{built}\n", "")
    later = built.stat().st_mtime_ns + 1
    os.utime(checkout / "benchmarks" / "calls" / "request.pxd", ns=(later, later))
    with building(checkout) as anew:
        _, errors = anew.communicate(timeout=100)
    assert anew.returncode == 0 and SAID in errors


@pytest.mark.parametrize(
    ("code", "environment", "said"),
    [
        (BUILD, {"CC": "/no/such/compiler -O2"}, "without a C compiler: there is no /no/such/compiler"),
        (BUILD, {"CC": "false"}, "could not be built"),
        (f"import sys; sys.modules['Cython'] = None; {BUILD}", {}, "cannot be built without Cython"),
        (f"import sys; sys.platform = 'darwin'; {BUILD}", {}, "runs on Linux only"),
    ],
)
def test_what_is_missing_is_said_in_one_line(checkout: Path, code: str, environment: dict[str, str], said: str) -> None:
    with building(checkout, code, **environment) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "BuildError: " in errors and said in errors
    assert [path for path in checkout.rglob("*") if path.suffix in (".so", ".c", ".o")] == []


def test_the_program_ends_with_the_reason_and_status_2(checkout: Path) -> None:
    paths = os.pathsep.join([str(checkout), child_environment()["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks", "--quick"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "CC": "/no/such/compiler", "PYTHONPATH": paths},
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "without a C compiler" in done.stderr and done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_said(checkout: Path) -> None:
    (checkout / "build").write_text("not a folder", encoding="utf-8")
    with building(checkout) as process:
        _, errors = process.communicate(timeout=60)
    assert "Cannot build the benchmark's server in" in errors.splitlines()[-1]
