"""Handlers and progress callbacks of ``PyMcpManager``: which thread calls them, and that blocking ones hold nobody up."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.processes import PROGRAMS

from mcp_manager import (
    Caller,
    ElicitationRequest,
    Handlers,
    InvalidRequestError,
    LogMessage,
    PyMcpManager,
    RpcError,
    SamplingRequest,
    current_caller,
)
from mcp_manager.bindings.progress import ThreadReports

WAIT_S = 15.0
ERAS = pytest.mark.parametrize("era", ["handshake", "stateless"])
FORM = {"message": "Who are you?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
SAMPLE = {"messages": [], "maxTokens": 7}
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def asking(era: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), era], "connect_timeout_s": 15.0}


def ask(manager: PyMcpManager, method: str, params: Any = None, **options: Any) -> Any:
    arguments = {"method": method, **({} if params is None else {"params": params})}
    result = manager.call_tool("a", "ask", arguments, timeout=WAIT_S, **options)
    assert result.structured_content is not None
    return result.structured_content["answer"]


class Blocking:
    """A plain handler that blocks its thread until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.threads: list[str] = []

    def __call__(self, server_id: str, request: ElicitationRequest) -> dict[str, Any]:
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.released.wait(WAIT_S)
        return request.accept({"name": "Ada"})


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    handler = Blocking()
    yield handler
    handler.released.set()


@ERAS
def test_a_handler_that_blocks_does_not_hold_the_managers_loop(era: str, blocking: Blocking) -> None:
    with PyMcpManager(handlers=Handlers(elicitation=blocking)) as manager, ThreadPoolExecutor(1) as threads:
        manager.deploy("a", asking(era))
        asked = threads.submit(ask, manager, "elicitation/create", FORM)
        assert blocking.entered.wait(WAIT_S)
        # The loop goes on, for this very server and for others.
        assert manager.call_tool("a", "received", timeout=WAIT_S).structured_content
        manager.deploy("b", asking(era))
        blocking.released.set()
        assert asked.result(WAIT_S)["result"] == {"action": "accept", "content": {"name": "Ada"}}
        assert blocking.threads == ["mcp-manager handler"]


@ERAS
def test_every_plain_handler_of_requests_runs_in_a_thread(era: str) -> None:
    names: dict[str, str] = {}

    def told(kind: str, answer: Callable[[], Any]) -> Callable[..., Any]:
        def handler(*_: Any) -> Any:
            names[kind] = threading.current_thread().name
            return answer()

        return handler

    handlers = Handlers(
        sampling=told("sampling", lambda: {"role": "assistant", "content": [], "model": "m"}),
        url_elicitation=told("url", lambda: {"action": "decline"}),
        roots=told("roots", lambda: [Path("/work")]),
        logging=told("logging", lambda: None),
        others={"x/ask": told("others", lambda: {"x": 1}), "notifications/x": told("news", lambda: None)},
    )
    with PyMcpManager(handlers=handlers) as manager:
        manager.deploy("a", asking(era))
        assert ask(manager, "sampling/createMessage", SAMPLE)["result"]["model"] == "m"
        url = {"mode": "url", "message": "m", "url": "http://127.0.0.1/", "elicitationId": "e"}
        assert ask(manager, "elicitation/create", url)["result"] == {"action": "decline"}
        assert ask(manager, "roots/list")["result"] == {"roots": [{"uri": "file:///work"}]}
        if era == "handshake":
            assert ask(manager, "x/ask", {})["result"] == {"x": 1}
            assert names.pop("others") == "mcp-manager handler"
        manager.call_tool("a", "notify", {"method": "notifications/x"})
        manager.call_tool("a", "notify", {"method": "notifications/message", "params": {"level": "info", "data": 1}})
        while "logging" not in names:
            threading.Event().wait(0.005)
    assert {names[each] for each in ("sampling", "url", "roots")} == {"mcp-manager handler"}
    assert {names[each] for each in ("logging", "news")} == {"mcp-manager"}


def test_the_same_for_handlers_by_method_and_on_a_loop_of_the_application(blocking: Blocking) -> None:
    async def main() -> None:
        def elicit(server_id: str, params: Any) -> Any:
            blocking.entered.set()
            assert blocking.released.wait(WAIT_S)
            return {"action": "cancel"}

        async with PyMcpManager(handlers={"elicitation/create": elicit}) as manager:
            await manager.deploy("a", asking("handshake"))
            arguments = {"method": "elicitation/create", "params": FORM}
            asked = asyncio.create_task(manager.call_tool_async("a", "ask", arguments, timeout=WAIT_S))
            while not blocking.entered.is_set():
                await asyncio.sleep(0.005)
            blocking.released.set()
            answer = (await asked).structured_content
            assert answer is not None and answer["answer"]["result"] == {"action": "cancel"}

    asyncio.run(main())


def test_coroutine_handlers_run_on_the_managers_loop() -> None:
    async def sampling(server_id: str, request: SamplingRequest) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"role": "assistant", "content": [], "model": threading.current_thread().name}

    with PyMcpManager(handlers=Handlers(sampling=sampling)) as manager:
        manager.deploy("a", asking("handshake"))
        assert ask(manager, "sampling/createMessage", SAMPLE)["result"]["model"] == "mcp-manager"


def test_what_a_plain_handler_raises_and_returns() -> None:
    async def later() -> dict[str, Any]:
        return {"action": "decline"}

    answers: list[Callable[[], Any]] = [later, lambda: 1 / 0]

    def elicitation(server_id: str, request: ElicitationRequest) -> Any:
        if not answers:
            raise RpcError(-5, "not today")
        return answers.pop(0)()

    with PyMcpManager(handlers=Handlers(elicitation=elicitation)) as manager:
        manager.deploy("a", asking("handshake"))
        assert ask(manager, "elicitation/create", FORM)["result"] == {"action": "decline"}
        assert ask(manager, "elicitation/create", FORM)["error"]["code"] == -32603
        assert ask(manager, "elicitation/create", FORM)["error"] == {"code": -5, "message": "not today"}


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
def test_a_handler_that_ends_its_thread_does_not_end_the_manager(ending: type[BaseException]) -> None:
    def elicitation(server_id: str, request: ElicitationRequest) -> Any:
        raise ending

    with PyMcpManager(handlers=Handlers(elicitation=elicitation)) as manager:
        manager.deploy("a", asking("handshake"))
        assert ask(manager, "elicitation/create", FORM)["error"]["code"] == -32603
        assert manager.call_tool("a", "received", timeout=WAIT_S).structured_content


def test_a_handler_knows_the_context_of_the_call_that_asks() -> None:
    seen: list[Any] = []

    def elicitation(server_id: str, request: ElicitationRequest) -> dict[str, Any]:
        caller = current_caller()
        seen.append((variable.get(), None if caller is None else caller.principal))
        return request.decline()

    with PyMcpManager(handlers=Handlers(elicitation=elicitation)) as manager:
        manager.deploy("a", asking("stateless"))
        token = variable.set("mine")
        try:
            ask(manager, "elicitation/create", FORM)
            arguments = {"method": "elicitation/create", "params": FORM}
            manager.for_caller(Caller("alice")).call_tool("a", "ask", arguments, timeout=WAIT_S)
        finally:
            variable.reset(token)
    assert seen == [("mine", None), ("mine", "alice")]


def test_the_manager_stops_while_a_handler_blocks(blocking: Blocking) -> None:
    with ThreadPoolExecutor(1) as threads:
        with PyMcpManager(handlers=Handlers(elicitation=blocking)) as manager:
            manager.deploy("a", {**asking("handshake"), "shutdown_grace_s": 0.0})
            asked = threads.submit(ask, manager, "elicitation/create", FORM)
            assert blocking.entered.wait(WAIT_S)
        assert asked.exception() is not None
        blocking.released.set()


def test_log_messages_keep_their_order() -> None:
    seen: list[Any] = []

    def log(server_id: str, message: LogMessage) -> None:
        seen.append(message.data)

    with PyMcpManager(handlers=Handlers(logging=log)) as manager:
        manager.deploy("a", asking("handshake"))
        for number in range(20):
            params = {"level": "info", "data": number}
            manager.call_tool("a", "notify", {"method": "notifications/message", "params": params})
        while len(seen) < 20:
            threading.Event().wait(0.005)
    assert seen == list(range(20))


# Progress


class Reports:
    """A callback that notes its reports and threads, and may block."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.threads: set[threading.Thread] = set()
        self.is_over = False

    def __call__(self, *report: Any) -> None:
        self.threads.add(threading.current_thread())
        self.seen.append(report)
        # Long enough for the reply to come in the meantime.
        threading.Event().wait(0.05)
        self.is_over = True


@pytest.fixture
def manager() -> Iterator[PyMcpManager]:
    with PyMcpManager() as manager:
        manager.deploy("a", asking("handshake"))
        yield manager


def test_a_blocking_call_reports_on_its_own_thread(manager: PyMcpManager) -> None:
    reports = Reports()
    manager.call_tool("a", "progress", on_progress=reports, timeout=WAIT_S)
    assert reports.seen == [(1, 2, None)]
    assert reports.threads == {threading.current_thread()}
    assert reports.is_over


@pytest.mark.parametrize("is_async", [False, True])
def test_an_async_call_reports_on_the_loop_that_awaits_it(manager: PyMcpManager, is_async: bool) -> None:
    reports = Reports()

    async def report(*given: Any) -> None:
        await asyncio.sleep(0.01)
        reports(*given)

    async def main() -> None:
        callback: Any = report if is_async else reports
        await manager.call_tool_async("a", "progress", on_progress=callback, timeout=WAIT_S)
        assert reports.is_over

    asyncio.run(main())
    assert reports.seen == [(1, 2, None)]
    assert reports.threads == {threading.current_thread()}


@pytest.mark.parametrize("is_function", [False, True])
def test_a_coroutine_function_of_a_blocking_call_runs_on_the_managers_loop(
    manager: PyMcpManager, is_function: bool
) -> None:
    names: list[str] = []

    async def report(*_: Any) -> None:
        await asyncio.sleep(0)
        names.append(threading.current_thread().name)

    callback: Any = report if is_function else lambda *given: report(*given)
    manager.call_tool("a", "progress", on_progress=callback, timeout=WAIT_S)
    assert names == ["mcp-manager"]


def test_what_a_callback_raises_is_logged_and_affects_nothing(
    manager: PyMcpManager, caplog: pytest.LogCaptureFixture
) -> None:
    def report(*_: Any) -> None:
        raise ValueError("my mistake")

    async def main() -> None:
        await manager.call_tool_async("a", "progress", on_progress=report, timeout=WAIT_S)

    manager.call_tool("a", "progress", on_progress=report, timeout=WAIT_S)
    asyncio.run(main())
    assert caplog.text.count("the progress callback of a call failed") == 2
    assert caplog.text.count("my mistake") >= 2


def test_no_report_is_delivered_after_the_thread_gives_up() -> None:
    seen: list[float] = []
    reports = ThreadReports(lambda progress, *_: seen.append(progress), list, time.monotonic_ns())
    for each in range(3):
        reports.put(each, None, None)
    assert reports.acquire(0) is False
    reports.put(3, None, None)
    reports.release()
    assert reports.acquire(0) is True
    assert seen == []


def test_a_callback_that_is_no_function_is_refused(manager: PyMcpManager) -> None:
    callback: Any = "report"
    with pytest.raises(InvalidRequestError, match="on_progress must be a function, not 'report'"):
        manager.call_tool("a", "progress", on_progress=callback, timeout=WAIT_S)


def test_an_interrupt_in_a_callback_cancels_the_call(manager: PyMcpManager) -> None:
    def report(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manager.call_tool("a", "progress", on_progress=report, timeout=WAIT_S)
    manager.call_tool("a", "received", timeout=WAIT_S)
