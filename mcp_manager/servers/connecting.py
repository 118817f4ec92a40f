"""Make a session within its time limit, and the errors for callers that wait for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from mcp_manager.config import ServerConfig
from mcp_manager.errors import (
    AuthError,
    CallError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    ServerExitedError,
    SessionLostError,
)
from mcp_manager.session import Session, SessionTemplate
from mcp_manager.session.attempt import Attempt

__all__ = [
    "failure_for_caller",
    "no_handshake",
    "not_ready_yet",
    "not_restarted_yet",
    "reach_endpoint",
    "start_program",
]

# How many times start_timeout_s a program gets at most after starts that timed out.
_MOST_GROWTH: Final = 10


async def start_program(template: SessionTemplate, attempt: Attempt, overruns: int) -> None:
    """Start a program and connect to it within ``start_timeout_s``, which doubles with each start that timed out.

    Parameters
    ----------
    template, attempt
        The server, and the attempt to make a session with it.
    overruns
        How many starts in a row have timed out.

    Raises
    ------
    CallError
        The start failed or timed out; for the latter, ``attempt.has_timed_out`` is set.
    """
    configured_s = template.config.start_timeout_s
    limit_s = configured_s * min(2**overruns, _MOST_GROWTH)
    try:
        async with asyncio.timeout(limit_s):
            await attempt.session.connect()
    except TimeoutError as error:
        if isinstance(error, CallError):
            raise
        attempt.has_timed_out = True
        grown = f", raised to {limit_s:g} s after starts that timed out" if limit_s > configured_s else ""
        raise ConnectError(
            f"no handshake within start_timeout_s ({configured_s:g} s{grown})",
            server_id=template.server_id,
            hint=attempt.session.last_words or "it wrote nothing; raise start_timeout_s if it needs longer",
        ) from None


async def reach_endpoint(
    template: SessionTemplate, attempt: Attempt, on_overdue: Callable[[asyncio.Timeout], None]
) -> None:
    """Connect to a URL.

    Parameters
    ----------
    template, attempt
        The server, and the attempt to make a session with it.
    on_overdue
        ``on_overdue(limit)`` is called after ``connect_timeout_s`` and decides how long the attempt may still go on.

    Raises
    ------
    CallError
        No session was made in time.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            attempt.overdue = loop.call_later(template.config.connect_timeout_s, on_overdue, limit)
            try:
                await attempt.session.connect()
            finally:
                attempt.overdue.cancel()
    except TimeoutError as error:
        if isinstance(error, CallError):
            raise
        raise no_handshake(template) from None


def no_handshake(template: SessionTemplate) -> CallError:
    """Make the error for an endpoint with which no session was made in time."""
    if template.authorizations is not None and template.authorizations.is_pending:
        return AuthError(
            "the session waits for an authorization in progress",
            server_id=template.server_id,
            retryable=True,
            hint=template.authorizations.pending_hint,
        )
    config = template.config
    return ConnectError(
        f"no handshake{_way_to(config)} within connect_timeout_s ({config.connect_timeout_s:g} s)",
        server_id=template.server_id,
        hint="check that an MCP server listens at url; raise connect_timeout_s if it needs longer",
    )


def _way_to(config: ServerConfig) -> str:
    """Return how a server is reached if that is not direct, so that nobody looks for the fault at the server only."""
    if config.runs_here or (config.proxy is None and config.unix_socket is None):
        return ""
    # Imported late, as all that needs aiohttp; whoever waits for a handshake has imported it.
    from yarl import URL  # noqa: PLC0415

    from mcp_manager.transports.http.connections.route import route_of  # noqa: PLC0415

    return str(route_of(config, URL(config.instance_url(0)), os.environ))


def not_ready_yet(template: SessionTemplate, attempt: Attempt) -> DeadlineExceededError:
    """Make the error for a caller whose deadline passes while the attempt goes on."""
    server_id = template.server_id
    if not template.config.runs_here:
        return DeadlineExceededError(
            "the session was not ready within the deadline",
            server_id=server_id,
            delivery="not_sent",
            hint="it is still being made: use a longer timeout",
        )
    error = DeadlineExceededError(
        f"the {'program' if template.config.command is not None else 'server'} is {attempt.stage}",
        server_id=server_id,
        delivery="not_sent",
        hint=attempt.session.last_words or "it has written nothing yet; use a longer timeout",
    )
    error.is_starting = not attempt.has_failed_before
    return error


def not_restarted_yet(template: SessionTemplate, last: CallError | None, wait_s: float) -> CallError:
    """Make the error for a child process that has ended and waits for its restart."""
    what = last.message if last is not None else "the server process has ended"
    kind = ServerExitedError if isinstance(last, ServerExitedError) else ConnectError
    return kind(
        f"{what}; it is started again in {wait_s:.1f} s",
        server_id=template.server_id,
        delivery="not_sent",
        retry_after_s=wait_s,
        hint=last.hint if last is not None else "",
    )


def failure_for_caller(error: BaseException) -> BaseException:
    """Return the failure of a shared attempt as an error of one caller's own."""
    if isinstance(error, ConnectionLostError | SessionLostError) and not isinstance(error, ServerExitedError):
        return ConnectError(error.message, server_id=error.server_id, hint=error.hint)
    # Whatever happened to the handshake, the caller's own request was not sent.
    return error.for_caller("not_sent") if isinstance(error, CallError) else error


def result_of(template: SessionTemplate, attempt: Attempt) -> Session:
    """Return the session that an attempt has made.

    Raises
    ------
    CallError
        It has made none.
    """
    outcome = attempt.outcome
    if outcome.cancelled():
        raise ConnectError("the server is being stopped", server_id=template.server_id, retryable=False)
    error = outcome.exception()
    if error is None:
        return outcome.result()
    raise failure_for_caller(error) from None
