"""What a task raises if its call failed for good."""

from __future__ import annotations

from mcp_manager import Delivery, McpManagerError


class ToolCallFailed(Exception):
    """A call of a tool failed, and the task does not try it again.

    All that it says is in ``args``, as plain data: with the serializer ``json``, Celery's result backends keep the class
    and ``args`` of an exception, and no other attribute.

    Attributes
    ----------
    cause
        The class of the error.
    message
        The error in words, for operators.
    delivery
        Whether the tool may have been executed.
    """

    def __init__(self, cause: str, message: str, delivery: Delivery) -> None:
        super().__init__(cause, message, delivery)
        self.cause = cause
        self.message = message
        self.delivery = delivery

    def __str__(self) -> str:
        return f"{self.cause}: {self.message}"

    @classmethod
    def of(cls, error: McpManagerError) -> ToolCallFailed:
        """Return what stands for an error of the manager."""
        return cls(type(error).__name__, str(error), error.delivery)
