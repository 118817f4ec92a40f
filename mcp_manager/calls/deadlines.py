"""What is said of a missed deadline: how long the call had, and who said so."""

from __future__ import annotations

from typing import Final

from mcp_manager.calls.call import Call
from mcp_manager.errors import DeadlineExceededError

__all__ = ["tell_deadline"]

# Messages that end with it are completed.
_DEADLINE: Final = "the deadline"


def tell_deadline(error: DeadlineExceededError, call: Call) -> None:
    """Complete the error of a call that missed its deadline: it then says how long that was, and what helps."""
    had_ns = call.deadline_ns - call.started_ns
    is_configured = had_ns == call.supervisor.request_timeout_ns
    if error.message.endswith(_DEADLINE):
        error.message += f" of {had_ns / 1e9:g} s ({'request_timeout_s' if is_configured else 'timeout='})"
    if not error.hint:
        error.hint = "pass a longer timeout="
        if is_configured:
            error.hint += ", or raise request_timeout_s of the server"
