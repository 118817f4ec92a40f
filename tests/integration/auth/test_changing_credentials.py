"""Credentials from files, programs and functions: they are read again when they change, once for all who wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from support.calls import CALM, deployed
from support.guarded import GuardedServer
from support.streams import StandingStreams

from mcp_manager import AuthError, ConfigError, McpManager, PyMcpManager, ServerConfig
from mcp_manager.auth import changing, sources

CANARY = "canary-5f1b0c"


@contextlib.asynccontextmanager
async def guarded(server: GuardedServer, **settings: Any) -> AsyncIterator[McpManager]:
    async with deployed(server, **settings) as manager:
        yield manager


def bearer(**source: Any) -> dict[str, Any]:
    return {"auth": {"type": "bearer", **source}}


def program(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", text]


def counting(tmp_path: Path, text: str) -> list[str]:
    """A program that leaves one character in a file for each of its runs."""
    runs = tmp_path / "runs"
    return program(f"import os,sys,time\nopen({str(runs)!r},'a').write('x')\n{text}")


def runs_of(tmp_path: Path) -> int:
    return len((tmp_path / "runs").read_text())


def written(path: Path, text: str) -> Path:
    """Replace a file in one step, as programs that rotate tokens do."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.rename(path)
    return path


async def called(manager: McpManager, text: str) -> None:
    await manager.call_tool("a", "echo", {"text": text})


# Files


async def test_a_token_file_is_read_again_after_a_401_and_no_call_is_lost(tmp_path: Path) -> None:
    file = written(tmp_path / "token", "token-0\n")
    with GuardedServer({"Bearer token-0"}) as server:
        async with guarded(server, **bearer(token_file=str(file))) as manager:
            done = 0

            async def call_until(stop: asyncio.Event) -> None:
                nonlocal done
                while not stop.is_set():
                    await called(manager, "hello")
                    done += 1

            stop = asyncio.Event()
            callers = [asyncio.create_task(call_until(stop)) for _ in range(8)]
            for number in range(1, 6):
                before = done
                written(file, f"token-{number}\n")
                server.valid = {f"Bearer token-{number}"}
                while done < before + 20:
                    await asyncio.sleep(0)
                    for each in callers:
                        assert not each.done()
            stop.set()
            await asyncio.gather(*callers)
            assert len(server.requests_of("initialize")) == 1, "a new token needs no new session"
        assert server.live_sessions == set()


async def test_the_swap_of_a_symbolic_link_is_seen(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "token").write_text(f"token-{number}")
    link = tmp_path / "..data"
    link.symlink_to("0")
    (tmp_path / "token").symlink_to("..data/token")
    with GuardedServer({"Bearer token-0"}) as server:
        async with guarded(server, **bearer(token_file=str(tmp_path / "token"))) as manager:
            await called(manager, "1")
            (tmp_path / "fresh").symlink_to("1")
            (tmp_path / "fresh").rename(link)
            server.valid = {"Bearer token-1"}
            await called(manager, "2")
        assert server.admitted()[-1] == "Bearer token-1"


async def test_a_changed_file_is_noticed_without_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "_LOOK_S", 0.01)
    file = written(tmp_path / "token", "token-0")
    with GuardedServer({"Bearer token-0", "Bearer token-1"}) as server:
        async with guarded(server, **bearer(token_file=str(file))) as manager:
            await called(manager, "1")
            written(file, "token-1")
            async with asyncio.timeout(10):
                while server.admitted()[-1] != "Bearer token-1":
                    await called(manager, "2")
        statuses = [each for each in server.admitted() if each not in ("Bearer token-0", "Bearer token-1")]
        assert statuses == []


async def test_a_file_that_is_being_rewritten_in_place_is_waited_for(tmp_path: Path) -> None:
    file = written(tmp_path / "token", "token-0")
    with GuardedServer({"Bearer token-0"}) as server:
        async with guarded(server, **bearer(token_file=str(file))) as manager:
            await called(manager, "1")
            server.valid = {"Bearer token-1"}
            file.write_text("")
            calling = asyncio.create_task(called(manager, "2"))
            await server.wait_for("tools/call", 2)
            file.write_text("token-1")
            await calling


async def test_an_api_key_from_a_file_goes_into_its_header(tmp_path: Path) -> None:
    file = written(tmp_path / "key", "key 1\n")
    with GuardedServer({"key 1"}, header="x-key") as server:
        auth = {"type": "api_key", "header": "X-Key", "token_file": str(file)}
        async with guarded(server, auth=auth) as manager:
            await called(manager, "1")
            written(file, "key 2")
            server.valid = {"key 2"}
            await called(manager, "2")


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "empty", "long", "two lines"])
async def test_a_file_without_a_token_is_a_clear_error(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "token"
    match kind:
        case "directory":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "empty":
            file.write_text("\n")
        case "long":
            file.write_text(CANARY * 10_000)
        case "two lines":
            file.write_text(f"{CANARY}\n{CANARY}")
    with GuardedServer({"Bearer token-0"}) as server:
        async with guarded(server, **bearer(token_file=str(file))) as manager:
            with pytest.raises(AuthError, match=r"auth\.token_file") as caught:
                await called(manager, "1")
            assert caught.value.delivery == "not_sent"
            assert CANARY not in str(caught.value)
        assert server.requests == []


async def test_a_stream_that_stays_open_is_opened_again_with_the_new_token(tmp_path: Path) -> None:
    file = written(tmp_path / "token", "token-0")
    streams = StandingStreams()
    with GuardedServer({"Bearer token-0"}) as server:
        server.script_always("GET", streams)
        async with guarded(server, **bearer(token_file=str(file))) as manager:
            first = await streams.wait(server)
            written(file, "token-1")
            server.valid = {"Bearer token-1"}
            await called(manager, "1")
            first.end(retry_ms=1)
            second = await streams.wait(server, 2)
            assert second.request.headers["authorization"] == "Bearer token-1"
            assert len(server.requests_of("initialize")) == 1


# Programs


async def test_one_run_of_the_program_serves_all_calls_that_wait(tmp_path: Path) -> None:
    token = written(tmp_path / "token", "token-0")
    command = counting(tmp_path, f"time.sleep(0.1); print(open({str(token)!r}).read())")
    with GuardedServer({"Bearer token-0"}) as server:
        async with guarded(server, **bearer(token_command=command)) as manager:
            await called(manager, "first")
            assert runs_of(tmp_path) == 1
            written(token, "token-1")
            server.valid = {"Bearer token-1"}
            await asyncio.gather(*(called(manager, str(number)) for number in range(100)))
            assert runs_of(tmp_path) == 2
            assert len(server.requests_of("initialize")) == 1
        assert sorted(server.executed) == sorted(["first", *map(str, range(100))])


@pytest.mark.parametrize("token", ["'always-the-same'", "time.time_ns()"])
async def test_a_token_that_is_refused_again_is_an_error_and_the_program_is_left_in_peace(
    tmp_path: Path, token: str
) -> None:
    command = counting(tmp_path, f"print({token})")
    with GuardedServer({"Bearer never"}) as server:
        async with guarded(server, **bearer(token_command=command)) as manager:
            for _ in range(5):
                with pytest.raises(AuthError, match="refused the credentials") as caught:
                    await called(manager, "x")
                assert caught.value.delivery == "not_sent"
        assert runs_of(tmp_path) <= 3


async def test_headers_of_a_program_replace_configured_ones_and_change(tmp_path: Path) -> None:
    fields = written(tmp_path / "fields", json.dumps({"X-Tenant": "one", "authorization": "Signed 1"}))
    command = program(f"print(open({str(fields)!r}).read())")
    headers = {"x-tenant": "fixed", "X-Other": "kept"}
    with GuardedServer({"Signed 1"}) as server:
        async with guarded(server, headers=headers, headers_command=command) as manager:
            await called(manager, "1")
            written(fields, json.dumps({"Authorization": "Signed 2"}))
            server.valid = {"Signed 2"}
            await called(manager, "2")
        first, last = server.requests_of("tools/call")[0].headers, server.requests_of("tools/call")[-1].headers
        assert (first["x-tenant"], first["x-other"]) == ("one", "kept")
        assert (last["x-tenant"], last["x-other"]) == ("fixed", "kept")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sys.exit(3)", "ended with exit code 3"),
        (f"print('{CANARY}', file=sys.stderr); sys.exit(1)", "exit code 1"),
        (f"print('{CANARY} {CANARY}')", "contains a space"),
        (f"print('{CANARY}'); print('{CANARY}')", "line break"),
        (f"print('{CANARY}' * 1_000_000)", "more than 65,536 bytes"),
        ("pass", "gives nothing"),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
        (f"sys.stdout.buffer.write(b'{CANARY}\\xff')", "non-ASCII"),
    ],
)
async def test_a_program_that_gives_no_token_is_a_clear_error_without_what_it_wrote(
    text: str, says: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with GuardedServer({"Bearer token-0"}) as server:
        command = program(f"import os,sys\n{text}")
        async with guarded(server, **bearer(token_command=command)) as manager:
            with pytest.raises(AuthError, match=says) as caught:
                await called(manager, "1")
            error = pickle.loads(pickle.dumps(caught.value))
            outputs = [str(error), repr(error), error.hint, msgspec.json.encode(manager.snapshot()).decode()]
            outputs += [manager.metrics_text(), repr(manager.server("a"))]
        outputs += [caplog.text, *capfd.readouterr()]
        assert not [each for each in outputs if CANARY in each]
        assert server.requests == []


async def test_a_program_that_cannot_be_started_is_a_clear_error(tmp_path: Path) -> None:
    with GuardedServer({"Bearer token-0"}) as server:
        async with guarded(server, **bearer(token_command=[str(tmp_path / "missing"), CANARY])) as manager:
            with pytest.raises(AuthError, match=r"cannot be started \(FileNotFoundError\)") as caught:
                await called(manager, "1")
            assert CANARY not in str(caught.value)


async def test_a_program_that_hangs_is_killed_with_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_TIMEOUT_S", 0.5)
    pids = tmp_path / "pids"
    command = program(
        f"import os,time\nother = os.fork()\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(60)"
    )
    with GuardedServer({"Bearer token-0"}) as server:
        async with guarded(server, connect_timeout_s=10.0, **bearer(token_command=command)) as manager:
            with pytest.raises(AuthError, match=r"did not end within 0\.5 s"):
                await called(manager, "1")
    for pid in map(int, pids.read_text().split()):
        with contextlib.suppress(psutil.NoSuchProcess):
            # The grandchild is reaped by init.
            psutil.Process(pid).wait(5)


async def test_a_program_that_hangs_ends_with_the_manager(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = program(f"import time\nopen({str(started)!r}, 'w').close()\ntime.sleep(60)")
    with GuardedServer({"Bearer token-0"}) as server:
        manager = McpManager()
        await manager.start()
        deploying = asyncio.create_task(
            manager.deploy("a", {"url": server.url, **CALM, **bearer(token_command=command)})
        )
        while not started.exists():
            await asyncio.sleep(0.01)
        await manager.stop()
        with contextlib.suppress(Exception):
            await deploying


async def test_a_deadline_passes_while_a_program_runs_and_the_run_goes_on(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = counting(tmp_path, f"open({str(gate)!r}).read(); print('token-0')")
    with GuardedServer({"Bearer token-0"}) as server:
        async with McpManager() as manager:
            settings = {**CALM, "connect_timeout_s": 0.3, **bearer(token_command=command)}
            await manager.deploy("a", {"url": server.url, **settings})
            with pytest.raises(AuthError, match="still being obtained") as caught:
                await called(manager, "1")
            assert caught.value.retryable
            await asyncio.to_thread(gate.write_text, "")
            await called(manager, "2")
        assert runs_of(tmp_path) == 1


async def test_the_program_is_told_the_server(tmp_path: Path) -> None:
    with GuardedServer({"Bearer token-of-a"}) as server:
        command = program("import os; print('token-of-' + os.environ['MCP_SERVER_ID'])")
        async with guarded(server, **bearer(token_command=command)) as manager:
            await called(manager, "1")


# Functions


@pytest.mark.parametrize("kind", ["plain", "async", "object", "headers"])
async def test_a_function_gives_the_credentials_and_is_asked_again_after_a_401(kind: str) -> None:
    asked = 0

    def give() -> str:
        nonlocal asked
        asked += 1
        return f"token-{asked}"

    async def give_async() -> str:
        return give()

    class Giver:
        async def __call__(self) -> str:
            return give()

    def give_headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {give()}", "X-More": "1"}

    provider: Any = {"plain": give, "async": give_async, "object": Giver(), "headers": give_headers}[kind]
    with GuardedServer({"Bearer token-1"}) as server:
        async with McpManager(credentials={"a": provider}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await asyncio.gather(*(called(manager, "1") for _ in range(10)))
            assert asked == 1
            server.valid = {"Bearer token-2"}
            await asyncio.gather(*(called(manager, "2") for _ in range(10)))
            assert asked == 2


@pytest.mark.parametrize("given", [None, 5, {"X": 1}, {"X\r\nY": "1"}, {"Host": "x"}, "a b", ""])
async def test_what_a_function_must_not_give(given: Any) -> None:
    with GuardedServer({"Bearer token-1"}) as server:
        async with McpManager(credentials={"a": lambda: given}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            with pytest.raises(AuthError):
                await called(manager, "1")
        assert server.requests == []


async def test_the_text_of_an_exception_of_a_function_is_not_shown() -> None:
    def fail() -> str:
        raise ValueError(CANARY)

    with GuardedServer({"Bearer token-1"}) as server:
        async with McpManager(credentials={"a": fail}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            with pytest.raises(AuthError, match="raised ValueError") as caught:
                await called(manager, "1")
            assert CANARY not in str(caught.value)


async def test_credentials_leave_no_trace_where_a_server_quotes_them() -> None:
    class Quoting(GuardedServer):
        def answer(self, request: Any) -> Any:
            if request.method == "tools/call":
                text = f"who is {request.headers['authorization']}?"
                return 400, {}, {"jsonrpc": "2.0", "id": request.id, "error": {"code": -32600, "message": text}}
            return super().answer(request)

    with Quoting({f"Bearer {CANARY}"}) as server:
        async with McpManager(credentials={"a": lambda: CANARY}) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            with pytest.raises(Exception, match="who is") as caught:
                await manager.call_tool("a", "echo", {})
            assert CANARY not in str(caught.value)


async def test_credentials_of_functions_and_of_the_configuration_exclude_each_other() -> None:
    async with McpManager(credentials={"a": lambda: "t", "b": lambda: "t"}) as manager:
        with pytest.raises(ConfigError, match="given both"):
            await manager.deploy("a", {"url": "http://127.0.0.1:9/", **bearer(token="t")})
        with pytest.raises(ConfigError, match="do not apply to a stdio server"):
            await manager.deploy("b", {"command": sys.executable})
    with pytest.raises(ConfigError, match="credentials must be a mapping"):
        McpManager(credentials=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be functions by server id, not 'a'"):
        McpManager(credentials={"a": CANARY})  # type: ignore[dict-item]


def test_threads_have_it_too() -> None:
    with GuardedServer({"Bearer token-1"}) as server, PyMcpManager(credentials={"a": lambda: "token-1"}) as manager:
        manager.deploy_server("a", {"url": server.url, **CALM})
        manager.execute("a", '{"method": "tools/list"}')


def test_the_repr_of_a_configuration_masks_the_arguments_of_programs() -> None:
    config = ServerConfig(url="http://h/", headers_command=("helper", CANARY))
    assert CANARY not in repr(config)
