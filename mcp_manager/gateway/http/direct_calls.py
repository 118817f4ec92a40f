"""What compiled code learns, so that it forwards calls that repeat what is known: see :mod:`mcp_manager._core.forward_path`.

The general path takes the first call of a client for each tool. What it found out is taught here, and the compiled path
checks with each later call that it still holds. A call that turns out to be more than a request and its reply is given
back: the general path goes on with it.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

import msgspec

from mcp_manager._core.forward_path import ForwardedCall, ForwardPath
from mcp_manager._core.jsonrpc import Message
from mcp_manager._core.known_calls import ForwardRoute, KnownFields
from mcp_manager._core.serving import ServedRequest
from mcp_manager.gateway import failures
from mcp_manager.gateway.client import ANONYMOUS, Client
from mcp_manager.gateway.endpoints.merged import MergedEndpoint
from mcp_manager.gateway.forwarding import Forwarding
from mcp_manager.gateway.http.counted_calls import CountedCalls
from mcp_manager.gateway.http.posts import PostChannel
from mcp_manager.gateway.http.reception import Reception
from mcp_manager.gateway.security.accounting import Usage
from mcp_manager.gateway.security.limits import LimitReachedError
from mcp_manager.gateway.security.pins import Pins
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.sent_requests import SentRequest, failed
from mcp_manager.manager import McpManager
from mcp_manager.protocol.methods import CALL_TOOL
from mcp_manager.protocol.revisions import Era
from mcp_manager.runtime.background import bare_context

__all__ = ["DirectCalls"]

_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])

_FOR_EVER: Final = 1 << 62
# How long credentials are believed before they are looked at again.
_BELIEVED_S: Final = 1.0
_BEARER: Final = b"bearer "
_HANDSHAKE: Final = "handshake"
_STATELESS: Final = "stateless"


class DirectCalls:
    """Forward calls in compiled code.

    Parameters
    ----------
    reception
        Takes what cannot be forwarded so.
    manager
        The fleet.
    forwarding
        Decides which session a request is sent on.
    pins
        While they block, no route is known for long.

    Attributes
    ----------
    path
        Takes the POSTs of all connections.
    """

    def __init__(self, reception: Reception, manager: McpManager, forwarding: Forwarding, pins: Pins) -> None:
        handshake, stateless = reception.eras.handshake, reception.eras.stateless
        self._reception = reception
        self._forwarding = forwarding
        self._pins = pins
        self._counted_calls = CountedCalls(reception.security.accounting, self._refuse)
        owners: dict[str, Any] = {
            "servers": manager._servers,
            "paths": reception.endpoints.by_path,
            "granted_paths": reception.endpoints.by_path_and_grant,
            "security": reception.security,
            "accounting": reception.security.accounting,
            "limits": reception.security.accounting.limits,
            "ended": handshake.ids.ended,
            "running": handshake.sessions.calls.running,
            "counts": reception.traffic.requests,
            "count": reception.traffic.count,
            "names": stateless.names,
            "parameters": stateless.parameters.known,
            "keep_alives": reception.keep_alives,
            "quiet": reception.keep_alives.waiting,
            "sent_requests": reception.sent,
            "waiting": reception.sent.waiting,
        }
        self.path: ForwardPath = ForwardPath(
            manager._dispatcher.path,
            time.monotonic_ns,
            take=reception.take,
            counted_calls=self._counted_calls,
            go_on=self._go_on,
            failed=self._failed,
            adapt=self._adapted,
            context=bare_context(),
            owners=owners,
        )
        reception.learner = self

    def learn(self, channel: PostChannel, message: Message, principal: Principal, request: SentRequest) -> None:
        """Take note how a call was sent, if later ones may go the same way."""
        incoming = channel.incoming
        if message.method != CALL_TOOL or not isinstance(incoming, ServedRequest) or not channel.accepted.json:
            return
        if self._pins.blocks:
            return
        passing = self._reception.passing
        if passing is not None and not passing.stays(incoming):
            return
        exchange, route, endpoint = request.exchange, request.route, request.endpoint
        routing = getattr(endpoint, "routing", None)
        is_stateless, is_client_stateless = exchange.is_stateless, request.client.era is Era.STATELESS
        if exchange.future is None or is_stateless is None or routing is None:
            return
        if is_stateless and not is_client_stateless:
            return
        fields = self._fields(incoming, channel, principal, request)
        if fields is None:
            return
        stateless = self._reception.eras.stateless
        client, supervisor = request.client, exchange.supervisor
        check_out = None
        if exchange.has_own_session:
            check_out = partial(self._forwarding.check_out, route.server_id, client, supervisor)
        forward = ForwardRoute(
            route.server_id,
            request.name,
            supervisor,
            route.adapt,
            routing,
            adapts_few=isinstance(endpoint, MergedEndpoint),
            minds_tasks=check_out is None and not is_stateless and self._forwarding.minds_tasks(client),
            is_stateless=is_stateless,
            check_out=check_out,
        )
        meta = stateless.meta_for_handshake(message) if is_client_stateless else None
        if _differ_in_name_and_meta_alone(message, exchange.request):
            self.path.learn(fields, message, client, meta, forward, exchange.request)

    def _fields(
        self, incoming: ServedRequest, channel: PostChannel, principal: Principal, request: SentRequest
    ) -> KnownFields | None:
        """Return what is known of the fields of a request, valid from now on; ``None`` if it cannot be used again."""
        client, endpoint = request.client, request.endpoint
        until_ns = _FOR_EVER
        if principal.credential is not None or principal.name != ANONYMOUS:
            field = incoming.header(b"authorization")
            if field is None or not field.lower().startswith(_BEARER):
                # Another field may say who it is.
                return None
            # The clock of credentials is another one than that of the path.
            left_ns = int(min(principal.expires_at - time.time(), _BELIEVED_S) * 1e9)
            until_ns = time.monotonic_ns() + left_ns
        if client.era is Era.HANDSHAKE:
            until_ns = min(until_ns, self._reception.eras.handshake.ids.valid_until_ns(_session_id(incoming)))
        known = self.path.known_fields(incoming)
        if known is None or known.endpoint is not endpoint or known.principal is not principal:
            era = _STATELESS if client.era is Era.STATELESS else _HANDSHAKE
            known = KnownFields(incoming, endpoint, channel.accepted, channel.fields, era, principal)
            self.path.learn_fields(incoming, known)
        known.believe(until_ns, self._reception.security.epoch)
        return known

    # Calls that are given back

    def _channel(self, call: ForwardedCall) -> PostChannel:
        fields, reception = call.known.fields, self._reception
        count = partial(reception.traffic.count, fields.endpoint.name, fields.era)
        channel = PostChannel(call.incoming, fields.accepted, reception.keep_alives, count, fields.fields)
        channel.usage = self._counted_calls.usage_of(call)
        return channel

    def _refuse(self, call: ForwardedCall, usage: Usage, refusal: LimitReachedError) -> None:
        channel = self._channel(call)
        channel.usage = usage
        channel.finish(failures.as_response(call.id_raw, refusal))

    def _go_on(self, call: ForwardedCall) -> Any:
        channel = self._channel(call)
        self._reception.keep_alives.wait_for(channel)
        channel.waits_since = call.waits_since
        client: Client = call.known.client
        eras = self._reception.eras
        era = eras.stateless if client.era is Era.STATELESS else eras.handshake
        context = bare_context()
        request = era.resume(call, channel, context)
        return self._reception.sent.add(request, context, partial(self._reception.go_on, channel, call.id_raw))

    def _failed(self, call: ForwardedCall, error: Exception) -> None:
        self._reception.go_on(self._channel(call), call.id_raw, failed(error))

    def _adapted(self, call: ForwardedCall, adapt: Any, response: bytes) -> bytes:
        client: Client = call.known.client
        eras = self._reception.eras
        era = eras.stateless if client.era is Era.STATELESS else eras.handshake
        return era.adapted(call, adapt, response)


def _session_id(incoming: ServedRequest) -> str:
    return (incoming.header(b"mcp-session-id") or b"").decode("latin-1")


def _differ_in_name_and_meta_alone(message: Message, sent: Message | Any) -> bool:
    """Tell whether a server gets the params of a call as the client wrote them, but for ``name`` and ``_meta``."""
    try:
        mine, its = (_members_decoder.decode(each.params or b"{}") for each in (message, sent))
    except (msgspec.DecodeError, RecursionError):
        return False
    for each in mine, its:
        each.pop("name", None)
        each.pop("_meta", None)
    return mine.keys() == its.keys() and all(bytes(value) == bytes(its[name]) for name, value in mine.items())
