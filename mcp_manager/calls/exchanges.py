"""Exchanges: one request as bytes, with all that the server sends for it, for one caller."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import Final

import msgspec

from mcp_manager._core.jsonrpc import FrameError, Message, scan
from mcp_manager.auth.caller import Caller, calling
from mcp_manager.calls.call import ANYWHERE, Call, Where
from mcp_manager.calls.exchange_listener import ExchangeListener, OnMessage
from mcp_manager.calls.for_caller import CallsForCallers
from mcp_manager.config import arguments
from mcp_manager.errors import InvalidRequestError
from mcp_manager.protocol.methods import is_notification
from mcp_manager.protocol.request import invalid_request, may_have_progress_token, replace_progress_token
from mcp_manager.session import SessionTemplate
from mcp_manager.transports.base import Request, Sendable

__all__ = ["Exchanges"]

_CLOCK: Final = time.monotonic_ns


class Exchanges(CallsForCallers):
    """Provide :meth:`exchange`; subclasses provide the parts that it goes through."""

    async def exchange(
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
        self._check_running()
        try:
            message = scan(request)
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
        dropped = partial(template.knowledge.faults.count, "too many notifications at once")
        listener = ExchangeListener(on_message, template.containment, dropped, tokens)
        listener.takes_every_result = not answers_input
        call.listener = listener
        with calling(caller) if caller is not None else nullcontext():
            try:
                reply = await self._dispatcher.exchange(call)
                await listener.finish(call.deadline_ns)
            finally:
                if listener.end():
                    await listener.aclose()
        return reply.take_frame(message.id_raw)

    def _call_for(
        self, caller: Caller | None, server_id: str, message: Message, timeout: float | None, key: str | None
    ) -> tuple[Call, SessionTemplate]:
        """Return the call of a request, and the template of the sessions that it is made on."""
        assert message.method is not None
        if caller is not None:
            bound = self.for_caller(caller)
            return bound._call(server_id, message.method, message, timeout, key), bound._template(
                self._supervisor_of(server_id)
            )
        supervisor = self._supervisor_of(server_id)
        arguments.check_key(key)
        now_ns = _CLOCK()
        timeout_ns = supervisor.request_timeout_ns if timeout is None else arguments.timeout_in_ns(timeout)
        where = ANYWHERE if key is None else Where(key=key)
        call = Call(supervisor, message.method, message, now_ns, now_ns + timeout_ns, where=where)
        return call, supervisor.template

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
