"""Whether a call that has failed is tried again, and when: decisions as plain functions."""

from __future__ import annotations

from typing import Final, NamedTuple

from mcp_manager.config import RetryConfig
from mcp_manager.errors import AuthError, CallError, OverloadedError
from mcp_manager.protocol.safety import safety_of, tool_of
from mcp_manager.session.knowledge.tool_hints import ToolHints
from mcp_manager.transports.base import Sendable

__all__ = [
    "Circumstances",
    "concluded",
    "give_up",
    "is_executed_safely",
    "is_safe",
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
        Its ``delivery`` decides: ``not_sent`` and ``rejected`` prove that nothing was executed; after ``unknown``, only
        what does no harm twice is sent again; what was ``answered`` never is.
    is_safe
        See :func:`is_executed_safely`.
    """
    # Credentials that were refused, after whatever could be done about it, are refused again.
    if not error.retryable or isinstance(error, AuthError):
        return False
    return error.delivery in _UNEXECUTED or (error.delivery == "unknown" and is_safe)


def is_executed_safely(method: str, request: Sendable, config: RetryConfig, hints: ToolHints) -> bool:
    """Tell whether a request does no harm when it is executed twice.

    Parameters
    ----------
    config
        What the operator knows of the server's tools goes before what they say of themselves.
    hints
        What its tools say, believed only with ``trust_annotations`` (2025-06-18, server/tools: annotations are untrusted
        unless the server is trusted).
    """
    return is_safe(method, tool_of(request.params) if safety_of(method) == "conditional" else None, config, hints)


def is_safe(method: str, tool: str | None, config: RetryConfig, hints: ToolHints) -> bool:
    """Tell whether a request does no harm when it is executed twice, by its method and the tool that it calls."""
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
    """Return how to allow a request to be sent again when nobody knows whether it was executed.

    "" if there is no way, or if the operator has said that it does harm.
    """
    if safety_of(method) != "conditional":
        return ""
    tool = tool_of(request.params)
    if tool is None or tool in config.tools:
        return ""
    return f'if calling {tool[:_SHOWN]!r} twice does no harm, set it to "safe" in retry.tools'


def next_backoff_s(previous_s: float, config: RetryConfig, random: float) -> float:
    """Return the next wait in seconds (M. Brooker, Exponential Backoff And Jitter, 2015: decorrelated jitter).

    Parameters
    ----------
    previous_s
        The wait before that, ``backoff_s`` if there was none.
    random
        Uniform in [0, 1).
    """
    spread_s = max(3.0 * previous_s - config.backoff_s, 0.0)
    return min(config.backoff_max_s, config.backoff_s + random * spread_s)


class Circumstances(NamedTuple):
    """What else is known when a call has failed and may be tried again.

    ``is_local``: it was refused before it was sent, so that it is tried again only if time alone will let it through.
    ``has_other``: another instance is free, which need not wait as long as the last one asked. ``is_on_trial``: circuits
    refused the call, and the open time of one of them is over: ``retry_after_s`` is then the latest time, since its trial
    requests mostly end long before they expire.
    """

    is_local: bool = False
    has_other: bool = False
    is_on_trial: bool = False


def pause_s(error: CallError, config: RetryConfig, backoff_s: float, known: Circumstances) -> float | None:
    """Return the seconds to wait before the next attempt, ``None`` if it would be too long or in vain.

    Parameters
    ----------
    backoff_s
        The wait if nothing better is known.
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
    # What a server asks for, or when its process is started again.
    longest_s = config.retry_after_max_s if isinstance(error, OverloadedError) else config.backoff_max_s
    return None if asked_s > longest_s else max(asked_s, backoff_s)


def concluded(error: CallError, attempts: int, *, may_have_run: bool) -> CallError:
    """Have the last failure speak for all attempts: how many there were, and whether any may have been executed."""
    error.attempts = attempts
    if may_have_run and error.delivery in _UNEXECUTED:
        error.delivery = "unknown"
    return error


def give_up(error: CallError) -> None:
    """Say that a call is not tried again because its server was removed, or the manager stopped, meanwhile."""
    error.retryable = False
    why = "the server was removed or the manager stopped meanwhile: it is not tried again"
    error.hint = f"{error.hint}; {why}" if error.hint else why
