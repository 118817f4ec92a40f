"""What the manager must know of a method before it sends it."""

from __future__ import annotations

from typing import Final

__all__ = ["INITIALIZE", "INITIALIZED", "PING", "is_cancellable", "is_notification"]

INITIALIZE: Final = "initialize"
INITIALIZED: Final = "notifications/initialized"
CANCELLED: Final = "notifications/cancelled"
PROGRESS: Final = "notifications/progress"
PING: Final = "ping"
TOOLS_CHANGED: Final = "notifications/tools/list_changed"

_NOTIFICATION_PREFIX: Final = "notifications/"


def is_notification(method: str) -> bool:
    """Tell whether a message of this method expects no reply: MCP names every notification ``notifications/…``."""
    return method.startswith(_NOTIFICATION_PREFIX)


def is_cancellable(method: str) -> bool:
    """Tell whether giving up on a request is announced; ``initialize`` MUST NOT be cancelled (2025-11-25, cancellation)."""
    return method != INITIALIZE
