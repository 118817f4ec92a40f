"""The end of systemd: the socket that services send their notifications to (sd_notify(3))."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Final

__all__ = ["SystemdSocket"]

_WAIT_S: Final = 30.0


class SystemdSocket:
    """What a service tells systemd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_WAIT_S)
        self._socket.bind(str(path))

    def next(self, *, but: str = "WATCHDOG=1") -> list[str]:
        """The lines of the next notification that does not begin with ``but``."""
        while True:
            lines = self._socket.recv(65536).decode().splitlines()
            self.told.append(lines[0])
            if lines[0] != but:
                return lines

    def is_silent(self) -> bool:
        """Whether nothing waits here."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.told.append(self._socket.recv(65536).decode())
            return False
        self._socket.settimeout(_WAIT_S)
        return True

    def close(self) -> None:
        self._socket.close()
