"""Imports modules once, and runs programs in forks of itself: ``preloaded_host.py SOCKET MODULE:NAME ...``.

Each connection brings a program's arguments, environment, working directory and standard streams, from
``preloaded_run.py``. A process for each connection waits for the program, and kills it if the connection ends first.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
from importlib import import_module
from typing import Any

_LENGTH_BYTES = 4
_STREAMS = 3


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive what to run, and the program's standard streams."""
    head, streams, _, _ = socket.recv_fds(connection, _LENGTH_BYTES, _STREAMS)
    with connection.makefile("rb") as rest:
        asked: dict[str, Any] = json.loads(rest.read(int.from_bytes(head, "big")))
    return asked, streams


def attend(connection: socket.socket, program: int) -> None:
    """Wait for a program, and tell how it has ended."""
    ended = os.pidfd_open(program)
    if ended not in select.select([ended, connection.fileno()], [], [])[0]:
        os.kill(program, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
    connection.sendall(status.to_bytes(_LENGTH_BYTES, "big", signed=True))


def next_program(listener: socket.socket) -> dict[str, Any]:
    """Fork for each connection; return what is to be run, in the process that is to run it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        asked, streams = receive(connection)
        program = os.fork()
        if not program:
            connection.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return asked
        for stream in streams:
            os.close(stream)
        try:
            attend(connection, program)
        finally:
            os._exit(0)


def main() -> None:
    """Import, and serve until the end of this process."""
    path, *names = sys.argv[1:]
    for name in names:
        module, _, attribute = name.partition(":")
        imported = import_module(module)
        if attribute:
            getattr(imported, attribute)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(128)
        print("ready", flush=True)
        asked = next_program(listener)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    sys.argv = asked["arguments"]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
