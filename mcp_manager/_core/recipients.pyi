"""Who waits for the reply of an exchange: a future, or compiled code that takes it in the same event-loop iteration."""

from typing_extensions import disjoint_base

from mcp_manager._core.response_reader import ResponseReader

@disjoint_base
class Recipient:
    """Take the reply of an exchange without a future."""

@disjoint_base
class AwaitedReader(ResponseReader):
    """Give the reply of the exchange under way to who waits for it."""
