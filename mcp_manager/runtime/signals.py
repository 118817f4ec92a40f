"""A handler of a signal that leaves those before it in place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from mcp_manager.errors import ConfigError

__all__ = ["SignalHandler", "hangup_signal"]


class SignalHandler:
    """Call a function for every signal of a kind, and then the handler that was there before.

    It must be made on the main thread. ``loop.add_signal_handler`` would displace the handler of the application's
    own, and works only if the loop runs on the main thread.

    Parameters
    ----------
    number
        The signal.
    on_signal
        Called on the main thread, between any two of its steps: it may only note that the signal came.

    Raises
    ------
    ConfigError
        This is not the main thread.
    """

    def __init__(self, number: int, on_signal: Callable[[], object]) -> None:
        self._number = number
        self._on_signal: Callable[[], object] | None = on_signal
        try:
            self._before = signal.signal(number, self._handle)
        except ValueError:
            raise ConfigError(
                f"{signal.Signals(number).name} can be handled on the main thread only",
                hint="call this method on the main thread",
            ) from None

    def close(self) -> None:
        """Restore the handler from before; on another thread, that happens when the next signal comes. Idempotent."""
        self._on_signal = None
        is_main = threading.current_thread() is threading.main_thread()
        # Handlers that were set later stay.
        if is_main and signal.getsignal(self._number) == self._handle and self._before is not None:
            signal.signal(self._number, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._on_signal is not None:
            self._on_signal()
        elif signal.getsignal(number) == self._handle and self._before is not None:
            signal.signal(number, self._before)
            signal.raise_signal(number)
            return
        if callable(self._before):
            self._before(number, frame)


def hangup_signal() -> int:
    """Return the number of SIGHUP; raises :class:`ConfigError` on a system without it."""
    number: int | None = getattr(signal, "SIGHUP", None)
    if number is None:
        raise ConfigError("this system has no SIGHUP", hint="the file is read again when it changes")
    return number
