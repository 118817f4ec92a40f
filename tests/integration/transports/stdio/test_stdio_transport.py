"""Frames over the pipes of real processes: correct servers, broken ones, dying ones, and callers who give up."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.calls import eventually
from support.processes import time_stdio
from support.stdio import SERVER, WAIT_S, Opened, cancel, opened, result_of, scripted

from mcp_manager._core.jsonrpc import ERROR, NOTIFICATION, REQUEST
from mcp_manager.config import ServerConfig
from mcp_manager.errors import CallError, ConnectError, ProtocolError, ServerExitedError
from mcp_manager.transports.base import Exchange

pytestmark = pytest.mark.both_loops

PASSES = 8
MIB = 1024 * 1024

# Replies


async def test_replies_find_their_callers_in_any_order() -> None:
    async with opened() as subject:
        calls = [asyncio.create_task(subject.call("keep", number=number)) for number in range(100)]
        await asyncio.sleep(0)
        assert await subject.call("release", number=100) == {"number": 100}
        assert await asyncio.gather(*calls) == [{"number": number} for number in range(100)]
        assert (subject.stray_replies, subject.bad_lines, subject.sink.messages) == (0, 0, [])
        assert psutil.Process(subject.transport.pid).ppid() == os.getpid()


async def test_a_message_of_five_megabytes_each_way() -> None:
    async with opened() as subject:
        calls = [subject.call("size", text="y" * (5 * MIB), reply=5 * MIB) for _ in range(2)]
        for result in await asyncio.gather(*calls):
            assert result["size"] > 5 * MIB
            assert len(result["text"]) == 5 * MIB


async def test_a_frame_with_newlines_is_one_line() -> None:
    async with opened() as subject:
        frame = json.dumps({"jsonrpc": "2.0", "id": 77, "method": "echo", "params": {"text": "a\r\nb"}}, indent=1)
        for newline in ("\n", "\r\n", "\r"):
            reply = await subject.exchange(Exchange(frame.replace("\n", newline).encode(), 77, 0))
            assert result_of(reply) == {"text": "a\r\nb"}
        await subject.transport.notify(b'{"jsonrpc":\n"2.0",\r\n"method":"raw","params":{"text":"{}"}}\n', 0)
        await subject.notify("raw", text="\n")
        await subject.call("ping")
        assert subject.bad_lines == 1


@pytest.mark.parametrize("how", ["reply_bytewise", "reply"])
async def test_a_reply_may_arrive_in_any_pieces(how: str) -> None:
    async with scripted({"do": "raw", "text": " \r\n\n"}, {"do": how}) as subject:
        result = await subject.call("tools/call", name="echo", arguments={"text": "caf\u00e9 \u2028"})
        assert result["content"][0]["text"] == "caf\u00e9 \u2028"
        assert subject.bad_lines == 0


async def test_a_line_may_be_a_batch() -> None:
    batch = [
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"n": 1}},
        {"jsonrpc": "2.0", "id": 2, "result": {"to": 2}},
        {"jsonrpc": "2.0", "id": "server's", "method": "ping"},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}},
    ]
    async with opened() as subject:
        first, second = (asyncio.create_task(subject.exchange(subject.request("keep"))) for _ in range(2))
        await asyncio.sleep(0)
        await subject.notify("raw", text=json.dumps(batch) + "\n")
        assert (await first).kind == ERROR
        assert result_of(await second) == {"to": 2}
        assert [message.kind for message in subject.sink.messages] == [NOTIFICATION, REQUEST]
        assert subject.stray_replies == 0


@pytest.mark.parametrize(
    "stray",
    [
        {"id": "01", "result": {}},
        {"id": 1.5, "result": {}},
        {"id": 99, "result": {}},
        {"id": -1, "result": {}},
        {"id": 2**64 + 1, "result": {}},
        {"id": None, "error": {"code": -32700, "message": "Parse error"}},
    ],
)
async def test_a_reply_to_nobody_is_counted_and_reaches_nobody(stray: dict[str, Any]) -> None:
    async with opened() as subject:
        waiting = asyncio.create_task(subject.call("keep", text="mine"))
        await asyncio.sleep(0)
        await subject.say(json.dumps({"jsonrpc": "2.0", **stray}) + "\n")
        assert not waiting.done()
        assert subject.stray_replies == 1
        await subject.call("release")
        assert await waiting == {"text": "mine"}
        assert subject.sink.messages == []


async def test_the_second_reply_to_a_request_is_a_stray_one() -> None:
    async with opened() as subject:
        waiting = asyncio.create_task(subject.call("keep"))
        await asyncio.sleep(0)
        await subject.say('{"jsonrpc":"2.0","id":1,"result":{"n":1}}\n{"jsonrpc":"2.0","id":1,"result":{"n":2}}\n')
        assert await waiting == {"n": 1}
        assert subject.stray_replies == 1


# What is no reply


async def test_a_byte_order_mark_before_everything_is_no_fault() -> None:
    async with opened("import os\nos.write(1, b'\\xef\\xbb\\xbf')\n" + textwrap.dedent(SERVER)) as subject:
        assert await subject.call("echo", text="first") == {"text": "first"}
        assert subject.bad_lines == 0
        await subject.say('\ufeff{"jsonrpc":"2.0","method":"later"}\n')
        assert [message.method for message in subject.sink.messages] == ["later"]
        assert subject.sink.faults.counts == {"a byte order mark": 1}


@pytest.mark.parametrize("bad", ["ff", "c3", "eda080", "c080", "f4908080"])
async def test_a_reply_that_is_no_utf_8_ends_its_own_call_alone(bad: str) -> None:
    line = b'{"jsonrpc":"2.0","id":1,"result":{"text":"' + bytes.fromhex(bad) + b'"}}\n'
    async with scripted({"do": "bytes", "hex": line.hex()}, {"do": "nothing"}) as subject:
        waiting = asyncio.create_task(subject.call("tools/call", name="echo"))
        await asyncio.sleep(0)
        await subject.call("ping")
        assert (subject.bad_lines, subject.stray_replies) == (1, 0)
        with pytest.raises(ProtocolError, match="the reply is not JSON-RPC: invalid UTF-8"):
            await waiting


async def test_banners_are_ignored_and_quoted_once(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(env={"API_KEY": "sk-0123456789"}) as subject:
        banner = "\x1b[1mWelcome\u202e sk-0123456789 " + "-" * 200
        with caplog.at_level(logging.WARNING, "mcp_manager"):
            await subject.say(f"{banner}\n{{}}\nnull\n{banner}\n[]\n\xff\n")
        assert subject.bad_lines == 6
        [record] = caplog.records
        assert (" [1mWelcome  *** " + "-" * 200)[:80] + " (1 so far)" in record.getMessage()
        assert subject.stray_replies == 0


async def test_what_the_server_sends_by_itself_reaches_the_sink() -> None:
    async with opened() as subject:
        await subject.say(
            '{"jsonrpc":"2.0","id":1,"method":"ping"}\n{"jsonrpc":"2.0","method":"notifications/progress"}\n'
        )
        assert [(each.kind, each.method) for each in subject.sink.messages] == [
            (REQUEST, "ping"),
            (NOTIFICATION, "notifications/progress"),
        ]


async def test_a_listener_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as subject:
        subject.sink.raises = True
        await subject.say('{"jsonrpc":"2.0","method":"a"}\n{"jsonrpc":"2.0","method":"b"}\n')
        assert len(subject.sink.messages) == 2
        await subject.say('banner\n{"jsonrpc":"2.0","id":77,"result":{}}\n')
        assert (subject.bad_lines, subject.stray_replies) == (1, 1)
        await subject.failure(subject.request("exit"))
        assert len(subject.sink.closed) == 1
        # Each place once, in masked text.
        told = [record.getMessage() for record in caplog.records]
        assert sum(each.rstrip().endswith("RuntimeError: a listener failed") for each in told) == 3


async def test_a_flood_of_stderr_stops_nothing() -> None:
    async with scripted({"do": "stderr", "text": "0123456789 \n", "times": MIB}, {"do": "reply"}) as subject:
        await subject.call("tools/call", name="echo")
        # What nobody waits for may be read after the reply.
        whole = "0123456789  | 0123456789 "
        await eventually(lambda: subject.transport.stderr_tail(2) == whole, "the end of the flood")


@pytest.mark.parametrize("end", ["", "\n"])
async def test_a_line_without_end_is_the_end_of_the_server(end: str) -> None:
    async with opened(max_response_bytes=100_000) as subject:
        exact = json.dumps({"jsonrpc": "2.0", "method": "", "params": {"text": ""}})
        exact = exact.replace('"text": "', '"text": "' + "x" * (100_000 - len(exact)))
        await subject.say(exact + "\n")
        assert len(subject.sink.messages) == 1
        process = psutil.Process(subject.transport.pid)
        waiting = asyncio.create_task(subject.failure(subject.request("keep")))
        await asyncio.sleep(0)
        error = await subject.failure(subject.request("raw", text="x" * 100_001 + end))
        assert isinstance(error, ProtocolError)
        assert error.delivery == "unknown"
        assert "100000" in str(error)
        assert type(await waiting) is ProtocolError
        later = await subject.failure(subject.request("ping"))
        assert (type(later), later.delivery) == (ProtocolError, "not_sent")
        await eventually(lambda: bool(subject.sink.closed), "the news of its end")
        assert not process.is_running()
        assert [type(each) for each in subject.sink.closed] == [ProtocolError]


# The server's end


@pytest.mark.parametrize("code", [0, 3])
async def test_a_crash_fails_every_call_once(code: int) -> None:
    async with scripted({"do": "stderr", "text": "out of\x1b luck\n"}, {"do": "exit", "code": code}) as subject:
        exchanges = [subject.request("tools/call", name="echo") for _ in range(3)]
        errors = await asyncio.gather(*(subject.failure(each) for each in exchanges))
        for error in errors:
            assert isinstance(error, ServerExitedError)
            assert (error.exit_code, error.delivery, error.retryable) == (code, "unknown", True)
            assert f"exited with status {code}" in str(error)
            assert "out of  luck" in error.hint
        assert len(set(map(id, errors))) == 3
        [closed] = subject.sink.closed
        assert isinstance(closed, ServerExitedError)
        for failing in (subject.failure(subject.request("ping")), failed_notification(subject)):
            later = await failing
            assert (type(later), later.delivery) == (ServerExitedError, "not_sent")
        await subject.transport.aclose(60.0)
        assert len(subject.sink.closed) == 1


async def failed_notification(subject: Opened) -> CallError:
    with pytest.raises(CallError) as caught:
        await subject.notify("notifications/initialized")
    return caught.value


async def test_a_kill_from_outside_says_which_signal() -> None:
    async with opened() as subject:
        waiting = asyncio.create_task(subject.failure(subject.request("keep")))
        await subject.call("ping")
        os.kill(subject.transport.pid, signal.SIGKILL)
        error = await waiting
        assert isinstance(error, ServerExitedError)
        assert (error.exit_code, error.delivery) == (-9, "unknown")
        assert "signal 9 (SIGKILL)" in str(error)
        assert error.hint == "it wrote nothing to stderr"


async def test_what_was_not_written_was_not_sent() -> None:
    async with opened() as subject:
        await subject.call("stop reading")
        exchanges = [subject.request("keep", text="x" * MIB) for _ in range(4)]
        failing = [asyncio.create_task(subject.failure(each)) for each in exchanges]
        for _ in range(PASSES):
            await asyncio.sleep(0)
        assert [each.sent for each in exchanges] == [True, True, False, False]
        os.kill(subject.transport.pid, signal.SIGKILL)
        errors = await asyncio.gather(*failing)
        assert [error.delivery for error in errors] == ["unknown", "unknown", "not_sent", "not_sent"]
        assert {type(error) for error in errors} == {ServerExitedError}


async def test_the_end_during_a_write() -> None:
    async with opened("import os; os.read(0, 100_000); os._exit(5)") as subject:
        error = await subject.failure(subject.request("keep", text="x" * (5 * MIB)))
        assert isinstance(error, ServerExitedError)
        assert (error.exit_code, error.delivery) == (5, "unknown")


@pytest.mark.parametrize(("number", "name", "delivery"), [(0, "input", "not_sent"), (1, "output", "unknown")])
async def test_a_server_that_closed_its_pipe_is_as_good_as_dead(number: int, name: str, delivery: str) -> None:
    code = f"import os, time; os.close({number}); os.write(2, b'closed\\n'); time.sleep(3600)"
    async with opened(code) as subject:
        await eventually(lambda: subject.transport.stderr_tail() == "closed", "the closing")
        error = await subject.failure(subject.request("ping"))
        assert isinstance(error, ServerExitedError)
        assert error.delivery == delivery
        assert f"closed its standard {name} and was killed" in str(error)
        assert len(subject.sink.closed) == 1


async def test_a_notification_to_a_closed_input() -> None:
    code = "import os, time; os.close(0); os.write(2, b'closed\\n'); time.sleep(3600)"
    async with opened(code) as subject:
        await eventually(lambda: subject.transport.stderr_tail() == "closed", "the closing")
        error = await failed_notification(subject)
        assert (type(error), error.delivery) == (ServerExitedError, "not_sent")
        await eventually(lambda: bool(subject.sink.closed), "the end of the server")


async def test_errors_never_show_what_the_server_was_trusted_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "inherited-secret")
    settings: dict[str, Any] = {"env": {"KEY": "sk-very-secret", "PEM": "-----BEGIN\nMIIEvQIBADANBgkq\n", "DEBUG": "1"}}
    async with opened(inherit_env=("INHERITED",), **settings) as subject:
        await subject.call("say", text="1 bad sk-very-secret (inherited-secret)\nMIIEvQIBADANBgkq\n")
        error = await subject.failure(subject.request("exit"))
        assert error.hint == "its stderr ends: 1 bad *** (***) | *** | out of luck"


# The end in order


async def test_stopping_fails_the_calls_under_way_and_tells_no_one_else() -> None:
    async with opened() as subject:
        exchanges = [subject.request("keep") for _ in range(3)]
        failing = [asyncio.create_task(subject.failure(each)) for each in exchanges]
        await subject.call("stop reading")
        closing = asyncio.create_task(subject.transport.aclose(60.0))
        for error in await asyncio.gather(*failing):
            assert (type(error), error.delivery) == (ServerExitedError, "unknown")
        assert not closing.done()
        later = await subject.failure(subject.request("ping"))
        assert later.delivery == "not_sent"
        os.kill(subject.transport.pid, signal.SIGUSR1)
        await asyncio.wait_for(closing, WAIT_S)
        await subject.transport.aclose(60.0)
        assert subject.sink.closed == []


async def test_stopping_before_and_without_the_start() -> None:
    subject = Opened(ServerConfig(command=sys.executable))
    assert (await subject.failure(subject.request("ping"))).delivery == "not_sent"
    await subject.transport.aclose(60.0)
    with pytest.raises(CallError) as caught:
        await subject.transport.open()
    assert caught.value.delivery == "not_sent"
    assert (subject.transport.pid, subject.sink.closed) == (0, [])


async def test_a_server_that_ignores_everything_is_killed_with_its_children(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    async with scripted({"do": "spawn", "pid_file": str(noted)}, {"do": "ignore_end"}, {"do": "reply"}) as subject:
        await subject.call("tools/call", name="echo")
        process, grandchild = psutil.Process(subject.transport.pid), psutil.Process(int(noted.read_text()))
        await subject.transport.aclose(0.1)
        assert not process.is_running()
        await eventually(lambda: not grandchild.is_running() or grandchild.status() == "zombie", "its child's end")


# Callers who give up


async def test_a_late_reply_is_dropped_silently() -> None:
    async with opened() as subject:
        victim = asyncio.create_task(subject.call("keep"))
        other = asyncio.create_task(subject.call("keep", text="other"))
        await subject.call("ping")
        await cancel(victim)
        assert await subject.call("release", text="third") == {"text": "third"}
        assert await other == {"text": "other"}
        await subject.call("ping")
        assert (subject.stray_replies, subject.sink.messages) == (0, [])


async def test_what_is_remembered_of_given_up_calls_is_bounded() -> None:
    async with opened() as subject:
        victims = [asyncio.create_task(subject.call("keep")) for _ in range(1100)]
        await subject.call("ping")
        for victim in victims:
            victim.cancel()
        await asyncio.wait(victims)
        await subject.call("release")
        await subject.call("ping")
        assert subject.stray_replies == 1100 - 1024
        assert (len(subject.transport._forgotten), len(subject.transport._pending)) == (0, 0)


@pytest.mark.parametrize("passes", range(PASSES))
async def test_giving_up_after_any_number_of_passes_harms_no_neighbour(passes: int) -> None:
    async with opened() as subject:
        before = asyncio.create_task(subject.call("echo", text="before"))
        victim = asyncio.create_task(subject.call("echo", text="victim"))
        after = asyncio.create_task(subject.call("echo", text="after"))
        for _ in range(passes):
            await asyncio.sleep(0)
        await cancel(victim)
        assert [await before, await after] == [{"text": "before"}, {"text": "after"}]
        await subject.call("ping")
        assert (subject.stray_replies, subject.bad_lines) == (0, 0)


async def test_giving_up_while_the_pipe_is_full_sends_nothing_and_tears_nothing() -> None:
    async with opened() as subject:
        await subject.call("stop reading")
        exchanges = [subject.request("size", text="x" * MIB, reply=number) for number in range(6)]
        calls = [asyncio.create_task(subject.exchange(each)) for each in exchanges]
        for _ in range(PASSES):
            await asyncio.sleep(0)
        for number in (0, 3, 5):
            await cancel(calls[number])
        assert [each.sent for each in exchanges] == [True, True, False, False, False, False]
        os.kill(subject.transport.pid, signal.SIGUSR1)
        for number in (1, 2, 4):
            assert result_of(await calls[number])["text"] == "x" * number
        await subject.call("ping")
        assert (subject.stray_replies, subject.bad_lines) == (0, 0)


@pytest.mark.parametrize("passes", range(4))
async def test_giving_up_the_start_or_the_stop_leaves_no_process(passes: int) -> None:
    async with opened("import time; time.sleep(3600)") as subject:
        process = psutil.Process(subject.transport.pid)
        closing = asyncio.create_task(subject.transport.aclose(60.0))
        for _ in range(passes + 1):
            await asyncio.sleep(0)
        await cancel(closing)
        assert not process.is_running()

    subject = Opened(ServerConfig(command=sys.executable, args=("-c", "import time; time.sleep(3600)")))
    opening = asyncio.create_task(subject.transport.open())
    for _ in range(passes):
        await asyncio.sleep(0)
    await cancel(opening)
    await subject.transport.aclose(0.0)
    assert (psutil.Process().children(), subject.sink.closed) == ([], [])


# The start


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"command": "no-such-program"}, r"cannot start 'no-such-program': No such file or directory .*install it"),
        ({"command": "{here}/plain"}, r"cannot start '.*/plain': Permission denied .*make the file executable"),
        ({"command": "{here}/garbage"}, r"cannot start '.*/garbage': Exec format error .*#! line"),
        ({"command": "{here}/script"}, r"cannot start '.*/script': No such file or directory .*#! line"),
        ({"cwd": "{here}/no"}, r"cannot start .*: No such file or directory: its working directory '.*/no' .*cwd"),
        ({"cwd": "{here}/plain"}, r"cannot start .*: Not a directory: its working directory '.*/plain' .*cwd"),
        ({"args": ("x" * (4 * MIB),)}, r"cannot start .*: Argument list too long .*args and env"),
        ({"args": ("\x00",)}, r"cannot start .*: a NUL .*args"),
        ({"env": {"KEY": "top-secret\x00"}}, r"cannot start .*: a NUL .*env"),
        ({"env": {"KEY": "top-secret\ud800"}}, r"cannot start .*: a NUL or a lone surrogate .*env"),
    ],
)
async def test_a_start_that_fails_says_what_to_do(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    for name, content, mode in (
        ("plain", "", 0o644),
        ("garbage", "\x00\x01", 0o755),
        ("script", "#!/no/such/interpreter\n", 0o755),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    given: dict[str, Any] = {"command": sys.executable, "env": {"KEY": "top-secret"}} | settings
    given |= {key: value.format(here=tmp_path) for key, value in given.items() if isinstance(value, str)}
    subject = Opened(ServerConfig(**given))
    with pytest.raises(ConnectError) as caught:
        await subject.transport.open()
    error = caught.value
    assert re.search(told, str(error)), str(error)
    assert (error.server_id, error.delivery, error.retryable) == ("subject", "not_sent", True)
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert "top-secret" not in str(error)
    assert (await subject.failure(subject.request("ping"))).delivery == "not_sent"
    await subject.transport.aclose(60.0)
    assert (subject.transport.pid, subject.sink.closed) == (0, [])


async def test_secrets_of_this_process_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARENTS_SECRET", "1")
    monkeypatch.setenv("NAMED", "2")
    async with opened(env={"OWN": "3"}, inherit_env=("NAMED",)) as subject:
        environment = await subject.call("environment")
        assert (environment["NAMED"], environment["OWN"]) == ("2", "3")
        assert environment["PATH"] == os.environ["PATH"]
        assert "PARENTS_SECRET" not in environment


# A published server


async def test_a_published_server() -> None:
    command = time_stdio()
    async with opened(command=command.command, args=tuple(command.args)) as subject:
        client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        assert (await subject.call("initialize", **client))["serverInfo"]["name"] == "mcp-time"
        await subject.notify("notifications/initialized")
        tools = await subject.call("tools/list")
        assert {"get_current_time", "convert_time"} <= {tool["name"] for tool in tools["tools"]}
        calls = (subject.call("tools/call", name="get_current_time", arguments={"timezone": "UTC"}) for _ in range(10))
        for result in await asyncio.gather(*calls):
            assert json.loads(result["content"][0]["text"])["timezone"] == "UTC"
        await subject.transport.aclose(WAIT_S)
        assert (subject.sink.closed, subject.bad_lines) == ([], 0)
