"""The configuration of which tools of a server may be used."""

from __future__ import annotations

from mcp_manager.config._struct import Settings

__all__ = ["ToolsConfig"]


class ToolsConfig(Settings, frozen=True, kw_only=True):
    """Name the tools of a server that may be listed and called.

    Parameters
    ----------
    allow
        Patterns of the tools that may be used, as ``fnmatch`` reads them: ``*`` stands for any text, ``?`` for one
        character. Default: all tools.
    deny
        Patterns of the tools that may not be used, even if ``allow`` names them.
    """

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
