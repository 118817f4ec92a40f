"""One supervised child process: its pipes, signals and end. Knows nothing of MCP."""

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

from mcp_manager.config.redaction import CONTROL_SEQUENCE, masked_so_far, printable
from mcp_manager.runtime.background import bare_context
from mcp_manager.runtime.forks import keep_from_children
from mcp_manager.runtime.read_budget import CallbackReader, ReadBudget, read_budget
from mcp_manager.transports.stdio.descendants import kill_marked_soon, new_mark
from mcp_manager.transports.stdio.marked import MARK
from mcp_manager.transports.stdio.process_group import ProcessGroup, wait_unreaped
from mcp_manager.transports.stdio.stderr_excerpt import stderr_excerpt

__all__ = ["Child", "child_environment", "how_it_ended"]

_log = logging.getLogger(__name__)

_PASSED_ON: Final = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
_READ_BYTES: Final = 64 * 1024
# The largest pipe on Linux by default (fs.pipe-max-size).
_FULL_PIPE: Final = 1024 * 1024
_STDERR_BYTES: Final = 64 * 1024
_STDERR_LINE: Final = 500
# Chunks of stderr from this size on count against the read budget.
_MUCH_STDERR: Final = 4096
_STDERR_BYTE_NS: Final = 4
# High and low water mark of the bytes that the child has not read yet: above the first, writers wait for the second.
_WRITE_HIGH: Final = 1024 * 1024
_WRITE_LOW: Final = _WRITE_HIGH // 4
# How long to wait after the exit for the end of the pipes, which a process that was not found may hold open, and how
# long a program that has closed one of its pipes may go on.
_LAST_WORDS_S: Final = 0.5
_KILLED_S: Final = 5.0
_REAP_AGAIN_S: Final = 0.01


def child_environment(own: Mapping[str, str], inherited: Sequence[str] = ()) -> dict[str, str]:
    """Build a child's environment.

    It has a few harmless variables of this process, the inherited ones and its own. A secret in this process's
    environment reaches a child only if it is named.

    Parameters
    ----------
    own
        The child's own variables.
    inherited
        Names of variables of this process to pass on.
    """
    names = {*_PASSED_ON, *inherited, *(name for name in os.environ if name.startswith("LC_"))}
    return {name: os.environ[name] for name in names if name in os.environ} | dict(own)


class Child:
    """Run a program in a process group of its own.

    When the program ends, the rest of the group is killed, and on Linux also the descendants that left the group (see
    ``kill_marked()`` in :mod:`.marked`). It uses neither a thread nor a task where the system has pidfds: the loop
    watches its pipes and its end.

    Parameters
    ----------
    argv, environment, cwd
        The program, its environment and its working directory; it is never run through a shell.
    on_stdout
        Takes each chunk of the program's standard output.
    on_end
        Called once, after the program has ended and its output was read, with the exit code, negative for a signal.
    on_stderr
        Takes each chunk of the program's standard error; returns how many nanoseconds that took, 0 for hardly any.
    on_flood
        Called when the program writes more to its standard error than the read budget allows.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        cwd: str | None,
        *,
        on_stdout: Callable[[bytes], None],
        on_end: Callable[[int], None],
        on_stderr: Callable[[bytes], int] = lambda _: 0,
        on_flood: Callable[[], None] = lambda: None,
    ) -> None:
        self._argv = list(argv)
        self._token, mark = new_mark()
        self._environment = {**environment, MARK: mark}
        self._cwd = cwd
        self._on_stdout = on_stdout
        self._on_end = on_end
        self._on_stderr = on_stderr
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
        self._stderr_reader = CallbackReader(lambda: self._watch(self._stderr_number), on_flood)
        self._closing = False
        self._terminated = False
        self._exit_code: int | None = None
        self._rest_killed = False
        self._kill_timer: asyncio.TimerHandle | None = None
        self._finish_timer: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self.misdeed: str = ""
        """Why the program was killed, in words; empty if it was not, or on request."""

    @property
    def pid(self) -> int:
        """The process id, 0 before the start; after the end it may be reused."""
        return self._group.pid if self._group is not None else 0

    async def start(self) -> None:
        """Start the program.

        It contains no await, so after a cancellation the program either runs or was not started.

        Raises
        ------
        OSError, ValueError
            As :class:`subprocess.Popen`.
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
        # A child that is dropped, because its loop was closed for example, must not keep running.
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
        """Whether :meth:`send` takes bytes without waiting."""
        return self._writable.is_set()

    async def wait_writable(self) -> None:
        """Wait while too much of what was written to the program's standard input is unread."""
        while not self._writable.is_set():
            await self._writable.wait()

    async def send(self, data: bytes) -> None:
        """Write to the program's standard input; wait as :meth:`wait_writable`.

        If it is cancelled, nothing was written.

        Raises
        ------
        BrokenPipeError
            The program has ended, has closed its input, or is being ended; nothing was written.
        """
        await self.wait_writable()
        if self._stdin is None or self._closing:
            raise BrokenPipeError("the program's standard input is closed")
        self._write(self._stdin, data)

    def stderr_tail(self, lines: int = 5, *, hidden: Collection[str] = ()) -> str:
        """Return the most informative last lines of the program's standard error, as one printable line.

        Parameters
        ----------
        lines
            The most lines to return; see ``stderr_excerpt()`` in :mod:`.stderr_excerpt`.
        hidden
            Texts to mask, such as credentials that the program may have quoted.
        """
        text = CONTROL_SEQUENCE.sub("", self._stderr[-_STDERR_BYTES:].decode("utf-8", "replace"))
        text = masked_so_far(text, hidden)
        if len(self._stderr) > _STDERR_BYTES:
            # The rest of a line whose beginning was dropped may end a text to mask.
            text = text.partition("\n")[2] or text[-_STDERR_LINE:]
        return " | ".join(printable(line[:_STDERR_LINE]) for line in stderr_excerpt(text, lines))

    def pause(self) -> None:
        """Stop reading the standard output until :meth:`resume`; backpressure holds the program back."""
        if self._stdout_number in self._outputs:
            asyncio.get_running_loop().remove_reader(self._stdout_number)

    def resume(self) -> None:
        """Read the standard output again."""
        self._watch(self._stdout_number)

    def kill(self) -> None:
        """Kill the process group unless the program has ended; ``on_end`` follows soon."""
        if self._group is not None:
            self._group.signal(signal.SIGKILL)
            self._close_stdin()

    def kill_now(self) -> None:
        """Kill the process group and reap the program; blocks for a moment.

        For emergencies: it may be called on any thread, and without a loop.
        """
        if self._group is not None:
            self._group.kill_and_reap()

    async def aclose(self, grace_s: float) -> None:
        """End the program: close its input, wait, SIGTERM, wait, SIGKILL (2025-11-25, 2026-07-28, stdio); idempotent.

        Its output is read meanwhile. If it is cancelled, it kills at once and still reaps.

        Parameters
        ----------
        grace_s
            The length of each of the two waits in seconds.
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
        # The loop's pipe transports are not used. uvloop closes the descriptor and then the file object with the same
        # number, which another thread may have got meanwhile. And connecting a transport is an await, which may be
        # cancelled.
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
            # The reader keeps its context, and a child outlives the call that started it.
            bare_context().run(asyncio.get_running_loop().add_reader, number, self._read, number)

    def _watch_exit(self, pid: int) -> None:
        loop = asyncio.get_running_loop()
        if hasattr(os, "pidfd_open"):
            try:
                self._pidfd = FileIO(os.pidfd_open(pid))
            except OSError as error:
                # Old kernels do not have it, and some sandboxes forbid it.
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
            # A pipe that cannot be read has ended; otherwise the loop would call this for ever.
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
            # One byte more than is shown marks that something was dropped.
            del self._stderr[: -_STDERR_BYTES - 1]
        # No caller waits for stderr, so a flood of it must not take the loop's time.
        cost_ns = self._on_stderr(data)
        if (
            self._budget is not None
            and (len(data) >= _MUCH_STDERR or cost_ns)
            and not self._budget.spend(len(data) * _STDERR_BYTE_NS + cost_ns)
        ):
            asyncio.get_running_loop().remove_reader(self._stderr_number)
            self._budget.wait(self._stderr_reader)

    def _kill_soon(self, misdeed: str) -> None:
        """Kill a program that can no longer answer, unless it ends by itself within half a second."""
        if self._exit_code is None and self._kill_timer is None and not self._closing:
            self._kill_timer = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._kill_for, misdeed)

    def _kill_for(self, misdeed: str) -> None:
        # It may have ended meanwhile; ``on_end`` is called only after its output was read.
        if self._exit_code is None:
            self.misdeed = misdeed
            self.kill()

    def _exit_seen(self) -> None:
        group = self._group
        if group is None or self._exit_code is not None:
            return
        # The leader is a zombie, so its id is not reused yet: the last safe moment to kill the rest of the group.
        group.signal(signal.SIGKILL)
        code = group.reap()
        if code is None:
            if self._pidfd is None:
                # Without a pidfd, nothing calls this again.
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
        """Read the rest of the pipes: the last replies may be behind a flood that had to wait for a time slice."""
        for number in list(self._outputs):
            for _ in range(_FULL_PIPE // _READ_BYTES):
                if number in self._outputs:
                    self._read(number)

    def _release(self) -> None:
        """Close the pipes, the pidfd and the timers; what another process still writes is lost."""
        for timer in (self._kill_timer, self._finish_timer):
            if timer is not None:
                timer.cancel()
        self._close_stdin()
        if self._budget is not None:
            self._budget.leave(self._stderr_reader)
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
        """Wait a few seconds for the end of a killed program, however often the caller is cancelled."""
        deadline = asyncio.get_running_loop().time() + _KILLED_S
        cancelled: asyncio.CancelledError | None = None
        while not self._ended.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._ended.wait()
            except asyncio.CancelledError as error:
                cancelled = error
            except TimeoutError:
                # It hangs in the kernel. Its end is still watched, so that it is reaped if it ever ends.
                _log.warning("process %d does not end although it was killed", self.pid)
                break
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                # Its traceback holds this frame.
                del cancelled


def how_it_ended(exit_code: int, misdeed: str) -> str:
    """Return in words how a program ended; ``misdeed`` as that of :class:`Child`."""
    if misdeed:
        return f"{misdeed} and was killed"
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    try:
        return f"was killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:
        return f"was killed by signal {-exit_code}"
