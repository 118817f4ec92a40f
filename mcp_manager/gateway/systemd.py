"""``Systemd``: what a service tells the service manager that has started it (sd_notify(3))."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

__all__ = ["Systemd"]

_log = logging.getLogger(__name__)

_PER_WATCHDOG: Final = 2
_US: Final = 1_000_000


class Systemd:
    """Tell systemd that the service is ready, reads its configuration, ends, and that its event loop runs.

    It tells nothing if systemd has not started this process, or has not asked to be told (``Type=notify``).

    Parameters
    ----------
    environ
        The variables of the process: ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``. Default: those of this
        process.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "")
        interval_us = environ.get("WATCHDOG_USEC", "")
        is_for_this_process = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        is_watched = bool(self._address) and interval_us.isdigit() and is_for_this_process
        self._interval_s = int(interval_us) / _US / _PER_WATCHDOG if is_watched else 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._serves = False

    def ready(self, status: str) -> None:
        """Tell that the service serves, with a line about it; from now on, also that its event loop runs."""
        self._serves = True
        self._tell("READY=1", f"STATUS={status}")
        if self._timer is None and self._interval_s > 0:
            self._feed_watchdog()

    def reloading(self) -> None:
        """Tell that a service that is ready reads its configuration again; :meth:`reloaded` tells the end of that."""
        if self._serves:
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}")

    def reloaded(self, status: str) -> None:
        """Tell that the service serves with the configuration that it has read; not if it is about to end."""
        if self._serves:
            self.ready(status)

    def stopping(self) -> None:
        """Tell that the service ends; its event loop is still reported to run, until :meth:`close`."""
        self._serves = False
        self._tell("STOPPING=1")

    def close(self) -> None:
        """Report the event loop no longer. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._interval_s = 0.0

    def _feed_watchdog(self) -> None:
        # Twice as often as systemd expects it. A loop that is blocked reports nothing.
        self._tell("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._feed_watchdog)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                # An address that begins with @ is in the abstract namespace.
                is_abstract = self._address.startswith("@")
                channel.sendto("\n".join(lines).encode(), f"\0{self._address[1:]}" if is_abstract else self._address)
        except OSError as error:
            _log.warning("could not send %s to systemd: %s", lines[0], error)
