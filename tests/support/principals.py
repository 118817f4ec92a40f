"""Principals with API keys, and gateways that ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from mcp_manager.gateway.security.api_keys import ApiKey, made_key
from mcp_manager.gateway.security.keys_file import write_keys

__all__ = ["Keys", "http_for"]


class Keys:
    """A file of API keys.

    Parameters
    ----------
    directory
        Where it is written.
    names
        The principals that have a key each.
    """

    def __init__(self, directory: Path, *names: str) -> None:
        self.path = directory / "keys.jsonl"
        self.of: dict[str, str] = {}
        self._kept: list[ApiKey] = []
        for name in names:
            self.of[name] = self.add(name)

    @property
    def auth(self) -> dict[str, Any]:
        """The table ``serve.auth``."""
        return {"type": "api_key", "keys_file": str(self.path)}

    def add(self, name: str, **more: Any) -> str:
        """Add a key for a principal, and return it."""
        key, kept = made_key(name, **more)
        self._kept.append(kept)
        write_keys(str(self.path), self._kept)
        return key

    def revoke(self, name: str) -> None:
        """Remove the keys of a principal."""
        self._kept = [each for each in self._kept if each.name != name]
        write_keys(str(self.path), self._kept)

    def fields(self, name: str) -> dict[str, str]:
        """The header fields that show the key of a principal."""
        return {"Authorization": f"Bearer {self.of[name]}"}


def http_for(keys: Keys, name: str) -> aiohttp.ClientSession:
    """Return an HTTP client that shows the key of a principal with each request."""
    return aiohttp.ClientSession(
        headers=keys.fields(name), connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=10)
    )
