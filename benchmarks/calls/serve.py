"""The loopback server as a program: prints its port as a line of JSON, and ends with its standard input."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import Sequence

from benchmarks.calls.build import BuildError, build_loopback
from benchmarks.calls.replies import render

__all__ = ["main"]

_ATTEMPTS = 20
_PER_NETWORK = 250


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on ``127.0.0.1`` and, with ``--addresses``, on further addresses of the loopback network."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: one the system chooses")
    parser.add_argument("--addresses", type=int, default=1, help="how many addresses of 127.0.0.0/8 to listen on")
    parser.add_argument("--core", type=int, help="the processor core to run on")
    options = parser.parse_args(argv)
    try:
        build_loopback()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    from benchmarks.calls.loopback import Loopback  # noqa: PLC0415  (built just now)

    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.ExitStack() as stack:
        listeners = _listen(stack, options.port, options.addresses)
        print(json.dumps({"port": listeners[0].getsockname()[1]}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            Loopback(render).serve([each.fileno() for each in listeners], sys.stdin.fileno())
    return 0


def address(index: int) -> str:
    """Return the loopback address with this number, from 0."""
    high, low = divmod(index, _PER_NETWORK)
    return f"127.0.{high}.{low + 1}"


def _listen(stack: contextlib.ExitStack, port: int, addresses: int) -> list[socket.socket]:
    """Listen on the same port of all addresses."""
    for attempt in range(_ATTEMPTS):
        with contextlib.ExitStack() as mine:
            first = mine.enter_context(_listener(address(0), port))
            chosen = first.getsockname()[1]
            try:
                others = [mine.enter_context(_listener(address(index), chosen)) for index in range(1, addresses)]
            except OSError:
                # The port is in use on one of them.
                if port or attempt == _ATTEMPTS - 1:
                    raise
                continue
            stack.push(mine.pop_all())
            return [first, *others]
    raise AssertionError("unreachable")


def _listener(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), backlog=4096)
    # Accepted sockets inherit both.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


if __name__ == "__main__":
    sys.exit(main())
