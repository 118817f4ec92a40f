"""The ``User-Agent`` field of every HTTP request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from mcp_manager._version import __version__

__all__ = ["USER_AGENT", "user_agent", "with_user_agent"]

USER_AGENT: Final = "User-Agent"
_NO_TOKEN: Final = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DEFAULT_PRODUCT: Final = "mcp-manager"


def user_agent(name: str, version: str = "") -> str:
    """Return ``name/version`` (RFC 9110, section 10.1.5); characters that no token may contain become ``-``."""
    product, release = (_NO_TOKEN.sub("-", text).strip("-") for text in (name, version))
    if not product:
        return f"{_DEFAULT_PRODUCT}/{__version__}"
    return f"{product}/{release}" if release else product


def with_user_agent(headers: Mapping[str, str], value: str) -> dict[str, str]:
    """Return the header fields with this User-Agent added, unless they have one."""
    if any(name.lower() == "user-agent" for name in headers):
        return dict(headers)
    return {**headers, USER_AGENT: value}
