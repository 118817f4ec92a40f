"""Exchanges: one request as bytes, with all that the server sends for it, for one caller."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from mcp_manager._core.forward_path import ForwardedCall
from mcp_manager._core.jsonrpc import FrameError, Message, scan
from mcp_manager.auth.caller import Caller
from mcp_manager.calls.begun_exchange import BegunExchange, Receiver, finished, for_caller
from mcp_manager.calls.call import ANYWHERE, Call, Where
from mcp_manager.calls.exchange_listener import ExchangeListener, OnMessage
from mcp_manager.calls.for_caller import CallsForCallers, check_caller, where_for
from mcp_manager.calls.peer import Peer, peer_of
from mcp_manager.config import arguments
from mcp_manager.errors import InvalidRequestError
from mcp_manager.protocol.handshake import ServerIdentity
from mcp_manager.protocol.methods import CALL_TOOL, is_notification
from mcp_manager.protocol.request import invalid_request, may_have_progress_token, replace_progress_token
from mcp_manager.protocol.revisions import Era
from mcp_manager.servers.caller_sessions import Checkout
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.session import Session, SessionTemplate
from mcp_manager.transports.base import Request, Sendable

__all__ = ["Exchanges"]

_CLOCK: Final = time.monotonic_ns


class Exchanges(CallsForCallers):
    """Provide :meth:`exchange`; subclasses provide the parts that it goes through."""

    async def exchange(
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
        self._check_running()
        try:
            message = request if isinstance(request, Message) else scan(request)
        except FrameError as error:
            raise invalid_request(error) from None
        except TypeError:
            raise arguments.wrong_call(server_id, request) from None
        if message.method is None:
            raise invalid_request(None)
        if on_message is not None and not callable(on_message):
            raise InvalidRequestError(
                f"Invalid request: on_message must be a function, not {arguments.shown(on_message)}"
            )
        call, template = self._call_for(caller, server_id, message, timeout, key)
        if message.id_raw is None and is_notification(message.method):
            await self._dispatcher.notify(call)
            return b"null"
        call.request, tokens = self._with_own_token(message, on_message)
        listener = ExchangeListener(on_message, template, tokens)
        listener.takes_every_result = not answers_input
        listener.stands_still = timeout is None
        call.listener = listener
        exchanging = self._dispatcher.exchange(call)
        if caller is not None:
            exchanging = for_caller(caller, exchanging)
        return await finished(exchanging, call, listener, message.id_raw)

    def _begin_exchange(
        self, server_id: str, message: Message, receiver: Receiver, caller: Caller | None = None
    ) -> BegunExchange | None:
        """Begin an :meth:`exchange` without a task: the request is sent before this returns, if a connection is idle.

        Parameters
        ----------
        server_id, message, caller
            As for :meth:`exchange`.
        receiver
            Takes the messages of the server.

        Returns
        -------
        The exchange; ``None`` if nothing was done, because only :meth:`exchange` can make it.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """
        self._check_running()
        if message.method is None or message.id_raw is None:
            return None
        params = message.params
        if params is not None and may_have_progress_token(params):
            return None
        call, template = self._call_for(caller, server_id, message, None, None)
        listener = ExchangeListener(receiver.on_message, template, None, receiver.context)
        listener.takes_every_result = not receiver.answers_input
        call.listener = listener
        direct = self._dispatcher.begin(call)
        return None if direct is None else BegunExchange(self._dispatcher, call, direct, listener, message.id_raw)

    def _resume_exchange(self, sent: ForwardedCall, receiver: Receiver) -> BegunExchange:
        """Return the exchange of a call that the compiled forward path has sent; see :meth:`_begin_exchange`."""
        supervisor: Supervisor = sent.route.supervisor
        checkout: Checkout | None = sent.checkout
        call = Call(supervisor, CALL_TOOL, sent.request, sent.started_ns, sent.deadline_ns, checkout=checkout)
        template = supervisor.template
        if checkout is not None:
            template, call.caller, call.where = checkout.template, checkout.caller, where_for(checkout.caller, None)
        listener = ExchangeListener(receiver.on_message, template, None, receiver.context)
        listener.takes_every_result = not receiver.answers_input
        call.listener = listener
        direct = sent.direct
        if direct.exchange is not None:
            direct.exchange.listener = listener
        return BegunExchange(self._dispatcher, call, direct, listener, sent.id_raw)

    def peer(self, server_id: str) -> Peer | None:
        """Return what kind of server it is; ``None`` while none of its sessions was made, so that nobody knows.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """
        supervisor = self._supervisor_of(server_id)
        shares = supervisor.config.url is None
        for instance in supervisor.instances:
            session = instance.session
            if session is not None:
                return peer_of(is_stateless=session.is_stateless, shares_session=shares)
        template = supervisor.template
        known = template.knowledge.eras.recall(template.endpoint_key(0)) if supervisor.instances else None
        return None if known is None else peer_of(is_stateless=known[0] is Era.STATELESS, shares_session=shares)

    def _identity_of(self, server_id: str) -> ServerIdentity | None:
        """Return how a server introduced itself in one of its own sessions; ``None`` if it has none.

        Raises
        ------
        ServerNotFoundError
            No such server.
        """
        sessions = (instance.session for instance in self._supervisor_of(server_id).instances)
        return next((session.identity for session in sessions if session is not None), None)

    def _session_of(self, server_id: str, caller: Caller) -> Session | None:
        """Return a session that a server has for a caller; ``None`` if it has none."""
        own = self._supervisor_of(server_id).template
        return self._dispatcher.callers_of(server_id).session(own, caller)

    def _peer_of(self, server_id: str, caller: Caller) -> Peer | None:
        """Return what kind of server it is, as its session for a caller says; ``None`` if it has none."""
        session = self._session_of(server_id, caller)
        return None if session is None else peer_of(is_stateless=session.is_stateless, shares_session=False)

    def _call_for(
        self, caller: Caller | None, server_id: str, message: Message, timeout: float | None, key: str | None
    ) -> tuple[Call, SessionTemplate]:
        """Return the call of a request, and the template of the sessions that it is made on."""
        assert message.method is not None
        supervisor = self._supervisor_of(server_id)
        template = supervisor.template
        where = ANYWHERE
        if caller is not None:
            template = self._dispatcher.callers_of(server_id).template(template, check_caller(caller))
            where = where_for(caller, key)
        elif key is not None:
            where = Where(key=key)
        if key is not None:
            arguments.check_key(key)
        now_ns = _CLOCK()
        timeout_ns = supervisor.request_timeout_ns if timeout is None else arguments.timeout_in_ns(timeout)
        call = Call(supervisor, message.method, message, now_ns, now_ns + timeout_ns, where=where, caller=caller)
        return call, template

    def _with_own_token(
        self, message: Message, on_message: OnMessage | None
    ) -> tuple[Sendable, tuple[str, msgspec.Raw] | None]:
        """Return the request with a progress token that no other request has, and both tokens."""
        if on_message is None or message.params is None or message.method_raw is None:
            return message, None
        params = message.params
        if not may_have_progress_token(params):
            return message, None
        token = self._next_progress_token()
        replaced = replace_progress_token(params, token)
        if replaced is None:
            return message, None
        params, given = replaced
        return Request(message.method_raw, params), (token, given)
