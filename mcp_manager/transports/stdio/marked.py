"""Finds and kills processes by a mark in their environment; run as a program, it does so when its host process dies.

It imports only modules that every interpreter has loaded anyway, because one process runs it beside every host with
children.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection

__all__ = ["HOST_TOKEN_CHARS", "MARK", "kill_marked"]

MARK = "MCP_MANAGER_CHILD"
"""The environment variable that all descendants of a child inherit; one that should outlive it drops it."""

HOST_TOKEN_CHARS = 12
"""The length of the prefix that the tokens of one host's children share."""

_SEPARATOR = b","
_ENTRY = f"{MARK}=".encode()
_READ_BYTES = 1024 * 1024
# A pass may miss a process that is started meanwhile, but only by a process that the pass did not find either.
_MAX_PASSES = 10
# During exec, a process shows neither environment nor arguments, for less than this. On a busy machine, that time may
# have passed with a single look; so there are always a few.
_EXEC_S = 0.01
_FEWEST_LOOKS = 10
_EXEC_POLL_S = 0.0001


def kill_marked(tokens: Collection[str]) -> None:
    """Kill every process whose initial environment has one of these tokens.

    This also finds processes that called ``setsid`` or were orphaned. It does not find a process that was started with
    a cleared environment. It does nothing without ``/proc`` or ``pidfd_open``: without a pidfd, a process id may belong
    to another process by the time it is signalled.

    Parameters
    ----------
    tokens
        Tokens of children, or token prefixes of hosts, which stand for all children of a host.
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
    """Wait until the host has ended, then kill every process with its mark; return at once when told to.

    Parameters
    ----------
    host
        A pidfd of the host.
    orders
        The read end of a pipe: a byte from it means that nothing is left to kill.
    token
        The prefix of the tokens of the host's children.
    """
    import select  # noqa: PLC0415  (needed only as a program)

    ready, _, _ = select.select([host, orders], [], [])
    if host not in ready:
        if os.read(orders, 1):
            return
        # The pipe was closed without a byte: the host is ending, or something else closed the write end.
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
        # Checked again now that the pidfd pins the process: the process id may have been reused before.
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
    looks = 0
    while not (environment := _read(f"/proc/{pid}/environ")):
        try:
            # Kernel threads and zombies have no exe.
            os.readlink(f"/proc/{pid}/exe")
        except OSError:
            return b""
        if _read(f"/proc/{pid}/cmdline"):
            # It runs, so its environment was empty, or is readable now.
            return _read(f"/proc/{pid}/environ")
        looks += 1
        if looks >= _FEWEST_LOOKS and time.monotonic() > deadline:
            return b""
        time.sleep(_EXEC_POLL_S)
    return environment


def _read(path: str) -> bytes:
    """Return the content of a file in /proc, b"" if the process has ended or belongs to another user."""
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
