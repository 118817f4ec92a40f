"""A user's test-suite: it passes, and finds the mistakes that people make in such code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.documents import blocks_of
from support.orphans import no_orphans
from support.recipes import environment, folder_of
from support.suites import PLUGIN

RECIPE = "testing_your_code"
# Other plugins that are installed here are not of the recipe, and take a second to load.
OTHERS = [f"-pno:{each}" for each in ("benchmark", "hypothesispytest", "schemathesis", "timeout", "typeguard", "xdist")]
PYTEST = (sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", *OTHERS, *PLUGIN)
# A user's run keeps what it compiles; with the first two of these set, pytest reports more.
PLAIN = {"CI": "", "BUILD_NUMBER": "", "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": ""}

MUTANTS = {
    "repeats what may have been executed": (
        'if error.delivery not in ("not_sent", "rejected"):',
        'if error.delivery == "answered":',
        "test_what_may_have_been_executed_is_undone_and_not_repeated[truncated]",
    ),
    "takes a new id for each attempt": (
        "return await self._book(booking_id, seat, passenger)",
        "return await self._book(str(uuid.uuid4()), seat, passenger)",
        "test_what_was_not_executed_is_tried_again[overloaded]",
    ),
    "leaves what may have been executed": (
        "                    await self._undo(booking_id)\n                    raise NotBookedError(",
        "                    raise NotBookedError(",
        "test_what_may_have_been_executed_is_undone_and_not_repeated[reset-after]",
    ),
    "swallows the failure of the cancellation": (
        "            raise UncertainBookingError(booking_id) from error",
        "            return",
        "test_a_booking_that_cannot_be_undone_is_reported",
    ),
    "reports only some failures of the cancellation": (
        "        except McpManagerError as error:",
        "        except (CallError, RpcError, ToolError) as error:",
        "test_a_booking_is_reported_whose_server_was_removed",
    ),
    "never tries again": (
        "if not error.retryable or not attempts_left:",
        "if True:",
        "test_what_was_not_executed_is_tried_again[overloaded]",
    ),
    "waits without a timeout": (
        "arguments, into=Confirmation, timeout=self._timeout_s",
        "arguments, into=Confirmation, timeout=3600",
        "test_what_may_have_been_executed_is_undone_and_not_repeated[no-answer]",
    ),
    "forgets the caller that leaves": (
        "            except asyncio.CancelledError:\n                await self._undo(booking_id)\n                raise\n",
        "",
        "test_a_caller_that_leaves_has_no_booking",
    ),
    "takes a refusal for an outage": (
        "            except (ToolError, RpcError) as error:\n"
        '                raise NotBookedError(f"The server refused: {error}") from error\n',
        "            except (ToolError, RpcError):\n                wait_s = pause_s\n",
        "test_a_refusal_is_final",
    ),
}
"""By what is wrong: a text of ``booking.py``, what it becomes, and the test that must fail."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the recipe, as its user has it."""
    copy = tmp_path / "project"
    shutil.copytree(folder_of(RECIPE), copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    with no_orphans():
        return subprocess.run(
            [*PYTEST, *options],
            cwd=folder,
            env=environment(**PLAIN),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


def test_the_suite_passes(folder: Path) -> None:
    ran = run_pytest(folder)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert re.search(r"^28 passed in ", ran.stdout, re.MULTILINE), ran.stdout


def test_the_suite_finds_each_mistake(folder: Path) -> None:
    """In one run of pytest: each mutant is a module of its own, with the tests of its own."""
    code, tests = (folder / "booking.py").read_text("utf-8"), (folder / "test_booking.py").read_text("utf-8")
    wanted = []
    for number, (old, new, test) in enumerate(MUTANTS.values()):
        assert code.count(old) == 1, old
        (folder / f"booking_{number}.py").write_text(code.replace(old, new), "utf-8")
        importing = tests.replace("from booking import", f"from booking_{number} import")
        # A mutant that hangs must not take as long as the tests would wait.
        (folder / f"test_mutant_{number}.py").write_text(importing.replace("SOON_S = 20.0", "SOON_S = 1.0"), "utf-8")
        wanted.append(f"test_mutant_{number}.py::{test}")
    ran = run_pytest(folder, *wanted)
    failed = re.findall(r"^FAILED (\S+)", ran.stdout, re.MULTILINE)
    assert failed == wanted, ran.stdout


@pytest.mark.slow
def test_the_suite_passes_with_anyio(folder: Path) -> None:
    settings = (folder / "pyproject.toml").read_text("utf-8")
    for line in ('asyncio_mode = "auto"\n', 'asyncio_default_fixture_loop_scope = "function"\n'):
        assert line in settings
        settings = settings.replace(line, "")
    (folder / "pyproject.toml").write_text(settings, "utf-8")
    mark, fixture = (each.text for each in blocks_of(folder / "README.md") if each.language == "python")
    for path in folder.glob("test_*.py"):
        path.write_text(f"{path.read_text('utf-8')}\n{mark}", "utf-8")
    with (folder / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(f"\n{fixture}")
    ran = run_pytest(folder, "-p", "no:asyncio")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert re.search(r"^28 passed in ", ran.stdout, re.MULTILINE), ran.stdout
