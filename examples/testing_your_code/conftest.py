"""What the tests have in common."""

from __future__ import annotations

import pytest

from mcp_manager.testing import Tool


@pytest.fixture
def tools() -> dict[str, Tool]:
    """The tools of the server: what your code calls, with answers as the real ones give them."""
    return {
        "book_seat": Tool(structured={"code": "AX7"}),
        "cancel_booking": Tool(result="cancelled"),
    }
