"""Waiting until the servers of the fleet are ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mcp_manager.config.arguments import check_count
from mcp_manager.config.redaction import printable
from mcp_manager.errors import NotReadyError
from mcp_manager.fleet.observer import FleetObserver
from mcp_manager.health import HealthMonitor
from mcp_manager.health.readiness import is_ready
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.types import ServerState

__all__ = ["Readiness"]

# Waiting polls, because nothing reports a circuit that closes. Checking a large fleet takes a while, so the pauses keep it
# below a tenth of the loop's time.
_LOOK_AGAIN_S: Final = 0.25
_PAUSES: Final = 9
# Of how many servers one error knows the reasons, and how many its message names.
_MOST_TOLD: Final = 100
_MOST_NAMED: Final = 5
_LONGEST_REASON: Final = 300


class Readiness:
    """Wait until enough servers of the fleet are ready.

    Parameters
    ----------
    servers
        The supervisors of all deployed servers, by id.
    monitor
        Judges the servers, and has missing sessions made.
    observer
        Wakes those who wait.
    """

    def __init__(self, servers: Mapping[str, Supervisor], monitor: HealthMonitor, observer: FleetObserver) -> None:
        self._servers = servers
        self._monitor = monitor
        self._observer = observer

    async def wait(self, wanted: int | None, timeout: float | None, check_running: Callable[[], None]) -> None:
        """Wait until ``wanted`` servers, or for ``None`` all deployed servers, are ready.

        ``check_running`` is called repeatedly and raises if the manager stops.
        """
        if wanted is not None:
            check_count(wanted, "min")
        try:
            async with asyncio.timeout(timeout):
                await self._wait(wanted, check_running)
        except TimeoutError:
            raise self._unready(wanted, timeout) from None

    async def _wait(self, wanted: int | None, check_running: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._observer.changed.clear()
            began = loop.time()
            missing = [each for each in self._servers.values() if not is_ready(each, self._monitor)]
            ready = len(self._servers) - len(missing)
            enough = len(self._servers) if wanted is None else wanted
            if ready >= enough:
                return
            self._settle(missing, enough - ready)
            took_s = loop.time() - began
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._observer.changed.wait()
            await asyncio.sleep(_PAUSES * took_s)
            check_running()

    def _unready(self, wanted: int | None, timeout: float | None) -> NotReadyError:
        """Make the error that says which servers are not ready, and why: a line for each of the first five."""
        missing = [each for each in self._servers.values() if not is_ready(each, self._monitor)]
        deployed = len(self._servers)
        enough = deployed if wanted is None else wanted
        reasons = {each.server_id: self._why_unready(each) for each in missing[:_MOST_TOLD]}
        lines = [f"{server_id} is {reason}" for server_id, reason in reasons.items()][:_MOST_NAMED]
        if len(missing) > len(lines):
            lines.append(f"and {len(missing) - len(lines)} more")
        head = f"{deployed - len(missing)} of {enough} server{'' if enough == 1 else 's'} ready after {timeout:g} s"
        error = NotReadyError(
            f"{head}: {lines[0]}" if len(lines) == 1 else "\n  ".join((f"{head}:", *lines)) if lines else head,
            hint=f"fewer are deployed: {deployed}"
            if deployed < enough
            else "wait longer with timeout=, or for fewer servers with min=",
        )
        error.missing = reasons
        return error

    def _why_unready(self, supervisor: Supervisor) -> str:
        state, reasons = self._monitor.state(supervisor)
        errors = (error for each in supervisor.instances if (error := each.last_error) is not None)
        error = next(errors, None)
        said = f"{state.value} ({', '.join(reasons)})"
        if error is None:
            return said
        why = f"{error.message} ({error.hint})" if error.hint else error.message
        why = printable(supervisor.template.secrets.masked(why))
        return f"{said}: {why if len(why) <= _LONGEST_REASON else f'{why[:_LONGEST_REASON]}…'}"

    def _settle(self, missing: Iterable[Supervisor], wanted: int) -> None:
        """Ask for missing sessions; of servers that were never tried, of at most ``wanted``."""
        for supervisor in missing:
            if self._monitor.state(supervisor)[0] is ServerState.INITIALIZING:
                if wanted <= 0:
                    continue
                wanted -= 1
            self._monitor.settle(supervisor)
