"""The interface of the measured clients: connect, call, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from benchmarks.calls.cases import Expected

__all__ = ["ARGUMENTS", "AwaitedClient", "BenchClient", "BlockingClient", "WrongReplyError"]

ARGUMENTS: Final = {"text": "x"}


class WrongReplyError(Exception):
    """The answer was not the expected one."""


class BenchClient(ABC):
    """A client whose calls share one session."""

    name: ClassVar[str]
    warm_up: ClassVar[int] = 0
    """The fewest calls that a round makes before it is measured."""

    @abstractmethod
    async def connect(self, url: str, expected: Expected) -> None:
        """Open a session with an endpoint, and check its replies against ``expected``."""

    @abstractmethod
    async def aclose(self) -> None:
        """End the session."""


class AwaitedClient(BenchClient):
    """A client whose calls are awaited."""

    @abstractmethod
    async def call(self) -> None:
        """Call the tool once; raises :class:`WrongReplyError` unless the reply is the expected one."""


class BlockingClient(BenchClient):
    """A client whose calls block their thread."""

    @abstractmethod
    def call(self) -> None:
        """Call the tool once; raises :class:`WrongReplyError` unless the reply is the expected one."""
