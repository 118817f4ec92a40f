# Written by tests/support/mirror_stubs.py: do not edit.

from abc import ABCMeta

from mcp_manager._core.jsonrpc import Message
from mcp_manager.auth.caller import Caller
from mcp_manager.bindings.mirrors.for_caller import CallsForCallersMirror
from mcp_manager.calls.exchange_listener import OnMessage
from mcp_manager.calls.peer import Peer

class ExchangesMirror(CallsForCallersMirror, metaclass=ABCMeta):
    """The public methods of :class:`Exchanges`, for callers on any thread and loop."""

    def exchange(
        self,
        server_id: str,
        request: bytes | Message,
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
        under way that can cause it. If there are several, it goes to the latest of them if their ``on_message`` have
        the same ``party``, a string; otherwise it belongs to none, and the handlers of the manager take it.

        Parameters
        ----------
        server_id
            The id of the server.
        request
            ``{"method": …, "params": …?}``, as for :meth:`execute_raw`, or the same scanned by
            :func:`mcp_manager._core.jsonrpc.scan`. The server gets another progress token in place of the one in
            ``_meta``; reports that are handed over have the caller's.
        caller
            Whom the request is made for; ``None``: the manager itself. See :meth:`for_caller`.
        on_message
            Called on the manager's loop, in the context of the exchange, for each message of the server; see
            :data:`OnMessage`. Notifications come in order. A request may be answered until the exchange ends, and
            within ``handler_timeout_s``; what needs a capability that was not declared has to be refused.
        answers_input
            Whether ``on_message`` also gives the input that a result of 2026-07-28 asks for, one call for each
            question; the request is then sent again with the answers, and a task is followed, until there is a result.
            In the stateless era the request may say in ``_meta`` what the caller can do; then ``on_message`` has to
            refuse what it does not say.
        timeout
            Seconds for the whole exchange, answers included. ``None``: ``request_timeout_s`` of the server for what the
            server does. It stands still while ``on_message`` answers requests, of which each may take
            ``handler_timeout_s`` of the manager's configuration, and which are 32 at most.
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
        request: bytes | Message,
        *,
        caller: Caller | None = None,
        on_message: OnMessage | None = None,
        answers_input: bool = False,
        timeout: float | None = None,
        key: str | None = None,
    ) -> bytes:
        """Send one JSON-RPC request as bytes, and return the whole response: the seam for gateways and proxies; see :meth:`exchange`."""

    def peer(self, server_id: str) -> Peer | None:
        """Return what kind of server it is; ``None`` while none of its sessions was made, so that nobody knows.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """

    async def peer_async(self, server_id: str) -> Peer | None:
        """Return what kind of server it is; ``None`` while none of its sessions was made, so that nobody knows. See :meth:`peer`."""
