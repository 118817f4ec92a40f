"""The configuration of the tools of a server that may be listed and called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Unpack

from msgspec import Meta

from mcp_manager.config._struct import Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.tools import ToolsFields

__all__ = ["ALL_TOOLS", "ToolsConfig", "is_pattern"]

ToolPattern = Annotated[str, Meta(min_length=1, max_length=256)]
"""The name of a tool, or a glob pattern for names."""
ToolPatterns = Annotated[tuple[ToolPattern, ...], Meta(max_length=1000)]
"""Up to 1,000 names and patterns."""


_SPECIAL: Final = re.compile(r"[*?\[]")


class ToolsConfig(Settings, frozen=True, kw_only=True):
    """Name the tools of a server that may be listed and called.

    A forbidden tool is left out of every list, and a call of it raises :class:`ToolNotAllowedError` before anything is
    sent. The names are compared as they are: by code points, without Unicode normalization, in upper and lower case.
    Both fields take names and glob patterns: ``*`` stands for any characters, ``?`` for one, ``[abc]`` for one of
    these, ``[!abc]`` for one of the others, and ``[*]`` for ``*`` itself.

    Parameters
    ----------
    allow
        The tools that are allowed; ``None`` allows all, an empty list none. It is the safer choice of the two: a tool
        that the server adds later stays forbidden.
    deny
        The tools that are forbidden, even if ``allow`` names them.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[ToolsFields]) -> None: ...

    _lists: ClassVar[tuple[str, ...]] = ("allow",)

    allow: ToolPatterns | None = None
    deny: ToolPatterns = ()


ALL_TOOLS: Final = ToolsConfig()
"""The default: every tool may be listed and called."""


def is_pattern(text: str) -> bool:
    """Tell whether a text is a glob pattern, and not just a name."""
    return _SPECIAL.search(text) is not None
