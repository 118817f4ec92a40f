"""What clients of the gateway use of their limits, and the audit lines of calls that were answered."""

from typing import Any, Self, final

from typing_extensions import disjoint_base

__pyx_capi__: dict[str, object]

@final
class Counter:
    """What one principal uses of one limit.

    Parameters
    ----------
    config
        The limit, a :class:`~mcp_manager.config.ClientLimitConfig`.
    workers
        How many processes serve the address: each admits its part, rounded up.
    """

    running: int
    """The requests of the principal under way."""
    streams: int
    """Its open streams."""

    def __new__(cls, config: Any, workers: int) -> Self: ...
    @property
    def config(self) -> Any:
        """The limit."""

    @property
    def most_running(self) -> int:
        """The most requests under way; 0 for any number."""

    @property
    def most_streams(self) -> int:
        """The most open streams; 0 for any number."""

@disjoint_base
class UseCounts:
    """What one principal uses at all endpoints."""

    running: int
    """The requests of the principal under way."""
    streams: int
    """Its open streams."""
    epoch: object
    """Another object as soon as other counters count its requests."""

    def __new__(cls, *args: Any) -> Self: ...
    def begin_request(
        self, counters: tuple[Counter, ...], most_running: int, now_ns: int
    ) -> tuple[Counter | None, int] | None:
        """Count a request, and return ``None``, if all of these limits admit it.

        Parameters
        ----------
        counters
            The limits that count it.
        most_running
            The most requests that the principal may have under way whatever they say; 0 for any number.
        now_ns
            The time of the monotonic clock.

        Returns
        -------
        Otherwise the counter that refuses it, ``None`` for ``most_running``; and the nanoseconds after which to try
        again, 0 if that depends on other requests.
        """

    def end_request(self, counters: tuple[Counter, ...]) -> None:
        """Take note that a request has ended."""

@final
class RouteUse:
    """The limits that count the calls of one route, and the middle of their audit lines.

    Parameters
    ----------
    sender
        The client, a :class:`~mcp_manager.gateway.security.accounting.Sender`.
    account
        What its principal uses.
    counters, most_running
        The limits, as :meth:`UseCounts.begin_request` has them.
    limits_epoch, audit
        It holds as long as these are in force, and the account has the same ``epoch``.
    line
        The audit line of a call that was answered, from after its time to before its numbers; ``None`` if it differs
        from call to call.
    """

    def __new__(
        cls,
        sender: Any,
        account: UseCounts,
        counters: tuple[Counter, ...],
        most_running: int,
        limits_epoch: object,
        audit: Any,
        line: bytes | None,
    ) -> Self: ...
    @property
    def sender(self) -> Any:
        """The client."""

    @property
    def account(self) -> Any:
        """What its principal uses: the account that was given."""

    @property
    def counters(self) -> tuple[Counter, ...]:
        """The limits that count its calls."""

def take(counters: tuple[Counter, ...], now_ns: int) -> tuple[Counter, int] | None:
    """Count a request in all of these limits, and return ``None``; or return what refuses it, as ``begin_request``."""

def answered_line(at_ns: int, line: bytes, duration_ns: int, size_in: int, size_out: int) -> bytes:
    """Return the audit line of a call that was answered.

    Parameters
    ----------
    at_ns
        When it came, in nanoseconds since the epoch.
    line
        What is between its time and its numbers: members of JSON, each after a comma.
    duration_ns
        Nanoseconds from the request to the reply.
    size_in, size_out
        The bytes of the message and of the reply.
    """
