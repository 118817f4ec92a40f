"""A loopback server that costs less per call than any client: epoll, no GIL, replies prepared in advance."""

from collections.abc import Callable, Iterable
from typing import final

from benchmarks.calls.replies import Endpoint

@final
class Loopback:
    """Answer MCP requests over HTTP/1.1 (RFC 9112), with keep-alive and pipelining, by replies prepared per path.

    A request gets the prepared answer to its method, with its own id. A message without id or method gets 202, GET 405
    (but ``GET /usage`` a JSON object with the ``cpu_us`` of this process, ``requests`` and ``connections`` so far),
    DELETE 200, an unknown path 404. Anything else, a chunked request included, gets 400, and its connection is closed.

    Parameters
    ----------
    render
        Makes the replies of a path on its first request, or returns ``None``. They are kept, for at most 256 paths; the
        first answer of an endpoint is for unknown methods.
    """

    def __new__(cls, render: Callable[[bytes], Endpoint | None]) -> Loopback: ...
    def serve(self, listeners: Iterable[int], control: int) -> None:
        """Serve until the control descriptor ends; may be called only once.

        Parameters
        ----------
        listeners
            Descriptors of listening, non-blocking sockets.
        control
            A descriptor whose end, such as that of standard input, ends the server; its data is ignored.

        Raises
        ------
        OSError
            Waiting or accepting failed.
        """
