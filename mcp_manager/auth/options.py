"""The parameters of a manager that concern authorization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from mcp_manager.auth.redirect import RedirectHandler
from mcp_manager.auth.sources import CredentialProvider
from mcp_manager.auth.token_store import TokenStore

__all__ = ["AuthOptions", "check_options"]


class AuthOptions(TypedDict, total=False):
    """Say where the credentials of a manager's servers come from; see :class:`~mcp_manager.McpManager`."""

    token_store: TokenStore | None
    redirect_handler: RedirectHandler | None
    credentials: Mapping[str, CredentialProvider] | None


def check_options(options: Mapping[str, object], owner: type) -> None:
    """Raise ``TypeError`` for what is no parameter of a manager."""
    for name in options:
        if name not in AuthOptions.__annotations__:
            raise TypeError(f"{owner.__name__}() got an unexpected keyword argument {name!r}")
