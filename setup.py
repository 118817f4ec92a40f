"""Build of the compiled core. ``MCP_MANAGER_BUILD`` selects a profile: release, quick, debug, trace or sanitize."""

import multiprocessing
import os
import sys

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

PROFILE = os.environ.get("MCP_MANAGER_BUILD", "release")
if PROFILE not in {"release", "quick", "debug", "trace", "sanitize"}:
    raise SystemExit(f"MCP_MANAGER_BUILD={PROFILE!r} is not a build profile: release, quick, debug, trace or sanitize")
# The same code as a release, compiled in half the time: it has not been optimized much.
RELEASED = PROFILE in {"release", "quick"}

HEADERS = {
    "jsonrpc": ["mcp_manager/_core/json_blocks.h", "mcp_manager/_core/json_block_scan.h"],
    "json_weight": ["mcp_manager/_core/json_blocks.h"],
}
MODULES = (
    "histogram",
    "breaker",
    "limiter",
    "allowance",
    "records",
    "balancing",
    "snapshots",
    "tool_table",
    "router",
    "mending",
    "json_weight",
    "jsonrpc",
    "sse",
    "deadlines",
    "http_message",
    "event_stream",
    "paced",
    "response_reader",
    "recipients",
    "wire",
    "request_head",
    "chunked_body",
    "http_response",
    "serving_limits",
    "serving",
    "stateless_frame",
    "tool_calls",
    "splicing",
    "call_ring",
    "metric_lines",
    "exposition",
    "readings",
    "call_path",
    "call_texts",
    "client_limits",
    "known_calls",
    "forward_path",
    "permanence",
)

Options.warning_errors = True
checked = not RELEASED
directives = {
    "language_level": "3",
    "boundscheck": checked,
    "wraparound": False,
    "cdivision": not checked,
    "nonecheck": True,
    "linetrace": PROFILE == "trace",
    "auto_pickle": False,
    "autotestdict": False,
}
macros: list[tuple[str, str | None]] = []
compile_args: list[str] = []
link_args: list[str] = []
if RELEASED:
    macros.append(("CYTHON_WITHOUT_ASSERTIONS", None))
if PROFILE == "trace":
    macros += [("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]
if sys.platform != "win32":
    compile_args += ["-O3" if PROFILE == "release" else "-O1", "-g0"] if RELEASED else ["-O0", "-g", "-UNDEBUG"]
    compile_args += ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-cast-function-type"]
if PROFILE == "sanitize":
    compile_args += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    link_args += ["-fsanitize=address,undefined"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"mcp_manager._core.{module}",
                [f"mcp_manager/_core/{module}.pyx"],
                depends=HEADERS.get(module, []),
                include_dirs=["mcp_manager/_core"],
                define_macros=macros,
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
            for module in MODULES
        ],
        compiler_directives=directives,
        annotate=PROFILE == "debug",
        # Other ways to start a process lose the options above.
        nthreads=(os.cpu_count() or 1) if multiprocessing.get_start_method() == "fork" else 0,
        # For whoever builds the same sources in several folders.
        cache=os.environ.get("CYTHON_CACHE_DIR", False),
        # Coverage of a .pyx needs the generated C beside it; every other profile keeps the tree clean.
        build_dir=None if PROFILE == "trace" else f"build/cython-{PROFILE}",
    ),
    # Objects of another profile look up to date to setuptools.
    options={"build_ext": {"force": True, "parallel": os.cpu_count()}},
)
