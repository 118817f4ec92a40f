"""The program of a faulty server over stdio: it passes messages on to the test, and does what it is told in return.

It is started by its path, with the URL to ask as its argument, and uses nothing but the standard library, so that it starts
fast wherever the client runs it.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Pipes", "main"]

_FOR_EVER_S = 10**6
_LAST_ANSWERS_S = 0.5


class Pipes:
    """The standard streams of a program, with a method for each instruction."""

    def __init__(self) -> None:
        self.ignores_sigterm: bool = False
        self._lock = threading.Lock()

    def follow(self, instructions: list[dict[str, Any]]) -> None:
        """Follow instructions, one after the other."""
        for instruction in instructions:
            for name, value in instruction.items():
                getattr(self, f"_do_{name}")(value)

    def serve(self, answer: Callable[[object], list[dict[str, Any]]]) -> None:
        """Take messages until standard input ends; each on a thread of its own, so that one may stall."""
        threads: list[threading.Thread] = []
        for line in sys.stdin.buffer:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                continue
            threads = [thread for thread in threads if thread.is_alive()]
            threads.append(
                threading.Thread(target=lambda said: self.follow(answer(said)), args=(message,), daemon=True)
            )
            threads[-1].start()
        # What is being answered still is.
        deadline_s = time.monotonic() + _LAST_ANSWERS_S
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _do_write(self, message: object) -> None:
        self._do_raw(json.dumps(message) + "\n")

    def _do_raw(self, text: str) -> None:
        with self._lock:
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except BrokenPipeError:
                # The client has gone.
                self._point_stdout_nowhere()

    def _do_sleep(self, seconds: float | None) -> None:
        time.sleep(_FOR_EVER_S if seconds is None else seconds)

    def _do_exit(self, code: int) -> None:
        os._exit(code)

    def _do_stderr(self, size: int) -> None:
        line = "x" * 99 + "\n"
        sys.stderr.write(line * (size // 100) + line[: size % 100])
        sys.stderr.flush()

    def _do_close_stdout(self, _: object) -> None:
        with self._lock:
            self._point_stdout_nowhere()

    def _point_stdout_nowhere(self) -> None:
        if stat.S_ISSOCK(os.fstat(1).st_mode):
            # Programs that uvloop starts have another descriptor of it, which would keep it open.
            with socket.socket(fileno=os.dup(1)) as end:
                end.shutdown(socket.SHUT_WR)
        # If it were only closed, the next socket would get its number, and what is written.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)

    def _do_ignore_sigterm(self, _: object) -> None:
        self.ignores_sigterm = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def main(url: str) -> None:
    """Serve on the standard streams until the input ends."""
    parts = urlsplit(url)

    def ask(message: object) -> list[dict[str, Any]]:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            connection.request("POST", parts.path, json.dumps({"pid": os.getpid(), "message": message}))
            response = connection.getresponse()
            said = response.read()
            if response.status != 200:
                raise OSError(said.decode(errors="replace"))
            found: list[dict[str, Any]] = json.loads(said)["do"]
            return found
        finally:
            connection.close()

    def answer(message: object) -> list[dict[str, Any]]:
        try:
            return ask(message)
        except OSError as error:
            sys.stderr.write(f"the test that this program belongs to gave no answer: {error}\n")
            os._exit(1)

    pipes = Pipes()
    pipes.follow(answer(None))
    pipes.serve(answer)
    if pipes.ignores_sigterm:
        time.sleep(_FOR_EVER_S)


if __name__ == "__main__":
    main(sys.argv[1])
