"""A child process by itself: its pipes, its end in order and out of order, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.calls import eventually
from support.children import GRANDCHILD, WAIT_S, Running, is_gone, running

from mcp_manager.transports.stdio import child as child_module
from mcp_manager.transports.stdio import process_group
from mcp_manager.transports.stdio.child import Child, child_environment

pytestmark = pytest.mark.both_loops

MIB = 1024 * 1024

COPY = """
    import os, sys
    while data := os.read(0, 65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
"""
STUBBORN = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"ready\\n")
    time.sleep(3600)
"""


# Pipes


async def test_bytes_go_through_in_order() -> None:
    async with running(COPY) as subject:
        sent = b"".join(b"line %d\n" % number for number in range(1000))
        for start in range(0, len(sent), 100):
            await subject.child.send(sent[start : start + 100])
        await subject.until(lambda: len(subject.output) >= len(sent))
        assert subject.output == sent


async def test_a_message_larger_than_every_buffer() -> None:
    async with running(COPY) as subject:
        sent = os.urandom(5 * MIB)
        await subject.child.send(sent)
        await subject.until(lambda: len(subject.output) >= len(sent))
        assert subject.output == sent


async def test_all_output_is_read_before_the_end_is_told() -> None:
    code = """
        import fcntl, os
        for number in (1, 2):
            fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, 1_000_000)
        os.write(1, b"x" * 1_000_000)
        os.write(2, b"y" * 200_000 + b"\\nlast words")
        os._exit(3)
    """
    async with running(code) as subject:
        # While the loop is kept from reading, the program says all it has to say and ends.
        os.waitid(os.P_PID, subject.child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        assert await subject.end() == 3
        assert len(subject.output) == 1_000_000
        assert subject.child.stderr_tail() == "last words"


async def test_what_a_pause_left_in_the_pipe_is_read_before_the_end_is_told() -> None:
    code = """
        import fcntl, os
        fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1_000_000)
        os.write(1, b"x" * 1_000_000)
        os._exit(3)
    """
    async with running(code) as subject:
        subject.child.pause()
        assert await subject.end() == 3
        assert len(subject.output) == 1_000_000


async def test_what_is_not_read_is_bounded_and_neither_lost_nor_torn() -> None:
    code = """
        import os, shutil, signal, sys
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.write(1, b"\\n")
        signal.sigwait({signal.SIGUSR1})
        shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)
    """
    async with running(code) as subject:
        await subject.line()
        subject.output.clear()
        waiting: list[int] = []

        async def send(chunk: bytes) -> None:
            await subject.child.send(chunk)
            waiting.append(len(subject.child._unwritten))

        chunks = [bytes([number]) * (MIB // 4) for number in range(40)]
        sending = [asyncio.create_task(send(chunk)) for chunk in chunks]
        for _ in range(10):
            await asyncio.sleep(0)
        sent = sum(task.done() for task in sending)
        # One mebibyte in memory, what the kernel's pipe takes, and the chunk that went over.
        assert 4 <= sent <= 6
        victims = sending[sent:-1:2]
        for victim in victims:
            victim.cancel()
        await asyncio.wait(victims)
        os.kill(subject.child.pid, signal.SIGUSR1)
        await asyncio.wait(sending)
        expected = b"".join(chunk for chunk, task in zip(chunks, sending, strict=True) if not task.cancelled())
        await subject.until(lambda: len(subject.output) >= len(expected))
        assert subject.output == expected
        assert sum(task.cancelled() for task in sending) == len(victims)
        assert max(waiting) <= MIB + MIB // 4


async def test_writers_that_wait_learn_of_the_end() -> None:
    async with running(STUBBORN) as subject:
        await subject.line()
        sending = [asyncio.create_task(subject.child.send(b"x" * MIB)) for _ in range(5)]
        await asyncio.sleep(0)
        os.kill(subject.child.pid, signal.SIGKILL)
        assert await subject.end() == -signal.SIGKILL
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        assert outcomes[0] is None
        assert isinstance(outcomes[-1], BrokenPipeError)


async def test_writers_that_wait_are_told_as_soon_as_the_end_is_wanted() -> None:
    async with running(STUBBORN) as subject:
        await subject.line()
        sending = [asyncio.create_task(subject.child.send(b"x" * MIB)) for _ in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(subject.child.aclose(60.0))
        outcomes = await asyncio.wait_for(asyncio.gather(*sending, return_exceptions=True), WAIT_S)
        assert isinstance(outcomes[-1], BrokenPipeError)
        assert not subject.codes
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing


async def test_exit_in_the_middle_of_a_write() -> None:
    async with running("import sys; sys.stdin.buffer.read(100000); sys.exit(4)") as subject:
        await subject.child.send(b"x" * (5 * MIB))
        assert await subject.end() == 4
        with pytest.raises(BrokenPipeError):
            await subject.child.send(b"x")


# Standard error


async def test_a_flood_of_stderr_stops_nothing_and_is_bounded() -> None:
    code = """
        import sys
        for number in range(100_000):
            sys.stderr.write(f"{number:099d}\\n")
        sys.stderr.flush()
        print("done", flush=True)
        sys.stdin.read()
    """
    async with running(code) as subject:
        assert await subject.line() == "done"
        await eventually(lambda: subject.child.stderr_tail(1).endswith("99999"), "the reading of the flood")
        everything = subject.child.stderr_tail(1_000_000).split(" | ")
        assert everything == [f"{number:099d}" for number in range(100_000 - len(everything), 100_000)]
        assert 600 < len(everything) <= 656
        assert len(subject.child._stderr) <= 2 * 64 * 1024 + 64 * 1024


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (b"", ""),
        (b"\n \n\n", ""),
        (b"one\ntwo\nthree\n", "two | three"),
        (b"\x1b[31mred\x1b[0m\x07\x00\x7f", "red   "),
        # Colours within a text to mask do not reveal it.
        (b"key sk-\x1b[1m1234\x1b[0m56789!", "key ***!"),
        (b"50%\r100%\r\n", "50% | 100%"),
        ("\u202etxt.exe \u2028 caf\u00e9".encode(), " txt.exe  |  caf\u00e9"),
        (b"\xff\xfe cut \xc3", "\ufffd\ufffd cut \ufffd"),
        (b"y" * 5000, "y" * 500),
        (b"key sk-123456789 of sk-123456789!", "key *** of ***!"),
    ],
)
async def test_the_tail_of_stderr_is_safe_to_quote(written: bytes, told: str) -> None:
    async with running(f"import os; os.write(2, {written!r})") as subject:
        await subject.end()
        assert subject.child.stderr_tail(2, hidden={"sk-12345", "sk-123456789"}) == told


async def test_a_hidden_text_does_not_show_where_the_ring_cut_it() -> None:
    async with running("import os; os.write(2, b'x' * 10 + b's3cr3t-t0k3n' * 20000 + b'\\nend\\n')") as subject:
        await subject.end()
        assert subject.child.stderr_tail(9, hidden={"s3cr3t-t0k3n"}) == "end"


# The end by itself


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("pass", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.abort()", -signal.SIGABRT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
async def test_exit_codes(code: str, exit_code: int) -> None:
    async with running(code) as subject:
        assert await subject.end() == exit_code
        assert subject.child.misdeed == ""


async def test_the_rest_of_the_group_ends_with_its_leader() -> None:
    async with running(GRANDCHILD.format(session=False, then="os._exit(2)")) as subject:
        grandchild = int(await subject.line())
        # The grandchild holds the pipes: their end can come only with its own.
        assert await subject.end() == 2
        await eventually(lambda: is_gone(grandchild), "the end of the grandchild")


@pytest.mark.parametrize(("number", "name"), [(0, "input"), (1, "output")])
async def test_a_program_that_closed_its_pipe_is_ended(number: int, name: str) -> None:
    async with running(f"import os, time; os.write(1, b'ready\\n'); os.close({number}); time.sleep(3600)") as subject:
        await subject.line()
        with contextlib.suppress(BrokenPipeError):
            while not subject.codes:
                await subject.child.send(b"x")
                await asyncio.sleep(0)
        assert await subject.end() == -signal.SIGKILL
        assert subject.child.misdeed == f"closed its standard {name}"


async def test_a_program_that_ended_by_itself_was_not_killed_for_what_it_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[Callable[[], None]] = []
    monkeypatch.setattr(child_module, "kill_marked_soon", lambda token, then: held.append(then))
    async with running("import os; os.close(1); os._exit(7)") as subject:
        await eventually(lambda: bool(held), "the exit")
        # As when the time that a program without an output is left has passed, before its end could be told.
        subject.child._kill_for("closed its standard output")
        held.pop()()
        assert await subject.end() == 7
        assert subject.child.misdeed == ""


async def test_a_blocked_writer_learns_that_the_program_closed_its_input() -> None:
    code = """
        import os, signal, time
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.write(1, b"ready\\n")
        signal.sigwait({signal.SIGUSR1})
        os.close(0)
        time.sleep(3600)
    """
    async with running(code) as subject:
        await subject.line()
        await subject.child.send(b"x" * (2 * MIB))
        blocked = asyncio.create_task(subject.child.send(b"y"))
        await asyncio.sleep(0)
        os.kill(subject.child.pid, signal.SIGUSR1)
        with pytest.raises(BrokenPipeError):
            await asyncio.wait_for(blocked, WAIT_S)
        assert await subject.end() == -signal.SIGKILL


# The end in order


async def test_closing_the_input_is_enough_and_the_farewell_is_read() -> None:
    code = "import sys; sys.stdin.read(); sys.stdout.write('x' * 1000000)"
    async with running(code) as subject:
        await subject.child.aclose(WAIT_S)
        assert subject.codes == [0]
        assert len(subject.output) == 1_000_000


async def test_what_was_written_is_delivered_before_the_input_is_closed() -> None:
    async with running(COPY) as subject:
        sent = os.urandom(2 * MIB)
        await subject.child.send(sent)
        await subject.child.aclose(WAIT_S)
        assert subject.codes == [0]
        assert subject.output == sent


async def test_sigterm_follows_and_comes_once() -> None:
    code = """
        import os, signal, sys, time
        def end(*_):
            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
            os.write(1, b"term\\n")
            time.sleep(3600)
        signal.signal(signal.SIGTERM, end)
        os.write(1, b"ready\\n")
        while True:
            time.sleep(1)
    """
    async with running(code) as subject:
        await subject.line()
        first = asyncio.create_task(subject.child.aclose(1.0))
        await subject.until(lambda: b"term" in subject.output)
        await subject.child.aclose(0.1)
        await first
        assert subject.output == b"ready\nterm\n"
        assert subject.codes == [-signal.SIGKILL]


async def test_sigterm_reaches_the_whole_group() -> None:
    code = """
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0 if grandchild.wait() == 6 else 1))
        inner = "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(6)); os.write(1, b'ready\\\\n'); time.sleep(3600)"
        grandchild = subprocess.Popen([sys.executable, "-c", inner])
        while True:
            time.sleep(1)
    """
    async with running(code) as subject:
        assert await subject.line() == "ready"
        await subject.child.aclose(0.5)
        assert subject.codes == [0]


@pytest.mark.parametrize("grace_s", [0.0, 0.1])
async def test_sigkill_ends_the_stubborn_and_their_children(grace_s: float) -> None:
    async with running(GRANDCHILD.format(session=False, then="time.sleep(3600)")) as subject:
        grandchild = int(await subject.line())
        await subject.child.aclose(grace_s)
        assert subject.codes == [-signal.SIGKILL]
        await eventually(lambda: is_gone(grandchild), "the end of the grandchild")


async def test_a_halted_program_is_ended() -> None:
    async with running(COPY) as subject:
        os.kill(subject.child.pid, signal.SIGSTOP)
        await subject.child.aclose(0.1)
        assert subject.codes == [-signal.SIGKILL]


async def test_closing_the_output_early_does_not_cut_the_grace_short() -> None:
    code = "import os, sys, time; sys.stdin.read(); os.close(1); time.sleep(0.8); os._exit(0)"
    async with running(code) as subject:
        await subject.child.aclose(WAIT_S)
        assert subject.codes == [0]
        assert subject.child.misdeed == ""


async def test_closing_is_idempotent_and_may_overlap() -> None:
    subject = Running(COPY)
    assert subject.child.pid == 0
    await subject.child.aclose(0.0)
    async with running(COPY) as subject:
        await asyncio.gather(*(subject.child.aclose(WAIT_S) for _ in range(3)))
        await subject.child.aclose(WAIT_S)
        with pytest.raises(BrokenPipeError):
            await subject.child.send(b"x")
        assert subject.codes == [0]


async def test_the_more_urgent_of_two_closings_wins() -> None:
    async with running(STUBBORN) as subject:
        await subject.line()
        patient = asyncio.create_task(subject.child.aclose(60.0))
        await asyncio.sleep(0)
        await subject.child.aclose(0.0)
        await asyncio.wait_for(patient, WAIT_S)
        assert subject.codes == [-signal.SIGKILL]


@pytest.mark.parametrize("passes", range(6))
@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_closing_kills_and_reaps(passes: int, times: int) -> None:
    async with running(STUBBORN) as subject:
        await subject.line()
        process = subject.process
        closing = asyncio.create_task(subject.child.aclose(60.0))
        for _ in range(passes):
            await asyncio.sleep(0)
        for _ in range(times):
            closing.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(closing, WAIT_S)
        if passes:
            assert subject.codes == [-signal.SIGKILL]
            assert not process.is_running()


async def test_a_closing_cancelled_after_the_kill_says_so_and_still_reaps() -> None:
    async with running(STUBBORN) as subject:
        await subject.line()
        closing = asyncio.create_task(subject.child.aclose(0.0))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert subject.codes == [-signal.SIGKILL]


async def test_a_closing_that_runs_out_of_time_is_cancelled_like_any_other() -> None:
    async with running(STUBBORN) as subject:
        await subject.line()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await subject.child.aclose(60.0)
        assert subject.codes == [-signal.SIGKILL]


async def test_killing_without_the_loop() -> None:
    async with running(GRANDCHILD.format(session=False, then="time.sleep(3600)")) as subject:
        grandchild = int(await subject.line())
        process = subject.process
        subject.child.kill_now()
        assert not process.is_running()
        assert subject.codes == []
        assert await subject.end() == -signal.SIGKILL
        subject.child.kill_now()
        await eventually(lambda: is_gone(grandchild), "the end of the grandchild")


# The start


@pytest.mark.parametrize("case", ["missing", "not-executable", "no-format", "no-cwd", "too-long", "nul"])
async def test_a_start_that_fails_leaves_nothing(case: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"\x00\x01")
    plain.chmod(0o755 if case == "no-format" else 0o644)
    argv = {"missing": [str(tmp_path / "no")], "not-executable": [str(plain)], "no-format": [str(plain)]}
    code: list[int] = []
    child = Child(
        argv.get(case, [sys.executable, "-c", {"too-long": "#" * 4 * MIB, "nul": "\x00"}.get(case, "")]),
        {},
        str(tmp_path / "no") if case == "no-cwd" else None,
        on_stdout=bytearray().extend,
        on_end=code.append,
    )
    with pytest.raises(ValueError if case == "nul" else OSError) as caught:
        await child.start()
    expected: dict[str, int | None] = {
        "missing": errno.ENOENT,
        "not-executable": errno.EACCES,
        "no-format": errno.ENOEXEC,
    }
    expected |= {"no-cwd": errno.ENOENT, "too-long": errno.E2BIG, "nul": None}
    assert getattr(caught.value, "errno", None) == expected[case]
    await child.aclose(60.0)
    assert (child.pid, code) == (0, [])


async def test_running_out_of_descriptors_in_the_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    subject = Running(STUBBORN)
    with pytest.raises(OSError, match="Too many open files"):
        await subject.child.start()
    assert is_gone(subject.child.pid)
    await subject.child.aclose(60.0)
    assert subject.codes == []


@pytest.mark.parametrize("why", ["unknown-to-python", "unknown-to-the-kernel", "forbidden"])
async def test_without_process_descriptors_a_thread_waits(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS if why == "unknown-to-the-kernel" else errno.EPERM, "refused")

    if why == "unknown-to-python":
        monkeypatch.delattr(os, "pidfd_open")
    else:
        monkeypatch.setattr(os, "pidfd_open", refuse)
    async with running(GRANDCHILD.format(session=False, then="os._exit(2)")) as subject:
        grandchild = int(await subject.line())
        assert await subject.end() == 2
        await eventually(lambda: is_gone(grandchild), "the end of the grandchild")
    async with running(STUBBORN) as subject:
        await subject.line()
        await subject.child.aclose(0.0)
        assert subject.codes == [-signal.SIGKILL]
    async with running(STUBBORN) as subject:
        subject.child.kill_now()
        assert await subject.end() == -signal.SIGKILL


# Surroundings


async def test_only_harmless_and_named_variables_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_TOKEN", "NAMED", "LC_TIME", "TZ", "PYTHONPATH"):
        monkeypatch.setenv(name, f"parent's {name}")
    environment = child_environment({"OWN": "1", "TZ": "UTC"}, ["NAMED", "NOT_SET"])
    code = "import os; print(chr(10).join(sorted(os.environ)), end=''); assert os.environ['TZ'] == 'UTC'"
    output = bytearray()
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    child = Child(
        [sys.executable, "-I", "-c", code], environment, None, on_stdout=output.extend, on_end=ended.set_result
    )
    await child.start()
    assert await ended == 0
    names = set(output.decode().split())
    assert {"OWN", "NAMED", "LC_TIME", "TZ", "PATH"} <= names
    assert not {"API_TOKEN", "PYTHONPATH", "NOT_SET"} & names


async def test_it_leads_a_session_of_its_own_and_inherits_no_descriptor(tmp_path: Path) -> None:
    code = "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd')))"
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        async with running(code) as subject:
            # The fourth is the listing itself.
            assert await subject.line() == "True ['0', '1', '2', '3']"
            assert await subject.end() == 0


async def test_nothing_is_kept_of_a_child_that_ended() -> None:
    async with running("pass") as subject:
        assert subject.child.pid in {group.pid for group in process_group._living}
        await subject.end()
        assert subject.child.pid not in {group.pid for group in process_group._living}
