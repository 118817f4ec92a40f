"""Runs a program to its end and returns what it wrote, within limits of time and size."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["CommandError", "run_command"]

# How often the thread looks whether the program was killed: one that left its group may keep the pipe open.
_LOOK_S: Final = 0.1
_CHUNK: Final = 65_536
# How long a killed program may take to be reaped.
_REAP_S: Final = 5.0


class CommandError(Exception):
    """A program gave no usable output; the text says why and quotes nothing of what the program wrote."""


async def run_command(
    argv: Sequence[str], *, environment: Mapping[str, str], timeout_s: float, most_bytes: int
) -> bytes:
    """Run a program without a shell, and return its standard output; its standard error is discarded.

    It leads a process group of its own, which is killed when the time is over, when the output is too long, and when
    the caller is cancelled.

    Parameters
    ----------
    argv
        The program and its arguments.
    environment
        Its environment.
    timeout_s
        How many seconds it may take.
    most_bytes
        How much it may write.

    Raises
    ------
    CommandError
        It could not be started, failed, took too long or wrote too much.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes | CommandError] = loop.create_future()
    run = _Run(argv, environment, timeout_s, most_bytes)

    def work() -> None:
        outcome = run.outcome()
        # The loop may have been closed meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, done, outcome)

    # Not a thread of the default executor: programs that hang would keep name resolution waiting.
    threading.Thread(target=work, name="mcp-command", daemon=True).start()
    try:
        await asyncio.wait({done})
    except asyncio.CancelledError:
        run.kill()
        await asyncio.wait({done})
        raise
    outcome = done.result()
    if isinstance(outcome, bytes):
        return outcome
    raise CommandError(str(outcome))


class _Run:
    """One run of a program, on a thread that waits for it."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], timeout_s: float, most_bytes: int) -> None:
        self._argv = argv
        self._environment = environment
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._ends_at = time.monotonic() + timeout_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    def outcome(self) -> bytes | CommandError:
        """Run the program; return its output, or why there is none."""
        try:
            return self._output()
        except CommandError as error:
            return error.with_traceback(None)
        except (OSError, ValueError) as error:
            return CommandError(f"it cannot be started ({type(error).__name__})")
        finally:
            self._end()

    def kill(self) -> None:
        """Kill the program and its group, or keep it from starting."""
        # Until it is reaped, its process id cannot be reused: killing and reaping happen under one lock.
        with self._lock:
            self._is_killed = True
            process = self._process
            if process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _output(self) -> bytes:
        with self._lock:
            if self._is_killed:
                raise CommandError("it was not started")
            self._process = process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
                bufsize=0,
            )
        assert process.stdout is not None
        found = bytearray()
        number = process.stdout.fileno()
        poll = select.poll()
        poll.register(number, select.POLLIN)
        while True:
            self._check_time()
            if not poll.poll(min(_LOOK_S, max(0.0, self._ends_at - time.monotonic())) * 1000):
                continue
            chunk = os.read(number, _CHUNK)
            if not chunk:
                break
            found += chunk
            if len(found) > self._most_bytes:
                raise CommandError(f"it wrote more than {self._most_bytes:,} bytes and was killed")
        while (code := self._reaped()) is None:
            self._check_time()
            time.sleep(0.001)
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise CommandError(f"it {how}")
        return bytes(found)

    def _check_time(self) -> None:
        if self._is_killed:
            raise CommandError("it was killed")
        if time.monotonic() >= self._ends_at:
            raise CommandError(f"it did not end within {self._timeout_s:g} s and was killed")

    def _reaped(self) -> int | None:
        with self._lock:
            return None if self._process is None else self._process.poll()

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            self.kill()
            ends_at = time.monotonic() + _REAP_S
            while self._reaped() is None and time.monotonic() < ends_at:
                time.sleep(0.001)
        if process.stdout is not None:
            process.stdout.close()


def _settle(done: asyncio.Future[bytes | CommandError], outcome: bytes | CommandError) -> None:
    if not done.done():
        done.set_result(outcome)
