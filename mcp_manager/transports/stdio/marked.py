"""Processes known by a mark in their environment, found and killed; run as a program, it does so when its parent dies.

It imports nothing but what an interpreter has loaded anyway: as a program, it waits beside every host of children.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection

__all__ = ["HOST_TOKEN_CHARS", "MARK", "kill_marked"]

MARK = "MCP_MANAGER_CHILD"
"""The environment variable that every descendant of a child inherits; a program that is to outlive it drops it."""

HOST_TOKEN_CHARS = 12
"""How long what the tokens of one host's children have in common is; each of them is longer."""

_SEPARATOR = b","
_ENTRY = f"{MARK}=".encode()
_READ_BYTES = 1024 * 1024
# A process may be started behind the back of one pass, but only by one that this pass did not find either.
_MAX_PASSES = 10
# A process that is just becoming another program shows neither environment nor arguments; longer than this takes none.
_EXEC_S = 0.01
_EXEC_POLL_S = 0.0001


def kill_marked(tokens: Collection[str]) -> None:
    """Kill every process whose environment holds one of these tokens, or one of a host's, as it was when its program began.

    That finds who called ``setsid`` and who was orphaned, which neither process groups nor parents tell. Whoever
    cleared its environment is not found, and nothing is where there is no ``/proc`` or no ``pidfd_open``: without it, a
    number may be another process's by the time it is signalled.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return
    wanted = {token.encode() for token in tokens}
    killed: set[int] = set()
    for _ in range(_MAX_PASSES):
        found = {pid for pid in _process_ids() if pid not in killed and _is_marked(pid, wanted)}
        if not found:
            return
        for pid in found:
            _kill_if_marked(pid, wanted)
        killed |= found


def outlive(host: int, orders: int, token: str) -> None:
    """Wait until the host has ended, then kill every process that is marked by it; return at once when told to.

    Parameters
    ----------
    host
        A descriptor of the host's process (pidfd).
    orders
        The end of a pipe: a byte in it says that there is nothing left to kill.
    token
        What the tokens of the host's children begin with.
    """
    import select  # noqa: PLC0415  (for those who run it as a program)

    ready, _, _ = select.select([host, orders], [], [])
    if host not in ready:
        if os.read(orders, 1):
            return
        # Closed without a word: the host is about to end, or has lost the other end to somebody.
        select.select([host], [], [])
    kill_marked({token})


def _process_ids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []


def _kill_if_marked(pid: int, tokens: Collection[bytes]) -> None:
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Looked at again now that it is held: whoever has the number since has another descriptor.
        if _is_marked(pid, tokens):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(process)


def _is_marked(pid: int, tokens: Collection[bytes]) -> bool:
    environment = _environment(pid)
    if _ENTRY not in environment:
        return False
    for entry in environment.split(b"\0"):
        if entry.startswith(_ENTRY):
            held = entry[len(_ENTRY) :].split(_SEPARATOR)
            return any(each in tokens or each[:HOST_TOKEN_CHARS] in tokens for each in held)
    return False


def _environment(pid: int) -> bytes:
    deadline = time.monotonic() + _EXEC_S
    while not (environment := _read(f"/proc/{pid}/environ")):
        try:
            # The kernel's own have none, nor have zombies.
            os.readlink(f"/proc/{pid}/exe")
        except OSError:
            return b""
        if _read(f"/proc/{pid}/cmdline"):
            # It runs, and so it did not have one, or has it now.
            return _read(f"/proc/{pid}/environ")
        if time.monotonic() > deadline:
            return b""
        time.sleep(_EXEC_POLL_S)
    return environment


def _read(path: str) -> bytes:
    """Return the content of a process's file, nothing if the process has ended or is another user's."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    data = b""
    try:
        while len(data) < _READ_BYTES and (more := os.read(file, _READ_BYTES)):
            data += more
    except OSError:
        return b""
    finally:
        os.close(file)
    return data


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    outlive(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
