"""What requests say of their sender."""

from __future__ import annotations

import pytest

from mcp_manager._version import __version__
from mcp_manager.transports.http.connections.user_agent import user_agent, with_user_agent


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("mcp-manager", "1.2.3", "mcp-manager/1.2.3"),
        ("My App", "1.0 beta", "My-App/1.0-beta"),
        ("Bücher", "", "B-cher"),
        ("a/b (c)", "2", "a-b-c/2"),
        ("x\r\nEvil: y", "1\r\n", "x-Evil-y/1"),
        ("", "1", f"mcp-manager/{__version__}"),
        ("日本", "1", f"mcp-manager/{__version__}"),
    ],
)
def test_the_field_is_made_of_tokens(name: str, version: str, expected: str) -> None:
    assert user_agent(name, version) == expected


def test_a_configured_one_stays() -> None:
    assert with_user_agent({"user-agent": "mine"}, "x/1") == {"user-agent": "mine"}
    assert with_user_agent({"A": "b"}, "x/1") == {"A": "b", "User-Agent": "x/1"}
