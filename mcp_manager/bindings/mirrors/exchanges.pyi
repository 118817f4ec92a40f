# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta

from mcp_manager.auth.caller import Caller
from mcp_manager.bindings.mirrors.for_caller import CallsForCallersMirror
from mcp_manager.calls.exchange_listener import OnMessage

class ExchangesMirror(CallsForCallersMirror, metaclass=ABCMeta):
    """The public methods of :class:`Exchanges`, for callers on any thread and loop."""

    def exchange(
        self,
        server_id: str,
        request: bytes,
        *,
        caller: Caller | None = None,
        on_message: OnMessage | None = None,
        answers_input: bool = False,
        timeout: float | None = None,
        key: str | None = None,
    ) -> bytes:
        """Send one JSON-RPC request as bytes, and return the whole response: the seam for gateways and proxies.

        It differs from :meth:`execute_raw` in what belongs to the request besides its reply. Progress, log messages and
        requests of the server that belong to it go to ``on_message`` and to nobody else. A result that asks for input,
        or that announces a task, is returned as it came, unless ``answers_input`` is set.

        A message belongs to the request if it carries its progress token, or comes on its response stream. Programs and
        servers of HTTP+SSE have one channel for all requests: there, a message belongs to the only request
        under way that can cause it, and to none if there are several. Then the handlers of the manager take it.

        Parameters
        ----------
        server_id
            The id of the server.
        request
            ``{"method": …, "params": …?}``, as for :meth:`execute_raw`. The server gets another progress token in place
            of the one in ``_meta``; reports that are handed over have the caller's.
        caller
            Whom the request is made for; ``None``: the manager itself. See :meth:`for_caller`.
        on_message
            Called on the manager's loop, in the context of the exchange, for each message of the server; see
            :data:`OnMessage`. Notifications come in order. A request may be answered until the exchange ends.
        answers_input
            Whether ``on_message`` also gives the input that a result of 2026-07-28 asks for, one call for each
            question; the request is then sent again with the answers, and a task is followed, until there is a result.
        timeout
            Seconds for the whole exchange; ``request_timeout_s`` of the server by default.
        key
            Calls with the same key stay together, as ``balancing`` of the server's configuration says.

        Returns
        -------
        The response, with the ``id`` of the request if it has one; ``null`` for a notification.

        Raises
        ------
        InvalidRequestError
            It is not a JSON-RPC request, or the caller cannot be served; nothing was sent.
        ServerNotFoundError
            No such server.
        CallError
            There was no answer; ``delivery`` says whether the request may have been executed.
        """

    async def exchange_async(
        self,
        server_id: str,
        request: bytes,
        *,
        caller: Caller | None = None,
        on_message: OnMessage | None = None,
        answers_input: bool = False,
        timeout: float | None = None,
        key: str | None = None,
    ) -> bytes:
        """Send one JSON-RPC request as bytes, and return the whole response: the seam for gateways and proxies; see :meth:`exchange`."""
