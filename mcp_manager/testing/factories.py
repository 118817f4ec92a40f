"""What the fixtures of pytest hand to tests: functions that start faulty servers and proxies, and end them at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Literal, Unpack, overload

from mcp_manager.testing.fault_proxy import FaultProxy, ProxyFaultFields, ProxyFaults
from mcp_manager.testing.http_server import FaultyServer
from mcp_manager.testing.program_server import FaultyProgram
from mcp_manager.testing.tools import Era, Tool

__all__ = ["FaultProxyFactory", "FaultyServerFactory", "fault_proxies", "faulty_servers"]


class FaultyServerFactory:
    """Start faulty servers; they end with the test."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    @overload
    def __call__(
        self,
        era: Era = "handshake",
        tools: Mapping[str, Tool] | None = None,
        *,
        transport: Literal["http"] = "http",
        sse: bool = False,
        seed: int = 0,
        standing_stream: bool = False,
    ) -> FaultyServer: ...

    @overload
    def __call__(
        self,
        era: Era = "handshake",
        tools: Mapping[str, Tool] | None = None,
        *,
        transport: Literal["stdio"],
        seed: int = 0,
    ) -> FaultyProgram: ...

    def __call__(
        self,
        era: Era = "handshake",
        tools: Mapping[str, Tool] | None = None,
        *,
        transport: Literal["http", "stdio"] = "http",
        sse: bool = False,
        seed: int = 0,
        standing_stream: bool = False,
    ) -> FaultyServer | FaultyProgram:
        """Start a server.

        Parameters
        ----------
        era
            ``"handshake"`` (2025-11-25) or ``"stateless"`` (2026-07-28).
        tools
            Its tools by name. Default: ``echo``, which returns its argument ``text``.
        transport
            ``"http"``, or ``"stdio"`` for a program that the client starts: deploy its ``spec``.
        sse
            Reply with event streams instead of JSON.
        seed
            The seed of the delays of ``slow``.
        standing_stream
            Accept the ``GET`` by which a client listens for messages that belong to no request; see
            :meth:`FaultyServer.notify`.
        """
        if transport not in ("http", "stdio"):
            raise ValueError(f'transport is "http" or "stdio", not {transport!r}; sse=True replies with event streams')
        if transport == "stdio":
            return self._stack.enter_context(FaultyProgram(era, tools, seed=seed))
        return self._stack.enter_context(FaultyServer(era, tools, sse=sse, seed=seed, standing_stream=standing_stream))


class FaultProxyFactory:
    """Start fault proxies; they end with the test."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def __call__(self, target: str, *, seed: int = 0, **faults: Unpack[ProxyFaultFields]) -> FaultProxy:
        """Start a proxy in front of a server.

        Parameters
        ----------
        target
            The URL of the server.
        seed
            The seed of the jitter.
        faults
            The faults at the start; see :class:`~mcp_manager.testing.ProxyFaults`.
        """
        return self._stack.enter_context(FaultProxy(target, ProxyFaults(**faults), seed=seed))


@contextlib.contextmanager
def faulty_servers() -> Iterator[FaultyServerFactory]:
    """Return a factory whose servers end with the context."""
    with contextlib.ExitStack() as stack:
        yield FaultyServerFactory(stack)


@contextlib.contextmanager
def fault_proxies() -> Iterator[FaultProxyFactory]:
    """Return a factory whose proxies end with the context."""
    with contextlib.ExitStack() as stack:
        yield FaultProxyFactory(stack)
