"""What fails on a server's behalf is logged with its traceback, and without what the server was trusted with."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.contained import TOKEN, containment
from support.scripted_fleet import ScriptedFleet
from support.sessions import session_template

from mcp_manager._core.jsonrpc import scan
from mcp_manager.errors import RpcError
from mcp_manager.session import ProgressReports
from mcp_manager.session.knowledge.peer_faults import PeerFaults
from mcp_manager.session.resubscription import Resubscription
from mcp_manager.session.server_requests import ServerRequests
from mcp_manager.testing.virtual_time import run_in_virtual_time
from mcp_manager.verbs.url_elicitation import UrlElicitations

WAIT_S = 15.0
SAID = f"no URL: https://example.com/?token={TOKEN}"
ASK = "roots/list"
TELL = "notifications/message"


async def fail(*_: object, **__: object) -> Any:
    raise ValueError(SAID)


async def refuse(*_: object) -> Any:
    raise RpcError(-32000, SAID)


def fail_at_once(*_: object) -> None:
    raise ValueError(SAID)


async def work_of_a_server() -> None:
    fleet = ScriptedFleet(auth={"type": "bearer", "token": TOKEN})
    try:
        await fleet.connect()
        for _ in range(2):
            with pytest.raises(ValueError, match="no URL"):
                await fleet.supervisor.spawn(fail())
    finally:
        await fleet.aclose()


def test_a_failure_of_background_work_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    run_in_virtual_time(work_of_a_server())
    assert len(told(caplog)) == 1


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says of the failure."""
    return [text for text in (record.getMessage() for record in caplog.records) if "no URL" in text]


async def handled(handler: Callable[..., Any], method: str) -> None:
    async def send(frame: bytes) -> None:
        pass

    faults = PeerFaults("a", time.monotonic_ns)
    requests = ServerRequests(containment(), {method: handler}, {"roots": {}}, faults, send, WAIT_S)
    if method == ASK:
        requests.answer(scan(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode()), method)
    else:
        requests.take_notification(method, b"{}")
    # To the end of the handler, and of whatever passes its outcome on.
    while requests._tasks:
        await asyncio.wait_for(asyncio.wait(requests._tasks), WAIT_S)
    await settled(requests.close())


async def settled(tasks: list[asyncio.Task[Any]]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)


async def a_request() -> None:
    await handled(fail, ASK)


async def a_notification() -> None:
    await handled(fail, TELL)


async def a_refused_notification() -> None:
    await handled(refuse, TELL)


async def a_report() -> None:
    ProgressReports(fail_at_once, containment())(1.0, None, None)


async def a_report_awaited() -> None:
    reports = ProgressReports(fail, containment())
    reports(1.0, None, None)
    await reports.finish(time.monotonic_ns() + 10**10)
    await reports.aclose()


async def a_visit() -> None:
    visit = {"mode": "url", "elicitationId": "e", "url": "https://example.com/", "message": "m"}
    error = {"code": -32042, "message": "m", "data": {"elicitations": [visit]}}
    reply = scan(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode())
    deadline_ns = time.monotonic_ns() + 10**10
    assert not await UrlElicitations(fail, time.monotonic_ns).satisfied(containment(), reply, deadline_ns)


async def subscriptions_of_a_session() -> None:
    tasks: list[asyncio.Task[None]] = []
    template = session_template("a", auth={"type": "bearer", "token": TOKEN})
    template.knowledge.subscriptions.add("file:///a")
    asked = asyncio.Event()

    async def ask(*_: object) -> Any:
        asked.set()
        raise ValueError(SAID)

    def spawn(work: Any) -> asyncio.Task[None]:
        tasks.append(asyncio.get_running_loop().create_task(work))
        return tasks[-1]

    kept = Resubscription(template, 0, ask, lambda _: None)
    kept.start(spawn)
    await asyncio.wait_for(asked.wait(), WAIT_S)
    await asyncio.sleep(0)
    kept.close()
    tasks[0].cancel()
    await settled(tasks)


CASES = [
    a_request,
    a_notification,
    a_refused_notification,
    a_report,
    a_report_awaited,
    a_visit,
    subscriptions_of_a_session,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_it_is_logged_without_the_token(
    case: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    await case()
    assert len(told(caplog)) == 1
    assert TOKEN not in caplog.text
    if case is not a_refused_notification:
        assert "in fail" in caplog.text or "in ask" in caplog.text
