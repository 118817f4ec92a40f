"""The question that settles which era of the protocol a server speaks: ``server/discover`` (2026-07-28, basic/versioning)."""

from __future__ import annotations

from typing import Final

from mcp_manager._core.call_path import RequestIds
from mcp_manager._core.jsonrpc import ERROR, Message
from mcp_manager.config.redaction import Secrets
from mcp_manager.errors import ProtocolError
from mcp_manager.protocol import methods
from mcp_manager.protocol.discover import Handshake, TryRevision, Verdict, read_discover_error, read_discover_result
from mcp_manager.protocol.envelope import Envelope
from mcp_manager.protocol.error_codes import STATELESS_ERRORS
from mcp_manager.protocol.handshake import ClientIdentity
from mcp_manager.protocol.revisions import LATEST_STATELESS_REVISION
from mcp_manager.protocol.rpc_error import error_text
from mcp_manager.transports.base import Request, Transport

__all__ = ["ask_era", "is_of_the_moment"]

_DISCOVER_RAW: Final = b'"server/discover"'
# A server may name a revision and refuse it again.
_MAX_QUESTIONS: Final = 3
# Answers about the one who asks, or of the moment: they say nothing of the era.
_NO_VERDICT: Final = frozenset({401, 403, 408, 425, 429})


async def ask_era(
    server_id: str,
    transport: Transport,
    client: ClientIdentity,
    ids: RequestIds,
    revision: str = LATEST_STATELESS_REVISION,
    deadline_ns: int = 0,
    secrets: Secrets | None = None,
) -> Verdict:
    """Ask a server by ``server/discover`` how it wants to be spoken to.

    Raises
    ------
    CallError
        No answer, or one that says nothing of the era: 401, 403, 408, 425, 429, 5xx and broken
        connections are no verdicts.
    """
    verdict: Verdict = TryRevision(revision)
    for _ in range(_MAX_QUESTIONS):
        assert isinstance(verdict, TryRevision)
        revision = verdict.revision
        transport.settle(revision)
        envelope = Envelope(client, revision)
        exchange = Request(_DISCOVER_RAW, envelope.params(None)).exchange(ids.take(), deadline_ns)
        if transport.has_request_streams:
            exchange.fields = envelope.fields(methods.DISCOVER, None)
        try:
            reply = await transport.exchange(exchange)
        except ProtocolError as error:
            # It refuses, or answers what is no reply: a server that knows nothing of the method.
            if is_of_the_moment(error.http_status):
                raise
            return Handshake()
        if is_of_the_moment(exchange.status) and not _is_stateless_error(reply):
            failed = ProtocolError(
                f"the server failed with HTTP {exchange.status}: {error_text(reply.error or b'', secrets)}",
                server_id=server_id,
                delivery="unknown",
            )
            failed.http_status = exchange.status
            try:
                raise failed
            finally:
                # Its traceback holds this frame.
                del failed
        if reply.kind == ERROR:
            verdict = read_discover_error(reply.error or b"", revision)
        else:
            verdict = read_discover_result(reply.result or b"null")
        if not isinstance(verdict, TryRevision):
            return verdict
    raise ProtocolError(
        f"the server refuses {revision}, which it says it speaks", server_id=server_id, delivery="rejected"
    )


def is_of_the_moment(http_status: int | None) -> bool:
    """Tell whether a status says nothing of what the server speaks."""
    return http_status is not None and (http_status >= 500 or http_status in _NO_VERDICT)


def _is_stateless_error(reply: Message) -> bool:
    return reply.kind == ERROR and reply.error_code in STATELESS_ERRORS
