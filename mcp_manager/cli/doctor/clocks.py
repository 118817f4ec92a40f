"""Whether the clocks of HTTP servers agree with the one of this machine: tokens and certificates are judged by them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from mcp_manager.auth import UnreachableError
from mcp_manager.cli.doctor.findings import Finding
from mcp_manager.config import ServerConfig
from mcp_manager.errors import ConfigError

if TYPE_CHECKING:
    from mcp_manager.transports.http.connections.pool import HttpPool

__all__ = ["examine_clocks", "judged"]

# Most issuers of tokens tolerate a few minutes, some none.
_TOLERATED_S: Final = 300.0
# If all servers differ by the same, within this time, the clock of this machine is wrong.
_ALIKE_S: Final = 120.0
_LIMIT_S: Final = 5.0
_ADVICE: Final = "set both clocks by NTP: tokens (OAuth, JWT) are refused if clocks differ"
_OWN_ADVICE: Final = "set the clock of this machine by NTP: tokens (OAuth, JWT) and certificates are judged by it"
_UNITS: Final = ((86_400, "days"), (3_600, "h"), (60, "min"))


async def examine_clocks(servers: Mapping[str, ServerConfig]) -> list[Finding]:
    """Ask HTTP servers for their time, without credentials, and return what is wrong with the clocks.

    Parameters
    ----------
    servers
        The servers by id; programs and servers behind unix sockets are left out, because they have this clock.
    """
    from mcp_manager.transports.http.connections.pool import HttpPool  # noqa: PLC0415 - programs do without aiohttp

    pool = HttpPool(max_connections=len(servers))
    try:
        asked = [(name, _ahead_s(pool, each)) for name, each in servers.items() if each.url and not each.unix_socket]
        found = await asyncio.gather(*(asking for _, asking in asked))
    finally:
        await pool.aclose()
    return judged({name: ahead_s for (name, _), ahead_s in zip(asked, found, strict=True) if ahead_s is not None})


def judged(ahead_s: Mapping[str, float]) -> list[Finding]:
    """Return what is wrong with clocks, given how many seconds each server's is ahead of the one here."""
    wrong = {name: each for name, each in ahead_s.items() if abs(each) > _TOLERATED_S}
    if len(wrong) == len(ahead_s) > 1 and max(wrong.values()) - min(wrong.values()) < _ALIKE_S:
        seen = f"the clock of this machine is {_by(-statistics.median(wrong.values()))} those of all HTTP servers"
        return [Finding("warning", None, seen, _OWN_ADVICE)]
    return [
        Finding("warning", name, f"its clock is {_by(each)} the one of this machine", _ADVICE)
        for name, each in wrong.items()
    ]


async def _ahead_s(pool: HttpPool, server: ServerConfig) -> float | None:
    """Return how many seconds a server's clock is ahead of the one here; ``None`` if it does not tell the time."""
    from yarl import URL  # noqa: PLC0415 - as above

    from mcp_manager.transports.http.connections.routed_client import RoutedClient  # noqa: PLC0415 - as above

    began = time.time()
    headers = {"Cache-Control": "no-cache"}
    try:
        async with (
            asyncio.timeout(_LIMIT_S),
            RoutedClient(pool, server).request(
                "HEAD", URL(server.instance_url(0)), headers=headers, allow_redirects=False
            ) as response,
        ):
            told = response.headers.get("Date", "")
            # What a cache has kept is as old as it says.
            age = response.headers.get("Age", "")
    except (UnreachableError, TimeoutError, ConfigError):
        return None
    try:
        date_s = parsedate_to_datetime(told).timestamp() + (int(age) if age.isdecimal() else 0)
    except (ValueError, OverflowError):
        return None
    return date_s - (began + time.time()) / 2


def _by(ahead_s: float) -> str:
    """Say how far a clock is ahead of another one, or behind."""
    count, unit = next((abs(ahead_s) / size, name) for size, name in _UNITS if abs(ahead_s) >= size)
    return f"{count:.3g} {unit} {'ahead of' if ahead_s > 0 else 'behind'}"
