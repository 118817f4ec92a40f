"""Every failure that users run into names what helps: the setting, the call, or what the server itself said."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.failures import FAILURES, KEY, Failure

from mcp_manager import McpManagerError

# A line of a log or a terminal.
_MOST_SHOWN = 600


@pytest.mark.parametrize("failure", FAILURES, ids=[each.name for each in FAILURES])
async def test_a_failure_names_the_way_out(failure: Failure, tmp_path: Path) -> None:
    with pytest.raises(McpManagerError) as caught:
        await failure.provoke(tmp_path)
    text = str(caught.value)
    assert [each for each in failure.says if each not in text] == []
    assert KEY not in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text) <= _MOST_SHOWN
