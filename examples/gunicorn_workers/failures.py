"""Errors of calls as HTTP answers. The recipe fastapi_service has them in full."""

from __future__ import annotations

import math
from typing import Any

from mcp_manager import CallError, DeadlineExceededError, McpManagerError, OverloadedError, ToolError

__all__ = ["answer_to"]


def answer_to(error: McpManagerError) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Return the body, status and header fields for an error."""
    body = {"error": type(error).__name__, "delivery": error.delivery}
    match error:
        case ToolError():
            return {**body, "detail": error.message}, 422, {}
        case DeadlineExceededError() | CallError(delivery="unknown"):
            return body, 504, {}
        case OverloadedError() | CallError(delivery="not_sent"):
            after_s = error.retry_after_s
            return body, 503, {} if after_s is None else {"Retry-After": str(math.ceil(after_s))}
        case _:
            return body, 502, {}
