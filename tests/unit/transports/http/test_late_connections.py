"""Which connection attempts say nothing of a server, since this side lost the time for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from yarl import URL

from mcp_manager._core.http_message import Exchange
from mcp_manager.transports.http.connections.route import DIRECT
from mcp_manager.transports.http.failures import HttpFailures


def failures(lost_s: float) -> HttpFailures:
    """Return the failures of an endpoint whose loop has just been blocked for so many seconds; connecting may take 5."""
    lag = SimpleNamespace(lost_since=lambda _: lost_s)
    settings = SimpleNamespace(
        server_id="a", route=DIRECT, pool=SimpleNamespace(lag=lag), connect_timeout_s=5.0, endpoint=None
    )
    return HttpFailures(cast(Any, settings))


@pytest.mark.parametrize(("lost_s", "is_local"), [(0.0, False), (0.3, False), (2.4, False), (2.6, True), (9.0, True)])
def test_a_short_block_does_not_excuse_a_server_that_takes_no_connection(lost_s: float, is_local: bool) -> None:
    error = failures(lost_s).of(
        aiohttp.ConnectionTimeoutError(), URL("http://127.0.0.1:1/mcp"), Exchange(b"{}", 1, 0), first=True
    )
    assert error is not None
    assert error.is_local is is_local
