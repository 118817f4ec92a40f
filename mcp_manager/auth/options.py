"""The parameters of a manager that concern authorization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from mcp_manager.auth.redirect import RedirectHandler
from mcp_manager.auth.sources import CredentialProvider
from mcp_manager.auth.token_store import TokenStore

__all__ = ["AuthOptions"]


class AuthOptions(TypedDict, total=False):
    """Say where the credentials of a manager's servers come from; see :class:`~mcp_manager.McpManager`."""

    token_store: TokenStore | None
    redirect_handler: RedirectHandler | None
    credentials: Mapping[str, CredentialProvider] | None
