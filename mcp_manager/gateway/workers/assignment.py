"""``Assignment``: what the parent process tells a worker at its start, secrets included, over a socket between them."""

from __future__ import annotations

import os
import socket
from typing import Final

import msgspec

__all__ = ["VARIABLE", "Assignment", "inherited", "socket_path"]

VARIABLE: Final = "_MCP_MANAGER_WORKER"
"""The environment variable that tells a process that it is a worker: the descriptor of its socket to the parent."""

_LONGEST: Final = 1024 * 1024


class Assignment(msgspec.Struct, frozen=True):
    """What one worker is, and what it shares with its siblings.

    Parameters
    ----------
    number
        Its number, from 0; a worker that takes the place of one that died has the same.
    count
        How many workers there are.
    directory
        The private directory with the unix sockets of all workers: see :func:`socket_path`.
    secret
        What workers show each other, so that nobody else passes for one of them.
    session_keys
        The keys that seal session ids and the like, the same for all workers.
    listener
        The descriptor of the listening socket at the public address.
    sibling_listener
        The descriptor of the listening unix socket for requests of siblings.
    """

    number: int
    count: int
    directory: str
    secret: str
    session_keys: tuple[str, ...]
    listener: int
    sibling_listener: int

    def __repr__(self) -> str:
        return f"Assignment(number={self.number}, count={self.count}, directory={self.directory!r})"

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Return the listening sockets: that of the public address, and that for siblings; call it once."""
        return socket.socket(fileno=self.listener), socket.socket(fileno=self.sibling_listener)


def socket_path(directory: str, number: int) -> str:
    """Return the path of the unix socket of a worker."""
    return os.path.join(directory, f"{number}.sock")


def inherited() -> tuple[Assignment, socket.socket] | None:
    """Return the assignment of this process and its socket to the parent; ``None`` if it is no worker.

    Call it once, early: the children of this process inherit neither the variable nor the sockets after that.

    Raises
    ------
    EOFError
        The parent has ended already.
    """
    descriptor = os.environ.pop(VARIABLE, None)
    if descriptor is None:
        return None
    parent = socket.socket(fileno=int(descriptor))
    received = bytearray()
    while not received.endswith(b"\n"):
        # The parent sends nothing more before it has heard of this process.
        chunk = parent.recv(65536)
        if not chunk or len(received) > _LONGEST:
            parent.close()
            raise EOFError("the parent process ended before it said what this worker is to do")
        received += chunk
    assignment = msgspec.json.decode(received, type=Assignment)
    for each in (parent.fileno(), assignment.listener, assignment.sibling_listener):
        os.set_inheritable(each, False)
    return assignment, parent
