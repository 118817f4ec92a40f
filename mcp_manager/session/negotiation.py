"""The negotiation of era and revision at the start of a session (2026-07-28, basic/versioning)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.jsonrpc import ERROR, Message, notification_frame
from mcp_manager.errors import AuthError, CallError, ConnectError, ProtocolError, ServerExitedError
from mcp_manager.protocol.discover import (
    Handshake,
    NoSharedRevision,
    Stateless,
    TryRevision,
    Verdict,
)
from mcp_manager.protocol.error_codes import INVALID_PARAMS, STATELESS_ERRORS, UNSUPPORTED_VERSION
from mcp_manager.protocol.handshake import (
    HandshakeError,
    ServerIdentity,
    initialize_params,
    read_initialize_result,
)
from mcp_manager.protocol.revisions import (
    HANDSHAKE_REVISIONS,
    LATEST_HANDSHAKE_REVISION,
    LATEST_STATELESS_REVISION,
    STATELESS_REVISIONS,
    Era,
    newest_shared,
)
from mcp_manager.protocol.rpc_error import error_text, read_error
from mcp_manager.protocol.session_loss import confirms_loss
from mcp_manager.runtime.background import background_task, read_failure, to_its_end
from mcp_manager.session.era_probe import is_inconclusive, probe_era
from mcp_manager.session.loss_detection import ping, refusal_of
from mcp_manager.session.template import SessionTemplate
from mcp_manager.transports.base import Exchange, Request, Transport

__all__ = ["Negotiated", "Negotiation", "farewell_s"]

_INITIALIZE_RAW: Final = b'"initialize"'
_INITIALIZED_RAW: Final = b'"notifications/initialized"'
# 2026-07-28, stdio: a server that does not answer the probe needs a handshake, unless it is still starting. So the
# handshake begins after this share of the connect timeout, and a late answer to the probe still counts.
_PROBE_SHARE: Final = 0.6
_PROBE_LONGEST_S: Final = 10.0
# 2025-11-25, session management: clients SHOULD delete a session that they no longer need.
_FAREWELL_S: Final = 0.5


class Negotiated(msgspec.Struct, frozen=True):
    """The outcome of a negotiation: an open transport, the era and revision, and what the server says about itself."""

    transport: Transport
    era: Era
    revision: str
    identity: ServerIdentity | None


class Negotiation:
    """Find out which era and revision a server speaks, and complete the handshake if there is one.

    An endpoint is probed once. The result is kept and reused until it no longer fits.

    Parameters
    ----------
    template
        The template of the server's sessions: it knows the configuration, and what is known about the eras.
    endpoint
        The key under which the era of this endpoint is kept; "" for a program.
    make_transport
        Makes the configured transport or, given ``True``, HTTP+SSE for the same endpoint.
    ids
        Numbers the session's requests.
    """

    def __init__(
        self, template: SessionTemplate, endpoint: str, make_transport: Callable[[bool], Transport], ids: RequestIds
    ) -> None:
        config, knowledge = template.config, template.knowledge
        self._server_id = template.server_id
        self._client = template.host.identity
        # The stateless era has no HTTP+SSE, so a probe would only be refused.
        is_older = config.transport == "sse" and config.protocol_version == "auto"
        self._wanted = "handshake" if is_older else config.protocol_version
        self._eras = knowledge.eras
        self._endpoint = endpoint
        self._make_transport = make_transport
        self._ids = ids
        self._faults = knowledge.faults
        self._can_fall_back = config.transport == "http"
        self._probe_s = min(_PROBE_LONGEST_S, config.connect_timeout_s * _PROBE_SHARE)
        self._transport: Transport | None = None
        # Whether a successful handshake proves the era. It does not if the server failed on the probe.
        self._is_verdict = True
        # Whether the server answered ``initialize``, but not the probe before it.
        self._was_silent = False

    async def run(self) -> Negotiated:
        """Open a transport and negotiate; after a failure the transport is closed.

        Raises
        ------
        CallError
            The server cannot be reached, refuses the client, or gives invalid answers.
        """
        try:
            return await self._run()
        except BaseException:
            await self._close()
            raise

    async def _run(self) -> Negotiated:
        if self._wanted == "handshake" or self._wanted in HANDSHAKE_REVISIONS:
            offer = self._wanted if self._wanted in HANDSHAKE_REVISIONS else None
            return await self._handshake(await self._open(), offer)
        known = self._eras.recall(self._endpoint)
        if known is None and not self._endpoint:
            # Instances of a program do not wait for each other's probe: a program may take long to answer.
            return await self._probe_and_settle()
        if known is None:
            lock = self._eras.probe_lock(self._endpoint)
            is_first = await self._acquire(lock)
            try:
                # Another session may have probed the endpoint while this one waited.
                known = self._eras.recall(self._endpoint)
                if known is None:
                    return await self._probe_and_settle()
            finally:
                if is_first:
                    lock.release()
        era, is_sse = known
        if era is Era.STATELESS:
            return await self._reuse_verdict()
        try:
            return await self._handshake(await self._open(sse=is_sse), None, is_sse=is_sse)
        except ProtocolError as error:
            if is_inconclusive(error.http_status):
                raise
        # The server answers, but not as it used to.
        self._eras.forget(self._endpoint)
        await self._close()
        return await self._probe_and_settle()

    async def _acquire(self, lock: asyncio.Lock) -> bool:
        """Wait for the session that probes, but not for ever, because the probe may never be answered."""
        try:
            async with asyncio.timeout(self._probe_s):
                return await lock.acquire()
        except TimeoutError:
            return False

    async def _reuse_verdict(self) -> Negotiated:
        """Reuse the verdict of an earlier probe; a program is probed again, because every start may change it."""
        verdict = self._eras.verdict(self._endpoint)
        transport = await self._open()
        if verdict is None or not transport.has_request_streams:
            return await self._probe_and_settle(transport)
        return self._settle_stateless(transport, verdict)

    async def _probe_and_settle(self, transport: Transport | None = None) -> Negotiated:
        transport = transport or await self._open()
        if self._wanted != "auto":
            revision = self._wanted if self._wanted in STATELESS_REVISIONS else LATEST_STATELESS_REVISION
            return await self._stateless_only(transport, revision)
        try:
            if not transport.has_request_streams:
                return await self._probe_program(transport)
            verdict = await self._probe(transport)
        except ServerExitedError:
            # Some programs exit on a request before the handshake.
            await self._close()
            transport = await self._open()
            verdict = Handshake()
        if isinstance(verdict, Stateless):
            return self._settle_stateless(transport, verdict)
        return await self._handshake(transport, verdict.revision)

    async def _probe_program(self, transport: Transport) -> Negotiated:
        """Probe a program, and begin the handshake too if it does not answer in time.

        It may not know the probe, or may still be starting. If the probe shows a stateless server before ``initialize``
        is answered, that decides; otherwise the reply to ``initialize`` does.
        """
        probe = background_task(self._probe(transport), "probe the era")
        try:
            patience_s = 0.0 if self._eras.is_silent(self._endpoint) else self._probe_s
            await asyncio.wait({probe}, timeout=patience_s)
            if not probe.done():
                return await self._probe_and_initialize(transport, probe)
            verdict = probe.result()
        finally:
            await _cancel(probe)
        if isinstance(verdict, Stateless):
            return self._settle_stateless(transport, verdict)
        return await self._handshake(transport, verdict.revision)

    async def _probe_and_initialize(
        self, transport: Transport, probe: asyncio.Task[Stateless | Handshake]
    ) -> Negotiated:
        exchange = self._initialize(None)
        initializing = background_task(transport.exchange(exchange), "initialize a session")
        try:
            waiting: set[asyncio.Task[Any]] = {probe, initializing}
            while not initializing.done():
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if probe.done() and isinstance(verdict := probe.result(), Stateless):
                    return self._settle_stateless(transport, verdict)
            reply = initializing.result()
        finally:
            await _cancel(initializing)
        self._was_silent = not probe.done()
        if reply.kind == ERROR:
            return await self._refused(transport, reply.error or b"", exchange, is_sse=False, may_probe=True)
        return await self._initialized(transport, reply, is_sse=False)

    async def _stateless_only(self, transport: Transport, revision: str) -> Negotiated:
        verdict = await self._probe(transport, revision)
        if isinstance(verdict, Stateless) and (verdict.revision == revision or self._wanted == "stateless"):
            return self._settle_stateless(transport, verdict)
        raise ProtocolError(
            f"the server does not speak {revision}",
            server_id=self._server_id,
            delivery="rejected",
            hint="set protocol_version to auto",
        )

    async def _probe(self, transport: Transport, revision: str = LATEST_STATELESS_REVISION) -> Stateless | Handshake:
        """Probe the server; raises :class:`ProtocolError` if it shares no revision with this client."""
        verdict = await self._probe_twice(transport, revision)
        if isinstance(verdict, NoSharedRevision):
            raise ProtocolError(
                f"the server supports {', '.join(verdict.supported) or 'no revision'}; "
                f"this client supports {', '.join(sorted(STATELESS_REVISIONS | HANDSHAKE_REVISIONS))}",
                server_id=self._server_id,
                delivery="rejected",
            )
        assert not isinstance(verdict, TryRevision)
        if isinstance(verdict, Handshake) and verdict.malformed:
            self._faults.count("a malformed result of server/discover", verdict.malformed)
        return verdict

    async def _probe_twice(self, transport: Transport, revision: str) -> Verdict:
        try:
            return await probe_era(
                self._server_id, transport, self._client, self._ids, revision, secrets=self._faults.secrets
            )
        except ProtocolError as error:
            if error.http_status != 500:
                raise
        # A second probe tells a temporary failure from that of a server which fails on unknown methods.
        try:
            return await probe_era(
                self._server_id, transport, self._client, self._ids, revision, secrets=self._faults.secrets
            )
        except ProtocolError as error:
            if error.http_status != 500 or self._wanted != "auto":
                raise
            self._is_verdict = False
            return Handshake()

    def _settle_stateless(self, transport: Transport, verdict: Stateless) -> Negotiated:
        transport.settle(verdict.revision)
        self._eras.keep(self._endpoint, Era.STATELESS, verdict=verdict)
        return Negotiated(transport, Era.STATELESS, verdict.revision, verdict.identity)

    async def _handshake(
        self, transport: Transport, offer: str | None, *, is_sse: bool = False, may_probe: bool = True
    ) -> Negotiated:
        transport.settle(None)
        exchange = self._initialize(offer)
        try:
            reply = await transport.exchange(exchange)
        except ProtocolError as refusal:
            if is_sse or not self._may_be_sse(refusal.http_status):
                raise
            return await self._fall_back(refusal)
        if reply.kind == ERROR:
            return await self._refused(transport, reply.error or b"", exchange, is_sse=is_sse, may_probe=may_probe)
        return await self._initialized(transport, reply, is_sse=is_sse)

    async def _initialized(self, transport: Transport, reply: Message, *, is_sse: bool) -> Negotiated:
        try:
            identity = read_initialize_result(reply.result or b"null")
        except HandshakeError as error:
            raise ProtocolError(str(error), server_id=self._server_id, delivery="answered") from None
        if not self._may_speak(identity.protocol_version):
            raise ProtocolError(
                f"the server chose {identity.protocol_version}, but protocol_version allows only {self._wanted}",
                server_id=self._server_id,
                delivery="answered",
                hint="set protocol_version to auto",
            )
        transport.settle(identity.protocol_version)
        await self._announce(transport)
        if self._was_silent:
            self._eras.keep_silent(self._endpoint)
        elif self._is_verdict:
            self._eras.keep(self._endpoint, Era.HANDSHAKE, sse=is_sse)
        return Negotiated(transport, Era.HANDSHAKE, identity.protocol_version, identity)

    async def _announce(self, transport: Transport) -> None:
        """Send ``notifications/initialized``; a refusal fails the session only if a ping is refused as well.

        Many servers refuse the notification, although they accept the session.

        Raises
        ------
        ConnectError
            The server has already lost the session.
        CallError
            The notification could not be sent, or the credentials were refused.
        """
        try:
            await transport.notify(notification_frame(_INITIALIZED_RAW, None), 0)
        except CallError as error:
            if error.http_status is None or (isinstance(error, AuthError) and error.is_challenged):
                raise
            refusal = refusal_of(error)
            answer = None if refusal is None else await ping(transport, self._ids, self._probe_s)
            if refusal is not None and answer is not None and confirms_loss(answer, refusal, is_of_request=False):
                raise ConnectError(
                    f"the server lost the session right after the handshake (HTTP {error.http_status})",
                    server_id=self._server_id,
                    hint="servers behind one address must share sessions, or always serve the same clients",
                ) from None
            self._faults.count("a message without a reply was refused", f"HTTP {error.http_status}")

    async def _refused(
        self, transport: Transport, error: bytes, exchange: Exchange, *, is_sse: bool, may_probe: bool
    ) -> Negotiated:
        """Try what an error in reply to ``initialize`` suggests: another revision, a probe, or HTTP+SSE.

        Raises
        ------
        ProtocolError
            It suggests nothing.
        CallError
            What was tried failed.
        """
        refusal = ProtocolError(
            f"the server refused initialize: {error_text(error, self._faults.secrets)}",
            server_id=self._server_id,
            delivery="rejected",
        )
        refusal.http_status = exchange.status or None
        code = read_error(error).code
        if may_probe and code in (UNSUPPORTED_VERSION, INVALID_PARAMS):
            data = read_error(error).data
            named = newest_shared(data.get("supported"), Era.HANDSHAKE) if isinstance(data, dict) else None
            if named is not None and self._may_speak(named):
                # 2025-11-25, lifecycle, error handling: the error lists the supported revisions.
                return await self._handshake(transport, named, is_sse=is_sse, may_probe=False)
        try:
            if (
                may_probe
                and self._wanted == "auto"
                and not is_sse
                and (code == UNSUPPORTED_VERSION or self._was_silent)
            ):
                return await self._probe_after_refusal(transport, refusal)
            if code not in STATELESS_ERRORS and not is_sse and self._may_be_sse(exchange.status):
                return await self._fall_back(refusal)
            raise refusal
        finally:
            # Its traceback holds this frame.
            del refusal

    async def _probe_after_refusal(self, transport: Transport, refusal: ProtocolError) -> Negotiated:
        """Probe a server that refused the handshake: it may have been replaced, or slow to answer the first probe."""
        self._eras.forget(self._endpoint)
        transport.settle(None)
        try:
            # A program that has refused has started, so it answers soon if at all.
            async with asyncio.timeout(None if transport.has_request_streams else self._probe_s):
                verdict = await self._probe(transport)
        except TimeoutError as error:
            if isinstance(error, CallError):
                raise
            try:
                raise refusal from None
            finally:
                # Its traceback holds this frame.
                del refusal
        if not isinstance(verdict, Stateless):
            try:
                raise refusal
            finally:
                # Its traceback holds this frame.
                del refusal
        return self._settle_stateless(transport, verdict)

    def _may_speak(self, revision: str) -> bool:
        return self._wanted not in HANDSHAKE_REVISIONS or self._wanted == revision

    def _may_be_sse(self, http_status: int | None) -> bool:
        """Tell whether a server that refused ``initialize`` may be an HTTP+SSE server.

        See 2025-03-26, transports, backwards compatibility.
        """
        if not self._can_fall_back or not http_status:
            return False
        return 400 <= http_status < 500 and not is_inconclusive(http_status)

    async def _fall_back(self, refusal: ProtocolError) -> Negotiated:
        await self._close()
        try:
            transport = await self._open(sse=True)
            return await self._handshake(transport, None, is_sse=True)
        except CallError:
            # The failure of the configured transport says more.
            try:
                raise refusal from None
            finally:
                # Its traceback holds this frame.
                del refusal

    async def _open(self, *, sse: bool = False) -> Transport:
        self._transport = self._make_transport(sse)
        await self._transport.open()
        return self._transport

    async def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.interrupt()
            await to_its_end(transport.aclose(farewell_s(transport)))

    def _initialize(self, offer: str | None) -> Exchange:
        params = initialize_params(self._client, offer or LATEST_HANDSHAKE_REVISION)
        # No deadline here: the caller limits the whole negotiation.
        return Request(_INITIALIZE_RAW, params).exchange(self._ids.take(), 0)


def farewell_s(transport: Transport) -> float:
    """Return the grace in seconds for closing a session that failed to connect or was replaced.

    Over HTTP it covers the request that deletes the session, and is short because callers may wait. A program needs
    none.
    """
    return _FAREWELL_S if transport.has_request_streams else 0.0


async def _cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task, wait for its end, and drop its result or exception."""
    task.add_done_callback(read_failure)
    task.cancel()
    await asyncio.wait({task})
