"""Event streams that are counted as long as they last."""

from __future__ import annotations

from collections.abc import Callable

from mcp_manager.gateway.channels import EventStream

__all__ = ["CountedStream"]


class CountedStream:
    """An event stream that is counted until it ends; see :class:`~mcp_manager.gateway.channels.EventStream`.

    Parameters
    ----------
    stream
        The stream.
    on_end
        Called once when it has ended or its client is gone.
    """

    __slots__ = ("_on_end", "_stream", "on_gone")

    def __init__(self, stream: EventStream, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end: Callable[[], None] | None = on_end
        self.on_gone: Callable[[], None] | None = None
        stream.on_gone = self._gone
        if not stream.is_open:
            self._ended()

    @property
    def is_open(self) -> bool:
        """Whether the client still reads."""
        return self._stream.is_open

    def send(self, events: bytes) -> None:
        """Send complete events."""
        self._stream.send(events)

    def end(self) -> None:
        """End the response. Idempotent."""
        self._stream.end()
        self._ended()

    def _gone(self) -> None:
        self._ended()
        called, self.on_gone = self.on_gone, None
        if called is not None:
            called()

    def _ended(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()
