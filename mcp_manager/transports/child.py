"""One supervised child process: pipes, signals and its end. Knows nothing of MCP."""

from __future__ import annotations

import asyncio
import atexit
import collections
import contextlib
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final, cast

__all__ = ["Child", "child_environment"]

_PASSED_ON: Final = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
_STDERR_BYTES: Final = 64 * 1024
# What is written before the child reads it is held in memory up to here; then writers wait.
_WRITE_BUFFER: Final = 1024 * 1024
# After the exit, whoever left the process group may hold the pipes open; nobody waits longer than this for them.
_LAST_WORDS_S: Final = 0.5
_KILLED_S: Final = 5.0


def child_environment(own: Mapping[str, str], inherited: Sequence[str] = ()) -> dict[str, str]:
    """Build a child's environment: a few harmless variables of this process, the named ones, and its own.

    A secret in this process's environment reaches a child only if it is named.
    """
    names = {*_PASSED_ON, *inherited, *(name for name in os.environ if name.startswith("LC_"))}
    return {name: os.environ[name] for name in names if name in os.environ} | dict(own)


class Child:
    """Run a program in a process group of its own.

    Parameters
    ----------
    argv, environment, cwd
        The program and its surroundings; never run through a shell.
    on_stdout
        Takes what the program writes to its standard output, as it comes.
    on_end
        Called once when the program has ended and its output was read: with its exit code, negative for a signal.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        cwd: str | None,
        *,
        on_stdout: Callable[[bytes], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._argv = list(argv)
        self._environment = dict(environment)
        self._cwd = cwd
        self._on_stdout = on_stdout
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._stdin: asyncio.WriteTransport | None = None
        self._outputs: list[asyncio.ReadTransport] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._stderr: collections.deque[bytes] = collections.deque()
        self._stderr_size = 0
        self._stdout_ended = False
        self._exited = False
        self._timer: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int:
        """The process id, 0 before the start."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the program was started and has not ended."""
        return self._process is not None and not self._exited

    async def start(self) -> None:
        """Start the program; raises :class:`OSError` or :class:`ValueError` as :class:`subprocess.Popen`."""
        loop = asyncio.get_running_loop()
        # Blocks for the moment of vfork and exec, as asyncio's own subprocesses do.
        process = subprocess.Popen(  # noqa: ASYNC220
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            cwd=self._cwd,
            start_new_session=True,
        )
        self._process = process
        _children.add(self)
        self._watch_exit(loop, process)
        try:
            await self._connect_pipes(loop, process)
        except BaseException:
            self.signal(signal.SIGKILL)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            self._stdout_ended = True
            await self._wait_killed()
            raise

    async def send(self, data: bytes) -> None:
        """Hand bytes to the program's standard input, waiting while too much of it is unread.

        Raises :class:`BrokenPipeError` if the program has ended or closed it.
        """
        while not self._writable.is_set():
            await self._writable.wait()
        if self._stdin is None or self._stdin.is_closing():
            raise BrokenPipeError("the program's standard input is closed")
        self._stdin.write(data)

    def stderr_tail(self, lines: int = 5) -> str:
        """Return the last lines the program wrote to its standard error, free of control characters."""
        text = b"".join(self._stderr).decode("utf-8", "replace")
        kept = [line for line in text.splitlines() if line.strip()][-lines:]
        return " | ".join("".join(char if char.isprintable() else " " for char in line[:500]) for line in kept)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group, unless the program has ended."""
        if self._process is not None and not self._exited:
            # The leader is not reaped before _exited is set, so the number cannot be another's by now.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def aclose(self, grace_s: float) -> None:
        """End the program: close its input, wait, SIGTERM, wait, SIGKILL (2025-11-25, stdio shutdown); idempotent.

        ``grace_s`` is each wait's length. Cancelled, it kills at once and still reaps.
        """
        if self._process is None:
            return
        try:
            if self._stdin is not None:
                self._stdin.close()
            if not await self._ends_within(grace_s):
                self.signal(signal.SIGTERM)
                await self._ends_within(grace_s)
        finally:
            self.signal(signal.SIGKILL)
            await self._wait_killed()
            self._release()

    def kill_and_reap(self) -> None:
        """End the program without a loop, as the interpreter's exit does."""
        process = self._process
        if process is None or self._exited:
            return
        self.signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILLED_S)
        self._exited = True

    async def _connect_pipes(self, loop: asyncio.AbstractEventLoop, process: subprocess.Popen[bytes]) -> None:
        stdin, _ = await loop.connect_write_pipe(
            lambda: _StdinProtocol(self._writable, self._stdin_closed), process.stdin
        )
        self._stdin = stdin
        stdin.set_write_buffer_limits(high=_WRITE_BUFFER)
        for pipe, take, end in (
            (process.stdout, self._on_stdout, self._stdout_closed),
            (process.stderr, self._take_stderr, _nothing),
        ):
            output, _ = await loop.connect_read_pipe(_output_factory(take, end), cast(IO[Any], pipe))
            self._outputs.append(output)

    def _watch_exit(self, loop: asyncio.AbstractEventLoop, process: subprocess.Popen[bytes]) -> None:
        if hasattr(os, "pidfd_open"):
            self._pidfd = os.pidfd_open(process.pid)
            loop.add_reader(self._pidfd, self._exit_seen)
        else:
            # Without pidfds (macOS) a thread has to wait; WNOWAIT leaves the reaping to the loop.
            def wait() -> None:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._exit_seen)

            threading.Thread(target=wait, name=f"mcp-child-{process.pid}", daemon=True).start()

    def _exit_seen(self) -> None:
        process = self._process
        if process is None or self._exited:
            return
        # While the leader is a zombie its number is nobody else's: the last safe moment for the rest of the group.
        self.signal(signal.SIGKILL)
        process.poll()
        self._exited = True
        self._drop_pidfd()
        if self._stdout_ended:
            self._finish()
        else:
            self._timer = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._finish)

    def _stdin_closed(self) -> None:
        # asyncio's pipe transport cannot be aborted any more once it is closed.
        self._stdin = None

    def _stdout_closed(self) -> None:
        self._stdout_ended = True
        if self._exited:
            self._finish()
        elif self._timer is None and not self._ended.is_set():
            # A server that closed its output can never answer again.
            self._timer = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self.signal, signal.SIGKILL)

    def _finish(self) -> None:
        if self._ended.is_set():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set()
        self._writable.set()
        self._release()
        assert self._process is not None
        self._on_end(self._process.returncode if self._process.returncode is not None else 0)

    def _release(self) -> None:
        if self._timer is not None and self._ended.is_set():
            self._timer.cancel()
        stdin = self._stdin
        # An aborted transport that had its end coming already would be told of it twice.
        if stdin is not None and (not stdin.is_closing() or stdin.get_write_buffer_size()):
            stdin.abort()
        for output in self._outputs:
            output.close()
        self._drop_pidfd()
        _children.discard(self)

    def _drop_pidfd(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _take_stderr(self, data: bytes) -> None:
        self._stderr.append(data[-_STDERR_BYTES:])
        self._stderr_size += len(self._stderr[-1])
        while self._stderr_size - len(self._stderr[0]) >= _STDERR_BYTES:
            self._stderr_size -= len(self._stderr.popleft())

    async def _ends_within(self, seconds: float) -> bool:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
        return self._ended.is_set()

    async def _wait_killed(self) -> None:
        """Wait for the end of a killed program, which is a matter of moments, even if the caller gives up."""
        waiter = asyncio.ensure_future(self._ends_within(_KILLED_S))
        try:
            await asyncio.shield(waiter)
        except asyncio.CancelledError:
            await asyncio.wait({waiter})
            raise


class _StdinProtocol(asyncio.BaseProtocol):
    def __init__(self, writable: asyncio.Event, closed: Callable[[], None]) -> None:
        self._writable = writable
        self._closed = closed

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed()
        self._writable.set()


class _OutputProtocol(asyncio.Protocol):
    def __init__(self, take: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self._take = take
        self._end = end

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()


def _output_factory(take: Callable[[bytes], None], end: Callable[[], None]) -> Callable[[], _OutputProtocol]:
    return lambda: _OutputProtocol(take, end)


def _nothing() -> None:
    """Do nothing: the end of stderr means nothing."""


_children: weakref.WeakSet[Child] = weakref.WeakSet()


@atexit.register
def _reap_all() -> None:
    for child in list(_children):
        child.kill_and_reap()
