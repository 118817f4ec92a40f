"""What every measured client offers: connect, call, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from benchmarks.calls.cases import Expected

__all__ = ["ARGUMENTS", "AwaitedClient", "BenchClient", "BlockingClient", "WrongReplyError"]

ARGUMENTS: Final = {"text": "x"}


class WrongReplyError(Exception):
    """An answer came, but not the one that was to come."""


class BenchClient(ABC):
    """A client and what all its calls share."""

    name: ClassVar[str]
    warm_up: ClassVar[int] = 0
    """How many calls a round makes, at least, before it is measured."""

    @abstractmethod
    async def connect(self, url: str, expected: Expected) -> None:
        """Open a session with an endpoint whose replies are to be as expected."""

    @abstractmethod
    async def aclose(self) -> None:
        """End it."""


class AwaitedClient(BenchClient):
    """A client whose calls are awaited."""

    @abstractmethod
    async def call(self) -> None:
        """Call the tool once; raises :class:`WrongReplyError` unless the right reply came."""


class BlockingClient(BenchClient):
    """A client whose calls block their thread."""

    @abstractmethod
    def call(self) -> None:
        """Call the tool once; raises :class:`WrongReplyError` unless the right reply came."""
