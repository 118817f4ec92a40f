"""The excerpt of a failing program's stderr has the line that names the error, whatever language it was written in."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mcp_manager.transports.stdio.stderr_excerpt import stderr_excerpt

PYTHON = """\
Traceback (most recent call last):
  File "/srv/server.py", line 3, in <module>
    main()
    ~~~~^^
  File "/srv/server.py", line 2, in main
    raise KeyError("API_KEY")
KeyError: 'API_KEY'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/server.py", line 9, in <module>
    raise pkg.errors.SetupFailed("API_KEY is not set")
pkg.errors.SetupFailed: API_KEY is not set
"""
PYTHON_GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/srv/server.py", line 1, in <module>
  |     main()
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/server.py", line 9, in main
    |     raise ValueError("no such port")
    | ValueError: no such port
    +------------------------------------
"""
NODE = """\
node:internal/modules/cjs/loader:1148
  throw err;
  ^

Error: Cannot find module '/srv/missing.js'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1145:15)
    at Module._load (node:internal/modules/cjs/loader:986:27)
    at Function.executeUserEntryPoint [as runMain] (node:internal/modules/run_main:174:12)
    at node:internal/main/run_main_module:28:49 {
  code: 'MODULE_NOT_FOUND',
  requireStack: []
}

Node.js v20.15.0
"""
NODE_MANY_LINES = """\
file:///srv/index.mjs:3
throw new ConfigProblem(`two things are wrong:
      ^

ConfigProblem [ERR_CONFIG]: two things are wrong:
- API_KEY is not set
- PORT is not a number
    at file:///srv/index.mjs:3:7
    at ModuleJob.run (node:internal/modules/esm/module_job:234:25)

Node.js v22.1.0
"""
GO = """\
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x47e2c1]

goroutine 1 [running]:
main.(*Server).start(...)
\t/srv/main.go:8
main.main()
\t/srv/main.go:12 +0x1d
created by main.init in goroutine 5
\t/srv/main.go:4 +0x25
exit status 2
"""
RUST = """\
thread 'main' panicked at src/main.rs:4:37:
called `Result::unwrap()` on an `Err` value: Os { code: 2, kind: NotFound, message: "No such file" }
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
"""
RUST_WITH_STACK = """\
thread 'main' (4711) panicked at src/main.rs:4:37:
API_KEY is not set
stack backtrace:
   0: rust_begin_unwind
             at /rustc/9fc6b4/library/std/src/panicking.rs:647:5
   1: core::panicking::panic_fmt
             at /rustc/9fc6b4/library/core/src/panicking.rs:72:14
note: Some details are omitted
"""
JAVA = """\
Exception in thread "main" java.lang.IllegalStateException: cannot start
\tat com.example.Server.start(Server.java:10)
\tat com.example.Main.main(Main.java:5)
Caused by: java.io.FileNotFoundException: config.yml (No such file or directory)
\tat java.base/java.io.FileInputStream.open0(Native Method)
\t... 2 more
"""
DOTNET = """\
Unhandled exception. System.InvalidOperationException: API_KEY is not set
   at Server.Program.Main(String[] args) in /srv/Program.cs:line 7
"""
RUBY = """\
/srv/server.rb:3:in `start': API_KEY is not set (ArgumentError)
\tfrom /srv/server.rb:9:in `<main>'
"""
PHP = """\
PHP Fatal error:  Uncaught RuntimeException: API_KEY is not set in /srv/server.php:3
Stack trace:
#0 /srv/server.php(9): start()
#1 {main}
  thrown in /srv/server.php on line 3
"""

CASES = {
    "python": (PYTHON, "pkg.errors.SetupFailed: API_KEY is not set"),
    "python, a group": (PYTHON_GROUP, "ValueError: no such port"),
    "node": (NODE, "Error: Cannot find module '/srv/missing.js'"),
    "node, many lines": (NODE_MANY_LINES, "- API_KEY is not set"),
    "go": (GO, "panic: runtime error: invalid memory address or nil pointer dereference"),
    "rust": (RUST, "called `Result::unwrap()` on an `Err` value"),
    "rust, with a stack": (RUST_WITH_STACK, "API_KEY is not set"),
    "java": (JAVA, "Caused by: java.io.FileNotFoundException: config.yml (No such file or directory)"),
    ".net": (DOTNET, "Unhandled exception. System.InvalidOperationException: API_KEY is not set"),
    "ruby": (RUBY, "/srv/server.rb:3:in `start': API_KEY is not set (ArgumentError)"),
    "php": (PHP, "PHP Fatal error:  Uncaught RuntimeException: API_KEY is not set in /srv/server.php:3"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("before", ["", "starting\nreading the configuration\n"])
def test_the_error_is_named_and_no_frame_is_quoted(name: str, before: str) -> None:
    trace, named = CASES[name]
    told = stderr_excerpt(before + trace, 5)
    assert any(named in line for line in told), told
    assert not any(
        "throw" in line or "    at " in line or "\tat " in line or 'File "' in line or ".go:" in line for line in told
    ), told


@pytest.mark.parametrize("name", CASES)
def test_the_error_is_named_however_much_was_written_after_it(name: str) -> None:
    trace, _ = CASES[name]
    errors = ("Error", "rror:", "panic", "Exception", "SetupFailed", "API_KEY", "two things", "Result::unwrap")
    told = stderr_excerpt(trace + "\n".join(f"npm notice {number}" for number in range(30)), 5)
    assert len(told) == 5
    assert any(error in told[0] for error in errors), told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", []),
        (" \n\n", []),
        ("one\n\ntwo\nthree\n", ["two", "three"]),
        ("FATAL: API_KEY is not set, waiting for it", ["FATAL: API_KEY is not set, waiting for it"]),
        # Frames are better than nothing.
        ("    at a (b.js:1:1)\n    at c (d.js:1:1)\n", ["    at a (b.js:1:1)", "    at c (d.js:1:1)"]),
    ],
)
def test_the_end_is_quoted_where_nothing_names_an_error(text: str, told: list[str]) -> None:
    assert stderr_excerpt(text, 2) == told


@pytest.mark.parametrize("line", ["a.(" * 20_000, "(" * 60_000, "Exception in thread " + "a " * 30_000, "a\n" * 30_000])
def test_hostile_output_is_read_in_no_time(line: str) -> None:
    # Were it read whole, or with patterns that go back and forth, this would take minutes.
    assert len(stderr_excerpt(line * 2, 5)) <= 5


def test_what_this_interpreter_writes_is_understood() -> None:
    code = "def f(n):\n  if n: f(n - 1)\n  raise LookupError('the cause')\nf(9)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert stderr_excerpt(ran.stderr, 5) == ["LookupError: the cause"]
