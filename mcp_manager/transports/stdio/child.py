"""One supervised child process: pipes, signals and its end. Knows nothing of MCP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from io import FileIO
from typing import Final, cast

from mcp_manager.config.redaction import masked_so_far, printable
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.forks import keep_from_children
from mcp_manager.runtime.read_budget import CallbackReader, ReadBudget, read_budget
from mcp_manager.transports.stdio.descendants import kill_marked_soon, new_mark
from mcp_manager.transports.stdio.marked import MARK
from mcp_manager.transports.stdio.process_group import ProcessGroup, wait_unreaped
from mcp_manager.transports.stdio.telling_lines import telling_lines

__all__ = ["Child", "child_environment"]

_log = logging.getLogger(__name__)

_PASSED_ON: Final = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
_READ_BYTES: Final = 64 * 1024
# The most that Linux lets a pipe hold, unless it was told otherwise (fs.pipe-max-size).
_FULL_PIPE: Final = 1024 * 1024
_STDERR_BYTES: Final = 64 * 1024
_STDERR_LINE: Final = 500
# From so much at once on, standard error takes the loop's time like any other message that nobody asked for.
_MUCH_STDERR: Final = 4096
_STDERR_BYTE_NS: Final = 4
# What is written before the child reads it is held in memory up to the first mark; then writers wait for the second.
_WRITE_HIGH: Final = 1024 * 1024
_WRITE_LOW: Final = _WRITE_HIGH // 4
# After the exit, whoever was not found may hold the pipes open; nobody waits longer than this for them. As long is a
# program left alone that closed a pipe of its own.
_LAST_WORDS_S: Final = 0.5
_KILLED_S: Final = 5.0
_REAP_AGAIN_S: Final = 0.01


def child_environment(own: Mapping[str, str], inherited: Sequence[str] = ()) -> dict[str, str]:
    """Build a child's environment: a few harmless variables of this process, the named ones, and its own.

    A secret in this process's environment reaches a child only if it is named.
    """
    names = {*_PASSED_ON, *inherited, *(name for name in os.environ if name.startswith("LC_"))}
    return {name: os.environ[name] for name in names if name in os.environ} | dict(own)


class Child:
    """Run a program in a process group of its own.

    When it ends, for whatever reason, the rest of the group is killed, and on Linux also what left the group: see
    :func:`~mcp_manager.transports.stdio.marked.kill_marked`. Neither a thread nor a task belongs to it: the loop watches its pipes and its end.

    Parameters
    ----------
    argv, environment, cwd
        The program and its surroundings; never run through a shell.
    on_stdout
        Takes what the program writes to its standard output, as it comes.
    on_end
        Called once when the program has ended and its output was read: with its exit code, negative for a signal.
    on_flood
        Told that the program writes more to its standard error than the loop has time for.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        cwd: str | None,
        *,
        on_stdout: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_flood: Callable[[], None] = lambda: None,
    ) -> None:
        self._argv = list(argv)
        self._token, mark = new_mark()
        self._environment = {**environment, MARK: mark}
        self._cwd = cwd
        self._on_stdout = on_stdout
        self._on_end = on_end
        self._group: ProcessGroup | None = None
        self._pidfd: FileIO | None = None
        self._stdin: FileIO | None = None
        self._stdout_number = self._stderr_number = -1
        self._outputs: dict[int, tuple[FileIO, Callable[[bytes], None]]] = {}
        self._unwritten = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self._stderr = bytearray()
        self._budget: ReadBudget | None = None
        self._stderr_turn = CallbackReader(lambda: self._watch(self._stderr_number), on_flood)
        self._closing = False
        self._terminated = False
        self._exit_code: int | None = None
        self._rest_killed = False
        self._kill_timer: asyncio.TimerHandle | None = None
        self._finish_timer: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self.misdeed = ""
        """Why the program is being killed before it ended by itself, in words; empty if it is not."""

    @property
    def pid(self) -> int:
        """The process id, 0 before the start; after the end the number may be another's."""
        return self._group.pid if self._group is not None else 0

    async def start(self) -> None:
        """Start the program; raises :class:`OSError` or :class:`ValueError` as :class:`subprocess.Popen`.

        There is no await in it, so a cancellation finds the program either running or not started.
        """
        assert self._group is None and not self._closing, "a child starts once, and not after its end"
        # Blocks for the moment of vfork and exec, as asyncio's own subprocesses do.
        process = subprocess.Popen(  # noqa: ASYNC220
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=self._environment,
            cwd=self._cwd,
            start_new_session=True,
        )
        self._group = group = ProcessGroup(process, self._token)
        # A child that is forgotten, its loop closed under it, must not run on.
        weakref.finalize(self, group.forget).atexit = False
        try:
            self._watch_pipes(process)
            self._watch_exit(process.pid)
        except BaseException:
            group.kill_and_reap()
            self._release()
            self._ended.set()
            raise

    @property
    def writable(self) -> bool:
        """Whether :meth:`send` would take bytes without waiting."""
        return self._writable.is_set()

    async def send(self, data: bytes) -> None:
        """Hand bytes to the program's standard input, waiting while too much of it is unread.

        Cancelled, it has handed over nothing.

        Raises
        ------
        BrokenPipeError
            The program has ended or closed its input, or is being ended; nothing was handed over.
        """
        while not self._writable.is_set():
            await self._writable.wait()
        if self._stdin is None or self._closing:
            raise BrokenPipeError("the program's standard input is closed")
        self._write(self._stdin, data)

    def stderr_tail(self, lines: int = 5, *, hidden: Collection[str] = ()) -> str:
        """Return the last telling lines of the program's standard error, in one line free of control characters.

        Parameters
        ----------
        lines
            How many of its lines; see :func:`~mcp_manager.transports.stdio.telling_lines.telling_lines`.
        hidden
            Texts to mask, such as credentials that the program may have quoted.
        """
        text = self._stderr[-_STDERR_BYTES:].decode("utf-8", "replace")
        text = masked_so_far(text, hidden)
        if len(self._stderr) > _STDERR_BYTES:
            # What is left of a line whose beginning was dropped may be the rest of a text to hide.
            text = text.partition("\n")[2] or text[-_STDERR_LINE:]
        return " | ".join(printable(line[:_STDERR_LINE]) for line in telling_lines(text, lines))

    def pause(self) -> None:
        """Read no more of the standard output, which holds the program back, until :meth:`resume`."""
        if self._stdout_number in self._outputs:
            asyncio.get_running_loop().remove_reader(self._stdout_number)

    def resume(self) -> None:
        """End :meth:`pause`."""
        self._watch(self._stdout_number)

    def kill(self) -> None:
        """Kill the whole process group, unless the program has ended; ``on_end`` follows soon."""
        if self._group is not None:
            self._group.signal(signal.SIGKILL)
            self._close_stdin()

    def kill_now(self) -> None:
        """Kill the whole process group and reap the program, blocking for the moment that takes; for emergencies.

        May be called on any thread, and without a loop.
        """
        if self._group is not None:
            self._group.kill_and_reap()

    async def aclose(self, grace_s: float) -> None:
        """End the program: close its input, wait, SIGTERM, wait, SIGKILL (2025-11-25, 2026-07-28, stdio); idempotent.

        Its output is read all the while. Cancelled, it kills at once and still reaps.

        Parameters
        ----------
        grace_s
            Length of each of the two waits in seconds.
        """
        self._closing = True
        if self._group is None or not self._group.is_own:
            return
        self._writable.set()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        if not self._unwritten:
            self._close_stdin()
        try:
            if not await self._ends_within(grace_s):
                if not self._terminated:
                    self._terminated = True
                    self._group.signal(signal.SIGTERM)
                await self._ends_within(grace_s)
        finally:
            self.kill()
            await self._wait_killed()

    def _watch_pipes(self, process: subprocess.Popen[bytes]) -> None:
        # Not the loop's pipe transports: uvloop closes a descriptor and then the file object over the same number,
        # which another thread may have been given in between; and connecting one is an await that can be cancelled.
        self._stdin = cast(FileIO, process.stdin)
        keep_from_children(self._stdin)
        os.set_blocking(self._stdin.fileno(), False)
        for stream, take in ((process.stderr, self._take_stderr), (process.stdout, self._on_stdout)):
            pipe = cast(FileIO, stream)
            keep_from_children(pipe)
            os.set_blocking(pipe.fileno(), False)
            self._outputs[pipe.fileno()] = (pipe, take)
        self._stdout_number = cast(FileIO, process.stdout).fileno()
        self._stderr_number = cast(FileIO, process.stderr).fileno()
        self._budget = read_budget()
        for number in self._outputs:
            self._watch(number)

    def _watch(self, number: int) -> None:
        if number in self._outputs:
            # It keeps the context, as a child outlives whoever started it.
            bare_context().run(asyncio.get_running_loop().add_reader, number, self._read, number)

    def _watch_exit(self, pid: int) -> None:
        loop = asyncio.get_running_loop()
        if hasattr(os, "pidfd_open"):
            try:
                self._pidfd = FileIO(os.pidfd_open(pid))
            except OSError as error:
                # Old kernels do not know it, and some sandboxes do not allow it.
                if error.errno not in (errno.ENOSYS, errno.EPERM):
                    raise
            else:
                keep_from_children(self._pidfd)
                bare_context().run(loop.add_reader, self._pidfd.fileno(), self._exit_seen)
                return

        def wait() -> None:
            wait_unreaped(pid)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._exit_seen)

        threading.Thread(target=wait, name=f"mcp-child-{pid}", daemon=True).start()

    def _write(self, stdin: FileIO, data: bytes) -> None:
        if not self._unwritten:
            try:
                written = os.write(stdin.fileno(), data)
            except BlockingIOError:
                written = 0
            except OSError:
                self._stdin_lost()
                raise BrokenPipeError("the program has closed its standard input") from None
            if written == len(data):
                return
            asyncio.get_running_loop().add_writer(stdin.fileno(), self._flush)
            self._unwritten += memoryview(data)[written:]
        else:
            self._unwritten += data
        if len(self._unwritten) > _WRITE_HIGH:
            self._writable.clear()

    def _flush(self) -> None:
        assert self._stdin is not None
        try:
            written = os.write(self._stdin.fileno(), self._unwritten)
        except BlockingIOError:
            return
        except OSError:
            self._stdin_lost()
            return
        del self._unwritten[:written]
        if len(self._unwritten) <= _WRITE_LOW:
            self._writable.set()
        if not self._unwritten:
            asyncio.get_running_loop().remove_writer(self._stdin.fileno())
            if self._closing:
                self._close_stdin()

    def _stdin_lost(self) -> None:
        self._close_stdin()
        self._kill_soon("closed its standard input")

    def _close_stdin(self) -> None:
        if self._stdin is not None:
            asyncio.get_running_loop().remove_writer(self._stdin.fileno())
            self._stdin.close()
            self._stdin = None
            self._unwritten.clear()
        self._writable.set()

    def _read(self, number: int) -> None:
        try:
            data = os.read(number, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # What cannot be read any more has ended; the loop would call for ever.
            data = b""
        if data:
            self._outputs[number][1](data)
            return
        self._close_output(number)
        if self._exit_code is None:
            if number == self._stdout_number:
                self._kill_soon("closed its standard output")
        elif self._rest_killed and not self._outputs:
            self._finish()

    def _close_output(self, number: int) -> None:
        asyncio.get_running_loop().remove_reader(number)
        self._outputs.pop(number)[0].close()

    def _take_stderr(self, data: bytes) -> None:
        self._stderr += data
        if len(self._stderr) > 2 * _STDERR_BYTES:
            # One byte more than is shown says that something was dropped.
            del self._stderr[: -_STDERR_BYTES - 1]
        # Nobody waits for it, and most of it is dropped.
        if (
            self._budget is not None
            and len(data) >= _MUCH_STDERR
            and not self._budget.spend(len(data) * _STDERR_BYTE_NS)
        ):
            asyncio.get_running_loop().remove_reader(self._stderr_number)
            self._budget.wait(self._stderr_turn)

    def _kill_soon(self, misdeed: str) -> None:
        """End a program that can never answer again, unless it is ending already."""
        if self._exit_code is None and self._kill_timer is None and not self._closing:
            self._kill_timer = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._kill_for, misdeed)

    def _kill_for(self, misdeed: str) -> None:
        # It may have ended by itself meanwhile, which is not told before its output was read.
        if self._exit_code is None:
            self.misdeed = misdeed
            self.kill()

    def _exit_seen(self) -> None:
        group = self._group
        if group is None or self._exit_code is not None:
            return
        # While the leader is a zombie its number is nobody else's: the last safe moment for the rest of the group.
        group.signal(signal.SIGKILL)
        code = group.reap()
        if code is None:
            if self._pidfd is None:
                # What told of the end will not tell again.
                asyncio.get_running_loop().call_later(_REAP_AGAIN_S, self._exit_seen)
            return
        self._exit_code = code
        self._drop_pidfd()
        kill_marked_soon(group.token, self._rest_is_killed)

    def _rest_is_killed(self) -> None:
        self._rest_killed = True
        if self._outputs:
            self._finish_timer = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._finish)
        else:
            self._finish()

    def _finish(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._read_rest()
            self._release()
            assert self._exit_code is not None
            self._on_end(self._exit_code)

    def _read_rest(self) -> None:
        """Read what the pipes hold: a flood that had to wait for its turn may have the last replies behind it."""
        for number in list(self._outputs):
            for _ in range(_FULL_PIPE // _READ_BYTES):
                if number in self._outputs:
                    self._read(number)

    def _release(self) -> None:
        """Close everything that is open; what a stubborn process still writes is lost."""
        for timer in (self._kill_timer, self._finish_timer):
            if timer is not None:
                timer.cancel()
        self._close_stdin()
        if self._budget is not None:
            self._budget.leave(self._stderr_turn)
        for number in list(self._outputs):
            self._close_output(number)
        self._drop_pidfd()

    def _drop_pidfd(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd.fileno())
            self._pidfd.close()
            self._pidfd = None

    async def _ends_within(self, seconds: float) -> bool:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
        return self._ended.is_set()

    async def _wait_killed(self) -> None:
        """Wait for the end of a killed program, which is a matter of moments, however often the caller gives up."""
        deadline = asyncio.get_running_loop().time() + _KILLED_S
        cancelled: asyncio.CancelledError | None = None
        while not self._ended.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._ended.wait()
            except asyncio.CancelledError as error:
                cancelled = error
            except TimeoutError:
                # The kernel does not let go of it. Its end stays watched, so that it is reaped if it ever comes.
                _log.warning("process %d does not end though it was killed", self.pid)
                break
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                # Its traceback holds this frame.
                del cancelled
