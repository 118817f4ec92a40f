"""A file is followed: what is written into it comes, however it is written; what cannot be read changes nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calls import echo, eventually, text_of

from mcp_manager import (
    ConfigApplied,
    ConfigError,
    ManagerConfig,
    McpManager,
    NotRunningError,
    PyMcpManager,
    load_manager_config,
)
from mcp_manager.config.load import FleetFile, load_fleet_file
from mcp_manager.fleet import file_watch
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import ScriptedServer

SOON = {"interval_s": 0.02}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def text_for(server: ScriptedServer, *ids: str, more: str = "") -> str:
    defaults = "[defaults]\nhealth = { enabled = false }\nconnect_timeout_s = 2\nshutdown_grace_s = 1\n"
    return defaults + more + "".join(f'[servers.{each}]\nurl = "{server.url}"\n' for each in ids)


def ids(manager: McpManager | PyMcpManager) -> list[str]:
    views: Any = manager.servers() if isinstance(manager, McpManager) else manager.list_servers()
    return sorted(view.id for view in views)


def replace(path: Path, text: str) -> None:
    """Replace a file in one step, as editors and deployment tools do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.rename(path)


async def becomes(manager: McpManager | PyMcpManager, *expected: str) -> None:
    await eventually(lambda: ids(manager) == list(expected), f"the fleet {expected}")


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        each.getMessage()
        for each in caplog.records
        if each.name == "mcp_manager.fleet.file_watch" and each.levelno >= logging.WARNING
    ]


@pytest.mark.both_loops
async def test_it_is_applied_at_once_and_whenever_it_changes(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    async with McpManager() as manager:
        applied = await manager.watch(path, **SOON)
        assert applied.deployed == ("a",)
        assert manager.watched is not None
        assert (manager.watched.path, manager.watched.applied, manager.watched.problem) == (str(path), applied, "")
        path.write_text(text_for(server, "a", "b"), encoding="utf-8")
        await becomes(manager, "a", "b")
        replace(path, text_for(server, "b", "c"))
        await becomes(manager, "b", "c")
        replace(path, text_for(server, "b", "c", more='tags = ["x"]\n'))
        await eventually(lambda: manager.watched is not None and manager.watched.applied.updated == ("b", "c"), "tags")
        assert manager.server("b").tags == ("x",)
        assert text_of(await manager.execute_raw("b", echo("x"))) == "x"
    # One session each: what did not change was left alone.
    assert len(server.requests_of("initialize")) == 3
    assert manager.watched is None


async def test_a_link_that_changes_anywhere_above_the_file(server: ScriptedServer, tmp_path: Path) -> None:
    # As Kubernetes mounts a ConfigMap: fleet.toml -> ..data/fleet.toml, and ..data -> a directory with a date.
    for name, servers in (("..first", ["a"]), ("..second", ["a", "b"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fleet.toml").write_text(text_for(server, *servers), encoding="utf-8")
    (tmp_path / "..data").symlink_to("..first")
    (tmp_path / "fleet.toml").symlink_to("..data/fleet.toml")
    async with McpManager() as manager:
        await manager.watch(tmp_path / "fleet.toml", **SOON)
        assert ids(manager) == ["a"]
        (tmp_path / "..data_tmp").symlink_to("..second")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await becomes(manager, "a", "b")


async def test_a_bad_file_changes_nothing_warns_once_and_a_good_one_comes_after_it(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, **SOON)
        bad = {
            "malformed TOML": "[servers.a",
            "servers.b.url": text_for(server, "a") + '[servers.b]\nurl = "nonsense"\n',
            "it is empty": "",
            "servers.a.instances": text_for(server) + f'[servers.a]\nurl = ["{server.url}"]\ninstances = 3\n',
        }
        for number, (problem, text) in enumerate(bad.items(), start=1):
            replace(path, text)
            await eventually(lambda n=number: len(warnings_in(caplog)) == n, "the warning")  # type: ignore[misc]
            assert problem in warnings_in(caplog)[-1]
            assert manager.watched is not None
            assert problem in manager.watched.problem
        path.unlink()
        await eventually(lambda: len(warnings_in(caplog)) == len(bad) + 1, "the warning")
        assert "cannot be read" in warnings_in(caplog)[-1]
        # Some more looks at it: nothing is told twice.
        await asyncio.sleep(0.1)
        assert len(warnings_in(caplog)) == len(bad) + 1
        assert ids(manager) == ["a"]
        replace(path, text_for(server, "a", "c"))
        await becomes(manager, "a", "c")
        await manager.wait_ready(timeout=10)
        await eventually(lambda: manager.watched is not None and manager.watched.problem == "", "no problem")
    assert len(server.requests_of("initialize")) == 2


async def test_a_file_is_not_read_while_it_is_written(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fleet.toml"
    text = text_for(server, "a", "b", "c")
    path.write_text(text, encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, interval_s=0.25)
        # Every beginning of the file that ends with a line is a valid file, with fewer servers.
        with path.open("w", encoding="utf-8", buffering=1) as file:
            for line in [*text.splitlines(), "[servers.d]", f'url = "{server.url}"']:
                file.write(f"{line}\n")
                await asyncio.sleep(0.02)
                assert ids(manager) == ["a", "b", "c"]
        await becomes(manager, "a", "b", "c", "d")
        await manager.wait_ready(timeout=10)
    assert warnings_in(caplog) == []
    assert len(server.requests_of("initialize")) == 4


async def test_a_file_that_is_missing_for_a_moment_is_no_problem(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, **SOON)
        path.unlink()
        await asyncio.sleep(0.06)
        path.write_text(text_for(server, "a", "b"), encoding="utf-8")
        await becomes(manager, "a", "b")
    assert warnings_in(caplog) == []


async def test_a_bad_file_begins_no_watch_and_leaves_the_one_before(server: ScriptedServer, tmp_path: Path) -> None:
    path, bad = tmp_path / "fleet.toml", tmp_path / "bad.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    bad.write_text("[servers.a", encoding="utf-8")
    async with McpManager() as manager:
        for wrong in (bad, tmp_path / "missing.toml", 7, None):
            with pytest.raises(ConfigError):
                await manager.watch(wrong)  # type: ignore[arg-type]
            assert manager.watched is None
        for arguments in ({"interval_s": 0}, {"interval_s": "1"}, {"sighup": "yes"}, {"lenient": 1}):
            with pytest.raises(ValueError, match=r"interval_s|sighup|lenient"):
                await manager.watch(path, **arguments)
        await manager.watch(path, **SOON)
        with pytest.raises(ConfigError):
            await manager.watch(bad)
        replace(path, text_for(server, "b"))
        await becomes(manager, "b")
        # Another file takes the place of the first.
        other = tmp_path / "other.toml"
        other.write_text(text_for(server, "c"), encoding="utf-8")
        await manager.watch(other, **SOON)
        replace(path, text_for(server, "d"))
        replace(other, text_for(server, "e"))
        await becomes(manager, "e")
        await manager.unwatch()
        await manager.unwatch()
        assert manager.watched is None


async def test_servers_that_are_left_out_are_named(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mcp_manager")
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a", "c") + "[servers.b]\nurl = 5\n", encoding="utf-8")
    async with McpManager() as manager:
        applied = await manager.watch(path, lenient=True, **SOON)
        assert (applied.deployed, applied.invalid) == (("a", "c"), ("b",))
        replace(path, "[servers.a]\nurl = 5\n" + text_for(server, "b", "c"))
        await becomes(manager, "a", "b", "c")
        await eventually(lambda: manager.watched is not None and manager.watched.applied.invalid == ("a",), "the names")
    lines = [each.getMessage() for each in caplog.records]
    assert "configuration applied: 2 deployed, 1 invalid (b)" in lines
    assert "configuration applied: 1 deployed, 1 invalid (a)" in lines


async def test_several_watches_at_once_leave_one(server: ScriptedServer, tmp_path: Path) -> None:
    paths = [tmp_path / f"{each}.toml" for each in "abc"]
    for path in paths:
        path.write_text(text_for(server, path.stem), encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(paths[0], **SOON)
        await asyncio.gather(*(manager.watch(each, **SOON) for each in paths * 2))
        assert manager.watched is not None
        last = Path(manager.watched.path)
        for path in paths:
            replace(path, text_for(server, f"{path.stem}2"))
        await becomes(manager, f"{last.stem}2")
        assert len([each for each in asyncio.all_tasks() if each.get_name() == "watch a file"]) == 1


async def test_a_watch_that_is_slow_to_end_is_replaced_by_one(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    may_look, is_looking, look = threading.Event(), threading.Event(), file_watch._look_at
    may_look.set()

    def slow(path: Any) -> Any:
        if not may_look.is_set():
            is_looking.set()
            may_look.wait(10)
        return look(path)

    async with McpManager() as manager:
        with monkeypatch.context() as patched:
            patched.setattr(file_watch, "_look_at", slow)
            await manager.watch(path, **SOON)
        may_look.clear()
        await eventually(is_looking.is_set, "a look that takes long")
        # Both are ready before the first watch has ended.
        await asyncio.gather(*(manager.watch(path, **SOON) for _ in range(2)))
        may_look.set()
        assert len([each for each in asyncio.all_tasks() if each.get_name() == "watch a file"]) == 1


@pytest.mark.parametrize("is_valid", [True, False])
async def test_a_file_that_changes_while_it_is_read_is_read_again(
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_valid: bool,
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a", "b"), encoding="utf-8")

    def load(where: Any, *, lenient: bool) -> FleetFile:
        try:
            return load_fleet_file(where, lenient=lenient)
        finally:
            # The rest of it is written.
            replace(path, text_for(server, "a", "b", "c"))

    async with McpManager() as manager:
        await manager.watch(path, **SOON)
        with monkeypatch.context() as patched:
            patched.setattr(file_watch, "load_fleet_file", load)
            replace(path, text_for(server, "a") if is_valid else "[servers.a")
            await eventually(lambda: "servers.c" in path.read_text(), "the rest")
        await becomes(manager, "a", "b", "c")
        await manager.wait_ready(timeout=10)
    assert warnings_in(caplog) == []
    # The server that was missing from the first half was never removed.
    assert len(server.requests_of("initialize")) == 3


async def test_the_file_stays_the_same_in_another_directory(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fleet.toml").write_text(text_for(server, "a"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    async with McpManager() as manager:
        await manager.watch("fleet.toml", **SOON)
        monkeypatch.chdir("/")
        replace(tmp_path / "fleet.toml", text_for(server, "b"))
        await becomes(manager, "b")


async def test_an_unexpected_failure_is_logged_once_and_the_next_state_is_followed(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, **SOON)
        with monkeypatch.context() as patched:
            patched.setattr(file_watch, "load_fleet_file", lambda path, lenient: 1 / 0)
            path.touch()
            await eventually(lambda: len(warnings_in(caplog)) == 1, "the failure")
            await asyncio.sleep(0.1)
            assert len(warnings_in(caplog)) == 1
            assert manager.watched is not None
            assert manager.watched.problem == "ZeroDivisionError: division by zero"
        replace(path, text_for(server, "b"))
        await becomes(manager, "b")


async def test_a_lenient_watch_takes_what_is_valid(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a") + '[servers.bad]\nurl = "nonsense"\n', encoding="utf-8")
    async with McpManager() as manager:
        with pytest.raises(ConfigError):
            await manager.watch(path)
        await manager.watch(path, lenient=True, **SOON)
        assert ids(manager) == ["a"]
        replace(path, text_for(server, "a", "b") + '[servers.bad]\nurl = "nonsense"\n')
        await becomes(manager, "a", "b")


async def test_a_lenient_watch_keeps_a_server_that_becomes_invalid(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a", "b", "c"), encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, lenient=True, **SOON)
        replace(path, text_for(server, "a", "new") + '[servers.b]\nurl = "nonsense"\n')
        await becomes(manager, "a", "b", "new")
        assert (await manager.call_tool("b", "echo", {"text": "as before"})).text == "as before"
        replace(path, text_for(server, "a"))
        await becomes(manager, "a")


async def test_a_file_that_changes_while_another_takes_its_place_does_not_win(
    server: ScriptedServer, tmp_path: Path
) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(text_for(server, "a"), encoding="utf-8")
    with ScriptedServer() as slow:
        hold = Hold()
        slow.script("initialize", hold)
        new.write_text(text_for(server, "new") + f'[servers.slow]\nurl = "{slow.url}"\n', encoding="utf-8")
        async with McpManager() as manager:
            await manager.watch(old, **SOON)
            changing = asyncio.create_task(manager.watch(new, **SOON))
            await slow.wait_for("initialize", 1)
            replace(old, text_for(server, "a", "b"))
            # The change waits for its turn.
            await eventually(lambda: manager._file_watch._applying is not None, "the change of the old file")
            hold.release()
            await changing
            assert sorted(ids(manager)) == ["new", "slow"]


async def test_what_others_change_stays_until_the_file_changes(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, **SOON)
        await manager.deploy("mine", {"url": server.url})
        await manager.undeploy("a")
        path.touch()
        await becomes(manager, "a")


async def test_changed_settings_of_the_manager_are_told(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, **SOON)
        for _ in range(2):
            replace(path, "[manager]\nmax_concurrent = 7\n" + text_for(server, "b"))
            await eventually(lambda: len(warnings_in(caplog)) == 1, "the warning")
    assert "take effect with the next start" in warnings_in(caplog)[0]


async def test_a_large_file_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    servers = "".join(f'[servers.s{each}]\nurl = "http://127.0.0.1:1/mcp"\nconnect = "lazy"\n' for each in range(500))
    path.write_text(servers, encoding="utf-8")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with McpManager() as manager:
        counting = asyncio.create_task(count())
        await manager.watch(path, **SOON)
        assert turns > 20
        assert manager.health().total_servers == 500
        counting.cancel()
        await asyncio.wait({counting})


@pytest.mark.both_loops
@pytest.mark.parametrize("passes", [0, 1, 2, 3, 5, 8, 13, 30, 60])
async def test_giving_up_or_stopping_leaves_nothing(server: ScriptedServer, tmp_path: Path, passes: int) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a", "b"), encoding="utf-8")
    for how in ("cancel", "stop"):
        manager = McpManager()
        await manager.start()
        watching = asyncio.create_task(manager.watch(path, sighup=True, **SOON))
        for _ in range(passes):
            await asyncio.sleep(0)
        if how == "cancel":
            watching.cancel()
            await asyncio.wait({watching})
        await manager.stop()
        await asyncio.wait({watching})
        if not watching.cancelled() and watching.exception() is not None:
            assert isinstance(watching.exception(), NotRunningError)
        assert manager.watched is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        with pytest.raises(NotRunningError):
            await manager.watch(path)


# Signals


@pytest.mark.both_loops
async def test_a_signal_has_the_file_read_again_and_reaches_the_handler_before(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a").replace(server.url, "${WHERE}"), encoding="utf-8")
    monkeypatch.setenv("WHERE", server.url)
    received: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: received.append(number))
    ours = signal.getsignal(signal.SIGHUP)
    try:
        with ScriptedServer() as other:
            async with McpManager() as manager:
                await manager.watch(path, sighup=True, interval_s=3600.0)
                # The file is the same; what it refers to is not.
                monkeypatch.setenv("WHERE", other.url)
                os.kill(os.getpid(), signal.SIGHUP)
                await other.wait_for("initialize")
                assert received == [signal.SIGHUP]
                await eventually(
                    lambda: manager.watched is not None and manager.watched.applied.redeployed == ("a",), "the move"
                )
                # Whoever asks sees that it was done, though nothing has changed.
                applied = manager.events(kinds=[ConfigApplied])
                os.kill(os.getpid(), signal.SIGHUP)
                async with asyncio.timeout(10):
                    event = await anext(applied)
                assert isinstance(event, ConfigApplied) and event.redeployed == ()
        assert signal.getsignal(signal.SIGHUP) is ours
    finally:
        signal.signal(signal.SIGHUP, before)


PROGRAM = """
    import asyncio, os, signal, sys, threading, time
    from mcp_manager import McpManager, PyMcpManager

    def show(manager, views):
        print(" ".join(sorted(view.id for view in views)), flush=True)

    async def native():
        async with McpManager() as manager:
            await manager.watch(sys.argv[1], sighup=True, interval_s=3600)
            show(manager, manager.servers())
            while len(manager.servers()) == 1:
                await asyncio.sleep(0.01)
            show(manager, manager.servers())
        os.kill(os.getpid(), signal.SIGHUP)

    def threaded():
        manager = PyMcpManager(sys.argv[1])
        manager.start()
        manager.watch(sighup=True, interval_s=3600)
        show(manager, manager.list_servers())
        while len(manager.list_servers()) == 1:
            time.sleep(0.01)
        show(manager, manager.list_servers())
        if sys.argv[2] == "elsewhere":
            # Stopped on another thread: the next signal ends the process all the same.
            stopping = threading.Thread(target=manager.stop)
            stopping.start()
            stopping.join()
        else:
            manager.stop()
        os.kill(os.getpid(), signal.SIGHUP)

    if sys.argv[2] == "asyncio":
        asyncio.run(native())
    elif sys.argv[2] == "uvloop":
        import uvloop
        uvloop.run(native())
    else:
        threaded()
    print("the signal was lost", flush=True)
"""


@pytest.mark.parametrize(
    "where",
    [
        "asyncio",
        "thread",
        pytest.param("uvloop", marks=pytest.mark.slow),
        pytest.param("elsewhere", marks=pytest.mark.slow),
    ],
)
def test_a_process_follows_its_file_by_signals_until_the_manager_stops(
    server: ScriptedServer, tmp_path: Path, where: str
) -> None:
    if where == "uvloop":
        pytest.importorskip("uvloop")
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(program), str(path), where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "a\n"
        replace(path, text_for(server, "a", "b"))
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "a b\n"
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors) == (-signal.SIGHUP, "", "")
    finally:
        process.kill()
        process.communicate()


# PyMcpManager


async def test_the_file_of_a_manager_on_a_thread(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    with PyMcpManager(path) as manager:
        assert manager.watched is None
        # From another loop than its own.
        assert (await manager.watch_async(**SOON)).unchanged == 1
        replace(path, text_for(server, "a", "b"))
        await becomes(manager, "a", "b")
        await manager.unwatch_async()
        # It has waited for the connection that was being made.
        assert (await manager.apply_async(path)).unchanged == 2
        assert (await manager.apply_async(load_manager_config(path))).unchanged == 2
        with pytest.raises(ConfigError):
            await manager.apply_async(tmp_path / "missing.toml")
    assert len(server.requests_of("initialize")) == 2


def test_the_blocking_methods_of_a_manager_on_a_thread(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    with PyMcpManager() as manager:
        with pytest.raises(ConfigError, match="watch\\(\\) needs a path"):
            manager.watch()
        assert manager.watch(str(path), **SOON, sighup=True).deployed == ("a",)
        assert manager.watch(path, **SOON).unchanged == 1
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        with pytest.raises(ConfigError):
            manager.watch(tmp_path / "missing.toml", sighup=True)
        assert manager.watched is not None
        replace(path, text_for(server, "a", "b"))
        asyncio.run(becomes(manager, "a", "b"))
        manager.unwatch()
        assert manager.watched is None
        assert manager.apply(ManagerConfig()).undeployed == ("a", "b")
    with pytest.raises(NotRunningError):
        manager.watch(path)


async def test_ending_the_watch_finishes_what_has_begun(server: ScriptedServer, tmp_path: Path) -> None:
    held = Hold()
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    async with McpManager() as manager:
        await manager.watch(path, **SOON)
        server.script("initialize", held)
        replace(path, text_for(server, "a", "b"))
        await server.wait_for("initialize", 2)
        ending = asyncio.create_task(manager.unwatch())
        await asyncio.sleep(0)
        held.release()
        await ending
        assert manager.server("b").ready == 1


async def test_a_manager_on_the_loop_of_its_caller(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    async with PyMcpManager(path) as manager:
        await manager.watch_async(**SOON, sighup=True)
        replace(path, text_for(server, "b"))
        os.kill(os.getpid(), signal.SIGHUP)
        await becomes(manager, "b")
        with pytest.raises(NotRunningError):
            manager.watch()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


async def test_signals_need_the_main_thread(server: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text_for(server, "a"), encoding="utf-8")
    with PyMcpManager(path) as manager:
        with pytest.raises(ConfigError, match="SIGHUP can be handled on the main thread only"):
            await asyncio.to_thread(manager.watch, sighup=True)
        assert manager.watched is None
