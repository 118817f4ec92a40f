"""A test that never ends is ended, on each loop and wherever it waits, and the report says where."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.suites import run_suite

CONFTEST = f"""
import asyncio
import sys

sys.path.append({str(Path(__file__).resolve().parents[2])!r})
from support import time_limits

time_limits.ENDING_S = 0.5

def pytest_configure(config):
    config.pluginmanager.register(time_limits)

def pytest_asyncio_loop_factories(config, item):
    factories = {{"asyncio": asyncio.SelectorEventLoop}}
    if not item.name.startswith("test_on_asyncio"):
        factories["uvloop"] = __import__("uvloop").new_event_loop
    return {{name: time_limits.ending_with_test(each) for name, each in factories.items()}}
"""

SUITE = """
    import asyncio
    import time
    import pytest

    async def test_that_waits():
        await asyncio.Event().wait()

    async def test_whose_callbacks_go_on():
        loop = asyncio.get_running_loop()
        def again():
            time.sleep(0.01)
            loop.call_soon(again)
        again()
        await asyncio.Event().wait()

    async def test_that_begins_afterwards():
        await asyncio.sleep(0)
"""

ENDLESS_SUITE = """
    import asyncio
    import pytest

    @pytest.fixture
    async def endless():
        yield
        await asyncio.Event().wait()

    async def test_on_asyncio(endless):
        assert not "it fails, and its fixture does not end"
"""

OPTIONS = ("-o", "asyncio_mode=auto", "--timeout", "0.3")


def test_it_fails_on_each_loop(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    ran = run_suite(tmp_path, SUITE, *OPTIONS, plugins=("asyncio", "timeout"))
    assert "4 failed, 2 passed" in ran.stdout, ran.stdout + ran.stderr
    assert ran.stdout.count("Failed: Timeout (>0.3s) from pytest-timeout.") >= 4, ran.stdout


def test_its_process_ends_if_its_fixtures_do_not(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    ran = run_suite(tmp_path, ENDLESS_SUITE, *OPTIONS, plugins=("asyncio", "timeout"))
    assert (ran.returncode, ran.stderr[:8]) == (1, "Timeout "), ran.stdout + ran.stderr
    assert "in run_until_complete" in ran.stderr
