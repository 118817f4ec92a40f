"""A server on the loopback interface that costs less per call than any client: epoll, no GIL, replies made before."""

from collections.abc import Callable, Iterable
from typing import final

from benchmarks.calls.replies import Endpoint

@final
class Loopback:
    """Answer MCP requests over HTTP/1.1 (RFC 9112), kept alive and pipelined, with replies prepared per path.

    A request gets the prepared answer to its method with its own id, a message without id or method 202, GET 405 (but
    ``GET /usage`` a JSON object with ``cpu_us`` of this process, ``requests`` and ``connections`` so far), DELETE 200,
    an unknown path 404. Whatever is no such request, a chunked one included, gets 400 and its connection is closed.

    Parameters
    ----------
    render
        Makes the replies of a path when it is first asked for, or returns ``None``. They are kept for good, for at most
        256 paths; the first of an endpoint's answers is the one to unknown methods.
    """

    def __new__(cls, render: Callable[[bytes], Endpoint | None]) -> Loopback: ...
    def serve(self, listeners: Iterable[int], control: int) -> None:
        """Serve until the control descriptor ends; once in an object's life.

        Parameters
        ----------
        listeners
            Descriptors of listening sockets that do not block.
        control
            A descriptor whose end, such as that of standard input, ends the server; what comes from it is ignored.

        Raises
        ------
        OSError
            Waiting or accepting failed.
        """
