"""Reads the head of a response field by field, keeps the fields that are used, and collects a body."""

from typing import Any, Never, final

from typing_extensions import disjoint_base

from mcp_manager._core.paced import PacedReader

__pyx_capi__: dict[str, object]

@disjoint_base
class ResponseReader(PacedReader):
    """Keep the fields of a response's head until the body has arrived."""

@final
class KnownHead:
    """The head of a response, as it came and as it was read."""

    def __init__(self, *args: Any, **kwargs: Any) -> Never: ...
