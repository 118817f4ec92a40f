"""What clients of a served connection may use."""

from typing import Self, final

@final
class ServingLimits:
    """What clients may use.

    Parameters
    ----------
    max_body
        The longest body, in bytes; 413 beyond.
    max_queued
        With more bytes of an event stream than this waiting for a slow client, the next event cuts it off.
    max_connections
        How many connections may be open; further ones are closed at once.
    head_s, body_s
        How long a head, and then a body, may take; 408 beyond.
    idle_s
        How long a connection is kept without a request: this long at least, twice at most.
    write_s
        How long a client may read nothing of a response that waits for it.
    """

    def __new__(
        cls,
        *,
        max_body: int = 4_194_304,
        max_queued: int = 4_194_304,
        max_connections: int = 65_536,
        head_s: float = 10,
        body_s: float = 60,
        idle_s: float = 75,
        write_s: float = 30,
    ) -> Self: ...
    @property
    def max_body(self) -> int:
        """In bytes."""

    @property
    def max_queued(self) -> int:
        """In bytes."""

    @property
    def max_connections(self) -> int:
        """The most connections."""

    @property
    def head_ns(self) -> int:
        """In nanoseconds."""

    @property
    def body_ns(self) -> int:
        """In nanoseconds."""

    @property
    def idle_ns(self) -> int:
        """In nanoseconds."""

    @property
    def write_ns(self) -> int:
        """In nanoseconds."""
