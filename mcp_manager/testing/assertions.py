"""Assertions on calls that fail: that they end, that they recover, and what they say of the request."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from mcp_manager.errors import CallError, Delivery

__all__ = ["assert_delivery", "assert_no_hang", "assert_recovers"]

_Error = TypeVar("_Error", bound=BaseException)


@contextlib.asynccontextmanager
async def assert_no_hang(within: float) -> AsyncIterator[None]:
    """Assert that the body of ``async with`` ends within ``within`` seconds, with a result or an error.

    Raises
    ------
    AssertionError
        If it does not; what it awaits is cancelled.
    """
    timer = asyncio.timeout(within)
    try:
        async with timer:
            yield
    except TimeoutError as error:
        if timer.expired():
            raise AssertionError(f"it hangs: it has not ended within {within:g} s") from error
        raise


async def assert_recovers(
    call: Callable[[], Awaitable[object]], within: float, p: float = 1.0, *, calls: int = 10, pause: float = 0.02
) -> float:
    """Assert that a call works again: that of the latest ``calls`` calls a share of ``p`` succeeds, in time.

    Parameters
    ----------
    call
        Makes one call. An :class:`Exception` is a failure.
    within
        Seconds until it has to be so.
    p
        The share that has to succeed, from 0 to 1.
    calls
        How many calls in a row are looked at.
    pause
        Seconds between two calls.

    Returns
    -------
    The seconds that it took.

    Raises
    ------
    AssertionError
        If it is not so in time. The cause is the last error.
    """
    if not 0 < p <= 1 or calls < 1:
        raise ValueError(f"assert_recovers needs 0 < p <= 1 and calls of 1 at least, not p={p:g}, calls={calls}")
    begin_s = time.monotonic()
    latest: collections.deque[bool] = collections.deque(maxlen=calls)
    failure: Exception | None = None
    try:
        async with asyncio.timeout(within) as timer:
            while True:
                try:
                    await call()
                except Exception as error:
                    failure = error
                    latest.append(False)
                else:
                    latest.append(True)
                if len(latest) == calls and sum(latest) >= p * calls:
                    return time.monotonic() - begin_s
                await asyncio.sleep(pause)
    except TimeoutError:
        if not timer.expired():
            raise
    told = f"{sum(latest)} of the latest {len(latest)} calls succeeded" if latest else "the first call has not ended"
    raise AssertionError(
        f"it has not recovered within {within:g} s: {told}, and {failure!r} was the last error"
    ) from failure


def assert_delivery(error: BaseException, *deliveries: Delivery) -> None:
    """Assert what an error says of its request.

    Parameters
    ----------
    error
        What a call raised; with pytest, ``caught.value``.
    deliveries
        The values of which its ``delivery`` is one: ``"not_sent"``, ``"rejected"``, ``"unknown"`` or ``"answered"``.

    Raises
    ------
    AssertionError
        If it says something else, or is no :class:`~mcp_manager.CallError`.
    """
    if not deliveries:
        raise ValueError("assert_delivery needs a delivery: not_sent, rejected, unknown or answered")
    if not isinstance(error, CallError):
        raise AssertionError(f"{error!r} is no CallError, and says nothing of the request") from error
    if error.delivery not in deliveries:
        raise AssertionError(f"the delivery of {error!r} is {error.delivery}, not {' or '.join(deliveries)}") from error
