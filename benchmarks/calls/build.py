"""Builds the loopback server on first use, in the checkout: it is only for benchmarks and tests, never installed."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.calls.checkout import BUILT, PROFILE, ROOT, child_environment
from mcp_manager.errors import McpManagerError

__all__ = ["BuildError", "build_loopback"]

_FOLDER: Final = Path(__file__).resolve().parent
_SOURCES: Final = tuple(_FOLDER / name for name in ("loopback.pyx", "request.pxd", "build.py"))
_NEEDED: Final = ("setuptools", "Cython")
_SHOWN: Final = 1000
_WARNINGS: Final = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-cast-function-type"]
_SANITIZERS: Final = ["-fsanitize=address,undefined"]


class BuildError(McpManagerError):
    """The loopback server cannot be built here."""


def build_loopback() -> Path:
    """Make ``benchmarks.calls.loopback`` importable: compile it unless it is newer than its sources.

    Several processes may call this at once: one compiles, and says so on standard error, while the others wait.

    Returns
    -------
    The file of the extension.

    Raises
    ------
    BuildError
        This is not Linux, a compiler or a required package is missing, or the compilation failed.
    """
    if sys.platform != "linux":
        raise BuildError("The benchmark's server runs on Linux only: it uses epoll")
    built = BUILT / f"loopback{sysconfig.get_config_var('EXT_SUFFIX')}"
    if _is_current(built):
        return built
    try:
        BUILT.mkdir(parents=True, exist_ok=True)
        with (BUILT / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Another process may have built it while this one waited for the lock.
            if not _is_current(built):
                _build(built)
    except OSError as error:
        raise BuildError(f"Cannot build the benchmark's server in {BUILT}: {error.strerror}") from error
    importlib.invalidate_caches()
    return built


def _is_current(built: Path) -> bool:
    try:
        return built.stat().st_mtime_ns > max(source.stat().st_mtime_ns for source in _SOURCES)
    except OSError:
        return False


def _build(built: Path) -> None:
    """Compile in another process, show its output only if it fails, and move the result into place in one step."""
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise BuildError(f"The benchmark's server cannot be built without {module}", hint="pip install '.[bench]'")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise BuildError(f"The benchmark's server cannot be built without a C compiler: there is no {compiler}")
    print("compiling the benchmark's server (once, some seconds)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "benchmarks.calls.build", folder, PROFILE],
            # Outside the checkout, since the settings there are those of the package.
            cwd=folder,
            # The compiler must not run under the sanitizer.
            env=child_environment() | {"LD_PRELOAD": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode != 0:
            raise BuildError("The benchmark's server could not be built", hint=done.stdout.strip()[-_SHOWN:])
        os.replace(Path(folder, "benchmarks", "calls", built.name), built)


def _compile(folder: str, profile: str) -> None:
    setuptools = importlib.import_module("setuptools")
    cythonize = importlib.import_module("Cython.Build").cythonize
    options = importlib.import_module("Cython.Compiler.Options")
    options.warning_errors = True  # type: ignore[attr-defined,unused-ignore]
    checked = profile == "sanitize"
    directives = {
        "language_level": "3",
        "boundscheck": checked,
        "wraparound": False,
        "cdivision": not checked,
        "nonecheck": True,
        "auto_pickle": False,
        "autotestdict": False,
    }
    macros: list[tuple[str, str | None]] = [] if checked else [("CYTHON_WITHOUT_ASSERTIONS", None)]
    optimized = ["-O0", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", *_SANITIZERS] if checked else ["-O3", "-g0"]
    extension = setuptools.Extension(
        "benchmarks.calls.loopback",
        [str(_FOLDER / "loopback.pyx")],
        define_macros=macros,
        extra_compile_args=[*optimized, *_WARNINGS],
        extra_link_args=_SANITIZERS if checked else [],
    )
    setuptools.setup(
        name="loopback",
        packages=[],
        ext_modules=cythonize(
            [extension], include_path=[str(ROOT)], compiler_directives=directives, build_dir=f"{folder}/c"
        ),
        script_args=["build_ext", "--build-lib", folder, "--build-temp", f"{folder}/objects"],
    )


if __name__ == "__main__":
    _compile(*sys.argv[1:])
