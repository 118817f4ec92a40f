"""The methods of MCP, and their properties that matter before a request is sent."""

from __future__ import annotations

from typing import Final

__all__ = [
    "CALL_TOOL",
    "CANCELLED",
    "CLIENT_METHODS",
    "CONTROL",
    "DISCOVER",
    "ELICIT",
    "ELICITATION_COMPLETE",
    "INITIALIZE",
    "INITIALIZED",
    "INPUT_METHODS",
    "KEPT_BY_SESSION",
    "LIST_ROOTS",
    "LIST_TOOLS",
    "LOG_MESSAGE",
    "MULTI_ROUND",
    "NAME_MEMBER",
    "OF_THE_SESSION",
    "PING",
    "PROGRESS",
    "PROMPTS_CHANGED",
    "RESOURCES_CHANGED",
    "RESOURCE_UPDATED",
    "ROOTS_CHANGED",
    "SAMPLE",
    "SET_LOG_LEVEL",
    "SUBSCRIBE",
    "SUBSCRIPTION_ACKNOWLEDGED",
    "TOOLS_CHANGED",
    "UNSUBSCRIBE",
    "is_notification",
    "never_asks",
]

INITIALIZE: Final = "initialize"
INITIALIZED: Final = "notifications/initialized"
DISCOVER: Final = "server/discover"
PING: Final = "ping"
LIST_TOOLS: Final = "tools/list"
CALL_TOOL: Final = "tools/call"
SET_LOG_LEVEL: Final = "logging/setLevel"
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"

SAMPLE: Final = "sampling/createMessage"
ELICIT: Final = "elicitation/create"
LIST_ROOTS: Final = "roots/list"

CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
LOG_MESSAGE: Final = "notifications/message"
TOOLS_CHANGED: Final = "notifications/tools/list_changed"
PROMPTS_CHANGED: Final = "notifications/prompts/list_changed"
RESOURCES_CHANGED: Final = "notifications/resources/list_changed"
RESOURCE_UPDATED: Final = "notifications/resources/updated"
ROOTS_CHANGED: Final = "notifications/roots/list_changed"
ELICITATION_COMPLETE: Final = "notifications/elicitation/complete"
SUBSCRIPTION_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"

KEPT_BY_SESSION: Final = frozenset({SUBSCRIBE, UNSUBSCRIBE})
"""Requests that must go through the session: it records subscriptions, so that its successor can restore them."""

CONTROL: Final = frozenset({PING, DISCOVER, INITIALIZE, INITIALIZED, CANCELLED, SET_LOG_LEVEL, "tasks/cancel"})
"""Messages that monitor a server or reduce its load; load shedding never refuses them."""

INPUT_METHODS: Final = frozenset({SAMPLE, ELICIT, LIST_ROOTS})
"""Requests that a server may send to a client (2026-07-28, basic/patterns/mrtr, core types)."""

OF_THE_SESSION: Final = frozenset(
    {
        CANCELLED,
        TOOLS_CHANGED,
        PROMPTS_CHANGED,
        RESOURCES_CHANGED,
        RESOURCE_UPDATED,
        ELICITATION_COMPLETE,
        SUBSCRIPTION_ACKNOWLEDGED,
    }
)
"""Notifications that concern the whole session, even on the response stream of one request."""

MULTI_ROUND: Final = frozenset({CALL_TOOL, "prompts/get", "resources/read"})
"""Requests that a server may answer with questions (2026-07-28, basic/patterns/mrtr, supported requests)."""

NAME_MEMBER: Final = {
    CALL_TOOL: "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""The params member that ``Mcp-Name`` repeats (2026-07-28, streamable HTTP, standard request headers; SEP-2663)."""

CLIENT_METHODS: Final = frozenset(
    {
        INITIALIZE,
        INITIALIZED,
        DISCOVER,
        PING,
        LIST_TOOLS,
        CALL_TOOL,
        SET_LOG_LEVEL,
        SUBSCRIBE,
        UNSUBSCRIBE,
        CANCELLED,
        PROGRESS,
        ROOTS_CHANGED,
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "subscriptions/listen",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/update",
        "tasks/cancel",
    }
)
"""What MCP lets a client send. Each is always counted under its own name; other methods are, up to a number."""

_NEVER_ASK: Final = tuple(
    f',"method":"{method}"'.encode()
    for method in (
        PING,
        DISCOVER,
        INITIALIZE,
        SET_LOG_LEVEL,
        SUBSCRIBE,
        UNSUBSCRIBE,
        "subscriptions/listen",
        LIST_TOOLS,
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        "completion/complete",
        "tasks/get",
        "tasks/list",
        "tasks/cancel",
        "tasks/update",
    )
)
# A request begins with at most this many bytes before its method.
_METHOD_WITHIN: Final = 64
_NOTIFICATION_PREFIX: Final = "notifications/"


def is_notification(method: str) -> bool:
    """Tell whether a method is that of a notification, which has no reply; MCP names them ``notifications/…``."""
    return method.startswith(_NOTIFICATION_PREFIX)


def never_asks(frame: bytes) -> bool:
    """Tell whether a request, as it was sent, is one that no server answers with questions or logs about: pings, lists."""
    start = frame[:_METHOD_WITHIN]
    at = start.find(b',"method":')
    return at >= 0 and frame.startswith(_NEVER_ASK, at)
