"""Which era a server belongs to: asked once, remembered, and asked again when it stops fitting (2026-07-28, basic/versioning)."""

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

_DISCOVER_RAW: Final = b'"server/discover"'
_INITIALIZE_RAW: Final = b'"initialize"'
_INITIALIZED_RAW: Final = b'"notifications/initialized"'
# A server may name a revision and refuse it again.
_MAX_QUESTIONS: Final = 3
# 2026-07-28, stdio: silence means a server of before, unless it is not up yet: so it is greeted, and may answer still.
_PROBE_SHARE: Final = 0.6
_PROBE_LONGEST_S: Final = 10.0
# 2025-11-25, session management: a session that is not needed any more SHOULD be deleted.
_FAREWELL_S: Final = 0.5
# Answers about the one who asks, or of the moment: they say nothing of the era.
_NO_VERDICT: Final = frozenset({401, 403, 408, 425, 429})


class Negotiated(msgspec.Struct, frozen=True):
    """What was settled with a server: the transport that carries it, and what the server told of itself."""

    transport: Transport
    era: Era
    revision: str
    identity: ServerIdentity | None


class Negotiation:
    """Settle with one server how it is spoken to.

    Parameters
    ----------
    template
        What the server's sessions are made from: what is known of its eras, and which one is wanted.
    place
        Under which name the era of this endpoint is kept.
    make_transport
        Makes the transport: that of the configuration, or, given ``True``, HTTP+SSE for the same endpoint.
    ids
        Numbers the session's requests.
    """

    def __init__(
        self, template: SessionTemplate, place: str, make_transport: Callable[[bool], Transport], ids: RequestIds
    ) -> None:
        config, knowledge = template.config, template.knowledge
        self._server_id = template.server_id
        self._client = template.host.identity
        # There is no HTTP+SSE in the stateless era, and asking for it would only be refused.
        is_older = config.transport == "sse" and config.protocol_version == "auto"
        self._wanted = "handshake" if is_older else config.protocol_version
        self._memory = knowledge.eras
        self._place = place
        self._make_transport = make_transport
        self._ids = ids
        self._faults = knowledge.faults
        self._can_fall_back = config.transport == "http"
        self._probe_s = min(_PROBE_LONGEST_S, config.connect_timeout_s * _PROBE_SHARE)
        self._transport: Transport | None = None
        # Whether a handshake that succeeds shows the era: not where the probe met a failure of the server.
        self._is_verdict = True
        self._was_silent = False

    async def run(self) -> Negotiated:
        """Open the transport and settle; on failure everything is closed.

        Raises
        ------
        CallError
            The server cannot be reached, refuses, or answers nonsense.
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
        known = self._memory.recall(self._place)
        if known is None and not self._place:
            # A program may take long to answer: its other instances start meanwhile.
            return await self._probe_and_settle()
        if known is None:
            lock = self._memory.asking(self._place)
            is_first = await self._is_granted(lock)
            try:
                # Another session of the server may have asked meanwhile.
                known = self._memory.recall(self._place)
                if known is None:
                    return await self._probe_and_settle()
            finally:
                if is_first:
                    lock.release()
        era, is_sse = known
        if era is Era.STATELESS:
            return await self._as_stateless()
        try:
            return await self._handshake(await self._open(sse=is_sse), None, is_sse=is_sse)
        except ProtocolError as error:
            if is_inconclusive(error.http_status):
                raise
        # It answers, but not as it used to.
        self._memory.forget(self._place)
        await self._close()
        return await self._probe_and_settle()

    async def _is_granted(self, lock: asyncio.Lock) -> bool:
        """Wait for another session that asks, but not for ever: what it asks may never be answered."""
        try:
            async with asyncio.timeout(self._probe_s):
                return await lock.acquire()
        except TimeoutError:
            return False

    async def _as_stateless(self) -> Negotiated:
        """Take up what another session was told. A program is another one with every start, and asked again."""
        verdict = self._memory.verdict(self._place)
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
                return await self._ask_and_greet(transport)
            verdict = await self._probe(transport)
        except ServerExitedError:
            # There are programs that do not survive a request before the handshake.
            await self._close()
            transport = await self._open()
            verdict = Handshake()
        if isinstance(verdict, Stateless):
            return self._settle_stateless(transport, verdict)
        return await self._handshake(transport, verdict.revision)

    async def _ask_and_greet(self, transport: Transport) -> Negotiated:
        """Ask a program, and greet it as well if it is silent: it may know no such question, or not be up yet.

        Whichever it answers settles how it is spoken to: the question, however late, says more than the greeting.
        """
        question = background_task(self._probe(transport), "ask for the era")
        try:
            patience_s = 0.0 if self._memory.is_silent(self._place) else self._probe_s
            await asyncio.wait({question}, timeout=patience_s)
            if not question.done():
                return await self._greet_meanwhile(transport, question)
            verdict = question.result()
        finally:
            await _end(question)
        if isinstance(verdict, Stateless):
            return self._settle_stateless(transport, verdict)
        return await self._handshake(transport, verdict.revision)

    async def _greet_meanwhile(self, transport: Transport, question: asyncio.Task[Stateless | Handshake]) -> Negotiated:
        exchange = self._initialize(None)
        greeting = background_task(transport.exchange(exchange), "greet a server")
        try:
            waiting: set[asyncio.Task[Any]] = {question, greeting}
            while not greeting.done():
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if question.done() and isinstance(verdict := question.result(), Stateless):
                    return self._settle_stateless(transport, verdict)
            reply = greeting.result()
        finally:
            await _end(greeting)
        self._was_silent = not question.done()
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
        """Ask, and turn whatever is no verdict into what its caller must hear."""
        verdict = await self._ask(transport, revision)
        if isinstance(verdict, NoSharedRevision):
            raise ProtocolError(
                f"the server speaks {', '.join(verdict.supported) or 'no revision'}, "
                f"known are {', '.join(sorted(STATELESS_REVISIONS | HANDSHAKE_REVISIONS))}",
                server_id=self._server_id,
                delivery="rejected",
            )
        assert not isinstance(verdict, TryRevision)
        if isinstance(verdict, Handshake) and verdict.malformed:
            self._faults.count("a malformed result of server/discover", verdict.malformed)
        return verdict

    async def _ask(self, transport: Transport, revision: str) -> Verdict:
        try:
            return await probe_era(
                self._server_id, transport, self._client, self._ids, revision, secrets=self._faults.secrets
            )
        except ProtocolError as error:
            if error.http_status != 500:
                raise
        # Once more: that of a moment passes, and that of a server which fails on what it does not know stays.
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
        self._memory.keep(self._place, Era.STATELESS, verdict=verdict)
        return Negotiated(transport, Era.STATELESS, verdict.revision, verdict.identity)

    async def _handshake(
        self, transport: Transport, offer: str | None, *, is_sse: bool = False, may_probe: bool = True
    ) -> Negotiated:
        transport.settle(None)
        exchange = self._initialize(offer)
        try:
            reply = await transport.exchange(exchange)
        except ProtocolError as refusal:
            if is_sse or not self._means_no_endpoint(refusal.http_status):
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
                f"the server settles on {identity.protocol_version}, and protocol_version is {self._wanted}",
                server_id=self._server_id,
                delivery="answered",
                hint="set protocol_version to auto",
            )
        transport.settle(identity.protocol_version)
        await self._announce(transport)
        if self._was_silent:
            self._memory.keep_silent(self._place)
        elif self._is_verdict:
            self._memory.keep(self._place, Era.HANDSHAKE, sse=is_sse)
        return Negotiated(transport, Era.HANDSHAKE, identity.protocol_version, identity)

    async def _announce(self, transport: Transport) -> None:
        """Send ``notifications/initialized``, which has no reply: many servers refuse it, and go on as if they had not.

        Raises
        ------
        ConnectError
            The server lost the session before it had begun.
        CallError
            It was not handed over, or the credentials were refused.
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
                    f"the server lost the session before it had begun (HTTP {error.http_status})",
                    server_id=self._server_id,
                    hint="servers behind one address must share their sessions, or each client must always reach the same one",
                ) from None
            self._faults.count("a message without a reply was refused", f"HTTP {error.http_status}")

    async def _refused(
        self, transport: Transport, error: bytes, exchange: Exchange, *, is_sse: bool, may_probe: bool
    ) -> Negotiated:
        """Go on from an error that answered ``initialize``, where it says how."""
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
                # 2025-11-25, lifecycle, error handling: it says which revisions it would take.
                return await self._handshake(transport, named, is_sse=is_sse, may_probe=False)
        try:
            if (
                may_probe
                and self._wanted == "auto"
                and not is_sse
                and (code == UNSUPPORTED_VERSION or self._was_silent)
            ):
                return await self._probe_after_refusal(transport, refusal)
            if code not in STATELESS_ERRORS and not is_sse and self._means_no_endpoint(exchange.status):
                return await self._fall_back(refusal)
            raise refusal
        finally:
            # Its traceback holds this frame.
            del refusal

    async def _probe_after_refusal(self, transport: Transport, refusal: ProtocolError) -> Negotiated:
        """Ask a server that knows no handshake: it has become another one since it was asked, or was slow to answer."""
        self._memory.forget(self._place)
        transport.settle(None)
        try:
            # It is up by now, as it has refused.
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

    def _means_no_endpoint(self, http_status: int | None) -> bool:
        """Tell whether what answered ``initialize`` may be an HTTP+SSE server (2025-03-26, transports, compatibility)."""
        if not self._can_fall_back or not http_status:
            return False
        return 400 <= http_status < 500 and http_status not in _NO_VERDICT

    async def _fall_back(self, refusal: ProtocolError) -> Negotiated:
        await self._close()
        try:
            transport = await self._open(sse=True)
            return await self._handshake(transport, None, is_sse=True)
        except CallError:
            # It was worth a try; what is wrong is what the configured transport met.
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
        # Whoever connects a session bounds it in time.
        return Request(_INITIALIZE_RAW, params).exchange(self._ids.take(), 0)


def farewell_s(transport: Transport) -> float:
    """Return the seconds that ending a session which was not to be may take: one that has an id is deleted.

    Whoever gave up connecting waits for it. A program has nothing to be told.
    """
    return _FAREWELL_S if transport.has_request_streams else 0.0


async def _end(task: asyncio.Task[Any]) -> None:
    """End a task of ours, whatever it has come to."""
    task.add_done_callback(read_failure)
    task.cancel()
    await asyncio.wait({task})
