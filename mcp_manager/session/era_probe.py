"""The probe that finds out which era of the protocol a server speaks (2026-07-28, basic/versioning)."""

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

__all__ = ["is_inconclusive", "probe_era"]

_DISCOVER_RAW: Final = b'"server/discover"'
# A server may list a revision and then refuse it.
_MAX_PROBES: Final = 3
# Statuses about the client or a temporary condition, which say nothing about the era.
_NO_VERDICT: Final = frozenset({401, 403, 408, 425, 429})


async def probe_era(
    server_id: str,
    transport: Transport,
    client: ClientIdentity,
    ids: RequestIds,
    revision: str = LATEST_STATELESS_REVISION,
    deadline_ns: int = 0,
    secrets: Secrets | None = None,
) -> Verdict:
    """Find out with ``server/discover`` which era and revision a server speaks.

    Sets the transport's revision to the one that was probed last.

    Parameters
    ----------
    server_id
        Names the server in errors.
    transport, ids
        Those of the session.
    client
        The identity to send.
    revision
        The stateless revision to probe first.
    deadline_ns
        A time of :func:`time.monotonic_ns`, 0 for none.
    secrets
        Masks credentials where an error quotes the server.

    Returns
    -------
    Verdict
        Never :class:`TryRevision`: a revision that the server proposes is probed as well.

    Raises
    ------
    CallError
        The server did not answer, answered with 401, 403, 408, 425, 429 or 5xx, which says nothing about the era, or
        refused the revisions that it lists.
    """
    verdict: Verdict = TryRevision(revision)
    for _ in range(_MAX_PROBES):
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
            # A refusal, or an answer that is not a reply: the server does not know the method.
            if is_inconclusive(error.http_status):
                raise
            return Handshake()
        if is_inconclusive(exchange.status) and not _is_stateless_error(reply):
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
        f"the server refuses {revision}, although it lists it as supported", server_id=server_id, delivery="rejected"
    )


def is_inconclusive(http_status: int | None) -> bool:
    """Tell whether an HTTP status says nothing about the era; ``False`` for ``None``, which means no status."""
    return http_status is not None and (http_status >= 500 or http_status in _NO_VERDICT)


def _is_stateless_error(reply: Message) -> bool:
    return reply.kind == ERROR and reply.error_code in STATELESS_ERRORS
