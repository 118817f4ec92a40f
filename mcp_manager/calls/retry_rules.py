"""The retry decisions as pure functions: whether a failed call is retried, and after how long."""

from __future__ import annotations

from typing import Final, NamedTuple

from mcp_manager.config import RetryConfig
from mcp_manager.errors import AuthError, CallError, OverloadedError
from mcp_manager.protocol.safety import safety_of, tool_of
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.transports.base import Sendable

__all__ = [
    "Circumstances",
    "cover_all_attempts",
    "is_executed_safely",
    "is_safe",
    "mark_final",
    "may_be_repeated",
    "next_backoff_s",
    "pause_s",
    "way_to_repeat",
]

_UNEXECUTED: Final = ("not_sent", "rejected")
_SHOWN: Final = 80


def may_be_repeated(error: CallError, is_safe: bool) -> bool:
    """Tell whether a request may be sent again after this failure.

    Parameters
    ----------
    error
        Its ``delivery`` decides. ``not_sent`` and ``rejected`` prove that nothing was executed: always. ``unknown``:
        only if the request is safe to repeat. ``answered``: never.
    is_safe
        Whether the request is safe to repeat; see :func:`is_executed_safely`.
    """
    # The transport has already tried to renew refused credentials; they would be refused again.
    if not error.retryable or isinstance(error, AuthError):
        return False
    return error.delivery in _UNEXECUTED or (error.delivery == "unknown" and is_safe)


def is_executed_safely(method: str, request: Sendable, config: RetryConfig, hints: ToolHints) -> bool:
    """Tell whether a request is safe to repeat.

    Parameters
    ----------
    method, request
        The name of the method, and the encoded request.
    config
        The server's settings; what ``tools`` says of a tool overrides the tool's own hints.
    hints
        The hints of the server's tools, used only with ``trust_annotations`` (2025-06-18, server/tools: annotations are
        untrusted unless the server is trusted).
    """
    return is_safe(method, tool_of(request.params) if safety_of(method) == "conditional" else None, config, hints)


def is_safe(method: str, tool: str | None, config: RetryConfig, hints: ToolHints) -> bool:
    """Tell whether requests of a method, or calls of a tool, are safe to repeat; see :func:`is_executed_safely`."""
    safety = safety_of(method)
    if safety != "conditional":
        return safety == "safe"
    if tool is None:
        return False
    known = config.tools.get(tool)
    if known is not None:
        return known == "safe"
    return config.trust_annotations and hints.is_repeatable(tool)


def way_to_repeat(method: str, request: Sendable, config: RetryConfig) -> str:
    """Return a hint that says how to declare a request safe to repeat.

    "" if it cannot be declared so (only tool calls can), or if ``config`` already says whether its tool is.
    """
    if safety_of(method) != "conditional":
        return ""
    tool = tool_of(request.params)
    if tool is None or tool in config.tools:
        return ""
    return f'if {tool[:_SHOWN]!r} is safe to call twice, set it to "safe" in retry.tools'


def next_backoff_s(previous_s: float, config: RetryConfig, random: float) -> float:
    """Return the next backoff in seconds (M. Brooker, Exponential Backoff And Jitter, 2015: decorrelated jitter).

    Parameters
    ----------
    previous_s
        The previous backoff in seconds, ``config.backoff_s`` if there was none.
    config
        Gives ``backoff_s`` and ``backoff_max_s``, the bounds of the result.
    random
        A uniform random number in [0, 1).
    """
    spread_s = max(3.0 * previous_s - config.backoff_s, 0.0)
    return min(config.backoff_max_s, config.backoff_s + random * spread_s)


class Circumstances(NamedTuple):
    """What decides, besides the error, how long to wait before a retry.

    Parameters
    ----------
    is_local
        Whether the router refused the call before it was sent. Then it is retried only if waiting alone can help.
    has_other
        Whether another instance is free. Then the wait that the failed one asked for does not apply.
    is_on_trial
        Whether open circuits refused the call and one of them is now half-open. Its trial requests usually end long
        before ``retry_after_s``, so that the usual backoff is enough.
    """

    is_local: bool = False
    has_other: bool = False
    is_on_trial: bool = False


def pause_s(error: CallError, config: RetryConfig, backoff_s: float, known: Circumstances) -> float | None:
    """Return the seconds to wait before the next attempt; ``None`` if waiting would take too long or cannot help.

    Parameters
    ----------
    error
        The failure; its ``retry_after_s`` is respected.
    config
        Gives the longest waits, ``backoff_max_s`` and ``retry_after_max_s``.
    backoff_s
        The wait if nothing else decides; a shorter one that the error asks for is raised to it.
    known
        See :class:`Circumstances`.
    """
    is_local, has_other, is_on_trial = known
    if is_on_trial:
        return backoff_s
    asked_s = error.retry_after_s
    if is_local:
        return None if not asked_s or asked_s > config.backoff_max_s else max(asked_s, backoff_s)
    if asked_s is None:
        return backoff_s
    if has_other:
        return 0.0
    # An OverloadedError carries what the server asked for, any other error the time until its process restarts.
    longest_s = config.retry_after_max_s if isinstance(error, OverloadedError) else config.backoff_max_s
    return None if asked_s > longest_s else max(asked_s, backoff_s)


def cover_all_attempts(error: CallError, attempts: int, *, may_have_run: bool) -> CallError:
    """Make the last failure cover all attempts, and return it.

    Parameters
    ----------
    error
        The failure of the last attempt.
    attempts
        How many attempts there were.
    may_have_run
        Whether any of them may have been executed; then ``delivery`` becomes ``unknown``.
    """
    error.attempts = attempts
    if may_have_run and error.delivery in _UNEXECUTED:
        error.delivery = "unknown"
    return error


def mark_final(error: CallError) -> None:
    """Mark a failure as final because the server was removed, or the manager stopped, before the next attempt."""
    error.retryable = False
    why = "not retried: the server was removed or the manager stopped"
    error.hint = f"{error.hint}; {why}" if error.hint else why
