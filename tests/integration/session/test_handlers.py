"""What real servers over stdio ask of their client, in both eras, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.calls import SWIFT, eventually
from support.processes import PROGRAMS

from mcp_manager import (
    ConfigError,
    DeadlineExceededError,
    ElicitationRequest,
    Handlers,
    InputRequiredError,
    InvalidRequestError,
    LogMessage,
    ManagerConfig,
    McpManager,
    Progress,
    RpcError,
    SamplingRequest,
    UrlElicitationRequiredError,
)

WAIT_S = 15.0
ERAS = ["handshake", "stateless"]
FORM = {
    "message": "Who are you?",
    "requestedSchema": {
        "type": "object",
        "properties": {"name": {"type": "string", "default": "Joe"}, "age": {"type": "integer"}},
    },
}


def asking(era: str) -> dict[str, Any]:
    return {"command": sys.executable, "args": [str(PROGRAMS / "asking_stdio.py"), era], "connect_timeout_s": 15.0}


@contextlib.asynccontextmanager
async def deployed(era: str, handlers: Any = None, **settings: Any) -> AsyncIterator[McpManager]:
    config = ManagerConfig(**{name: settings.pop(name) for name in ("handler_timeout_s",) if name in settings})
    async with McpManager(config, handlers=handlers) as manager:
        await manager.deploy("a", {**asking(era), **settings})
        yield manager


async def learned(manager: McpManager, tool: str, **arguments: Any) -> Any:
    result = await asyncio.wait_for(manager.call_tool("a", tool, arguments), WAIT_S)
    return result.structured_content


async def received(manager: McpManager, method: str) -> list[Any]:
    """Return the messages of a method that the server has got."""
    return [each for each in (await learned(manager, "received"))["received"] if each.get("method") == method]


async def answer_to(manager: McpManager, method: str, params: Any = None) -> Any:
    return (await learned(manager, "ask", method=method, **({} if params is None else {"params": params})))["answer"]


# Answers


@pytest.mark.parametrize("era", ERAS)
async def test_every_kind_of_question_is_answered(era: str) -> None:
    async def sampling(server_id: str, request: SamplingRequest) -> dict[str, Any]:
        text = f"{server_id} wants {request.max_tokens}"
        return {"role": "assistant", "content": {"type": "text", "text": text}, "model": "test"}

    def elicitation(server_id: str, request: ElicitationRequest) -> dict[str, Any]:
        return request.accept({"age": 33}) if request.mode == "form" else request.decline()

    handlers = Handlers(sampling=sampling, elicitation=elicitation, url_elicitation=elicitation, roots=["file:///work"])
    async with deployed(era, handlers) as manager:
        sampled = await answer_to(manager, "sampling/createMessage", {"messages": [], "maxTokens": 7})
        assert sampled["result"]["content"]["text"] == "a wants 7"
        formed = await answer_to(manager, "elicitation/create", FORM)
        assert formed == {"result": {"action": "accept", "content": {"name": "Joe", "age": 33}}}
        url = {"mode": "url", "message": "go", "url": "http://127.0.0.1/", "elicitationId": "1"}
        assert await answer_to(manager, "elicitation/create", url) == {"result": {"action": "decline"}}
        assert await answer_to(manager, "roots/list", {}) == {"result": {"roots": [{"uri": "file:///work"}]}}
        assert manager.server("a").faults == {}


@pytest.mark.parametrize("era", ERAS)
async def test_what_is_declared_follows_from_the_handlers(era: str) -> None:
    handlers = Handlers(url_elicitation=lambda _, request: request.accept(), roots=[])
    async with deployed(era, handlers) as manager:
        messages = (await learned(manager, "received"))["received"]
        if era == "handshake":
            [first] = [each for each in messages if each.get("method") == "initialize"]
            assert first["params"]["capabilities"] == {"elicitation": {"url": {}}, "roots": {"listChanged": True}}
        else:
            declared = messages[-1]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
            assert (declared["elicitation"], declared["roots"]) == ({"url": {}}, {})


async def test_a_question_in_an_undeclared_mode_is_invalid() -> None:
    handlers = Handlers(url_elicitation=lambda _, request: request.accept())
    async with deployed("handshake", handlers) as manager:
        assert (await answer_to(manager, "elicitation/create", FORM))["error"]["code"] == -32602
        assert manager.server("a").faults == {"a request for an undeclared capability": 1}
    async with deployed("stateless", handlers) as manager:
        with pytest.raises(InputRequiredError, match="did not declare"):
            await answer_to(manager, "elicitation/create", FORM)


@pytest.mark.parametrize("era", ERAS)
async def test_a_handler_that_hangs_costs_one_question(era: str) -> None:
    async def hang(server_id: str, params: Any) -> Any:
        await asyncio.Event().wait()

    handlers = {"sampling/createMessage": hang, "roots/list": lambda *_: {"roots": []}}
    async with deployed(era, handlers, handler_timeout_s=0.2) as manager:
        hanging = asyncio.create_task(answer_to(manager, "sampling/createMessage", {}))
        assert await answer_to(manager, "roots/list", {}) == {"result": {"roots": []}}
        if era == "handshake":
            assert (await hanging)["error"]["message"] == "The client's handler took too long"
        else:
            with pytest.raises(InputRequiredError, match="took too long"):
                await hanging
        assert await answer_to(manager, "roots/list", {}) == {"result": {"roots": []}}


async def test_a_server_gives_its_question_up() -> None:
    async def hang(server_id: str, params: Any) -> Any:
        await asyncio.Event().wait()

    async with deployed("handshake", {"roots/list": hang}) as manager:
        asked = (await learned(manager, "ask_and_cancel", method="roots/list"))["asked"]
        messages = (await learned(manager, "received"))["received"]
        assert not [each for each in messages if each.get("id") == asked]
        assert manager.server("a").faults == {}


async def test_a_flood_of_requests_harms_no_call() -> None:
    async def roots(server_id: str, params: Any) -> Any:
        return {"roots": []}

    async with deployed("handshake", {"roots/list": roots}) as manager:
        for method in ("ping", "x/y", "roots/list"):
            await learned(manager, "flood", method=method, times=3000)
            await asyncio.wait_for(manager.ping("a"), WAIT_S)
        faults = manager.server("a").faults
        assert set(faults) <= {
            "a flood of messages",
            "too many requests at once",
            "replies that the server does not read",
        }


async def test_a_request_in_the_stateless_era_is_a_fault_and_not_answered() -> None:
    asked: list[Any] = []
    async with deployed("stateless", {"roots/list": lambda *news: asked.append(news)}) as manager:
        await learned(manager, "flood", method="roots/list", times=3)
        await learned(manager, "flood", method="ping", times=1)
        messages = (await learned(manager, "received"))["received"]
        assert [each for each in messages if "method" not in each] == []
        assert asked == []
        assert manager.server("a").faults == {"a request in a stateless revision": 4}


@pytest.mark.slow
async def test_a_handler_that_cannot_be_cancelled_keeps_no_server_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def stubborn(server_id: str, params: Any) -> Any:
        begun.set()
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    async with deployed("handshake", {"roots/list": stubborn}) as manager:
        await learned(manager, "flood", method="roots/list", times=1)
        await asyncio.wait_for(begun.wait(), WAIT_S)
        await asyncio.wait_for(manager.undeploy("a"), WAIT_S)
        assert "server 'a': 1 cancelled handlers have not ended" in caplog.text
        released.set()


async def test_requests_and_replies_may_share_a_line() -> None:
    settings = {"protocol_version": "2025-03-26"}
    async with deployed("handshake", {"roots/list": lambda *_: {"roots": []}}, **settings) as manager:
        assert await learned(manager, "batch", methods=["ping", "roots/list", "x/y"]) == {"batched": True}
        async with asyncio.timeout(WAIT_S):
            while True:
                messages = (await learned(manager, "received"))["received"]
                answers = {each["id"]: each for each in messages if "method" not in each}
                if len(answers) == 3:
                    break
        assert (answers["ping"]["result"], answers["roots/list"]["result"]) == ({}, {"roots": []})
        assert answers["x/y"]["error"]["code"] == -32601
        assert manager.server("a").faults == {}


# Roots


async def test_new_roots_are_announced_where_they_can_be() -> None:
    handlers = Handlers(roots=["file:///old"])
    async with McpManager(handlers=handlers) as manager:
        await manager.deploy("a", asking("handshake"))
        await manager.deploy("b", asking("stateless"))
        await manager.set_roots(["file:///new", "file:///newer"])
        assert len(await received(manager, "notifications/roots/list_changed")) == 1
        told = await manager.call_tool("b", "received")
        assert "notifications/roots/list_changed" not in str(told.structured_content)
        answer = await answer_to(manager, "roots/list", {})
        assert [root["uri"] for root in answer["result"]["roots"]] == ["file:///new", "file:///newer"]
        with pytest.raises(ConfigError, match="https"):
            await manager.set_roots(["https://example.com"])
        assert len(await received(manager, "notifications/roots/list_changed")) == 1


async def test_roots_that_were_not_declared_cannot_be_set() -> None:
    async with McpManager(handlers={"roots/list": lambda *_: {"roots": []}}) as manager:
        with pytest.raises(ConfigError, match="no list of roots"):
            await manager.set_roots([])


# Log messages and progress


@pytest.mark.parametrize("era", ERAS)
async def test_the_log_level_holds_for_every_session_to_come(era: str) -> None:
    async with deployed(era, **SWIFT, instances=2) as manager:
        assert (await learned(manager, "level"))["level"] is None
        await manager.set_log_level("a", "warning")
        for _ in range(4):
            assert (await learned(manager, "level"))["level"] == "warning"
        pids = manager.server("a").pids
        for _ in pids:
            with pytest.raises(RuntimeError):
                await learned(manager, "exit")
        await eventually(lambda: len(manager.server("a").pids) == 2, "two new processes")
        assert not set(pids) & set(manager.server("a").pids)

        async def is_set() -> bool:
            return all([(await learned(manager, "level"))["level"] == "warning" for _ in range(4)])

        # In the handshake era a new session is told beside its first calls.
        async with asyncio.timeout(WAIT_S):
            while not await is_set():
                await asyncio.sleep(0.01)
        await manager.redeploy("a", asking(era))
        async with asyncio.timeout(WAIT_S):
            while not await is_set():
                await asyncio.sleep(0.01)


async def test_a_level_that_there_is_not_is_refused() -> None:
    async with deployed("handshake") as manager:
        with pytest.raises(InvalidRequestError, match="loud"):
            await manager.set_log_level("a", "loud")  # type: ignore[arg-type]
        assert await received(manager, "logging/setLevel") == []


@pytest.mark.parametrize("era", ERAS)
async def test_progress_and_log_messages_reach_those_who_listen(era: str) -> None:
    reports: list[Any] = []
    logged: list[LogMessage] = []
    progressed: list[Progress] = []
    handlers = Handlers(logging=lambda _, news: logged.append(news), progress=lambda _, news: progressed.append(news))
    async with deployed(era, handlers) as manager:
        await manager.call_tool("a", "progress", on_progress=lambda *news: reports.append(news))
        await eventually(lambda: bool(progressed), "the report")
        [first] = progressed
        await learned(
            manager,
            "notify",
            method="notifications/progress",
            params={"progressToken": first.progress_token, "progress": 2, "total": 2},
        )
        await eventually(lambda: len(progressed) == 2, "the second report")
        # The one that came after the reply is nobody's.
        assert reports == [(1, 2, None)]
        assert logged == [LogMessage(level="info", data="working")]
        assert {each.total for each in progressed} == {2}
        assert manager.server("a").faults == {}


@pytest.mark.parametrize("era", ERAS)
async def test_malformed_notifications_are_faults(era: str) -> None:
    handlers = Handlers(logging=lambda *_: None, on_tools_changed=lambda *_: None)
    async with deployed(era, handlers) as manager:
        for method, params in (
            ("notifications/message", {"level": 5}),
            ("notifications/message", [1]),
            ("notifications/progress", {"progressToken": {}}),
            ("notifications/cancelled", {}),
            ("notifications/elicitation/complete", {}),
            ("notifications/tools/list_changed", {"any": 1}),
        ):
            await learned(manager, "notify", method=method, params=params)
        assert manager.server("a").faults == {
            "a malformed notification": 1,
            "a notification whose params are not an object": 1,
            "a malformed progress notification": 1,
            "a malformed cancellation": 1,
        }


# Giving up


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_given_up_is_cancelled_and_its_late_reply_dropped(era: str) -> None:
    async with deployed(era) as manager:
        with pytest.raises(DeadlineExceededError):
            await manager.call_tool("a", "nothing", timeout=0.05)
        waiting = asyncio.create_task(manager.call_tool("a", "nothing"))
        async with asyncio.timeout(WAIT_S):
            while len([m for m in await received(manager, "tools/call") if m["params"]["name"] == "nothing"]) < 2:
                await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(WAIT_S):
            while len(cancelled := await received(manager, "notifications/cancelled")) < 2:
                await asyncio.sleep(0)
        calls = [each for each in await received(manager, "tools/call") if each["params"]["name"] == "nothing"]
        assert [each["params"]["requestId"] for each in cancelled] == [each["id"] for each in calls]
        await learned(manager, "answer_late")
        assert manager.server("a").faults == {}


# URLs to visit


async def test_a_call_that_needs_a_url_is_sent_again_when_the_user_was_there() -> None:
    asked: list[ElicitationRequest] = []
    completed: list[str] = []

    async def visit(server_id: str, request: ElicitationRequest) -> dict[str, Any]:
        asked.append(request)
        return request.accept()

    handlers = Handlers(url_elicitation=visit, on_elicitation_complete=lambda _, each: completed.append(each))
    async with deployed("handshake", handlers) as manager:
        assert await learned(manager, "visit") == {"refusals": 1}
        assert [each.url for each in asked] == ["http://127.0.0.1/sign-in"]
        assert completed == ["unknown", "e-1"]


@pytest.mark.parametrize(
    ("answer", "completes"),
    [({"action": "decline"}, True), ({"action": "cancel"}, True), ({"action": "accept"}, False), ("nonsense", True)],
)
async def test_a_url_not_visited_is_told_to_the_caller(answer: Any, completes: bool) -> None:
    handlers = Handlers(url_elicitation=lambda *_: answer)
    async with deployed("handshake", handlers) as manager:
        with pytest.raises(UrlElicitationRequiredError) as caught:
            await manager.call_tool("a", "visit", {"completes": completes}, timeout=None if completes else 0.5)
        [elicitation] = caught.value.elicitations
        assert elicitation["url"] == "http://127.0.0.1/sign-in"
        assert (caught.value.code, caught.value.delivery, caught.value.retryable) == (-32042, "rejected", True)
        calls = [each for each in await received(manager, "tools/call") if each["params"]["name"] == "visit"]
        assert len(calls) == 1


@pytest.mark.parametrize("end", ["undeploy", "stop"])
async def test_a_server_that_goes_keeps_no_call_waiting_for_a_url(end: str) -> None:
    asked = asyncio.Event()

    def visit(server_id: str, request: ElicitationRequest) -> dict[str, Any]:
        asked.set()
        return request.accept()

    async with deployed("handshake", Handlers(url_elicitation=visit)) as manager:
        calling = asyncio.create_task(manager.call_tool("a", "visit", {"completes": False}, timeout=600.0))
        await asyncio.wait_for(asked.wait(), 15.0)
        await (manager.undeploy("a") if end == "undeploy" else manager.stop())
        with pytest.raises(UrlElicitationRequiredError):
            await asyncio.wait_for(calling, 15.0)


@pytest.mark.parametrize("handlers", [None, Handlers(elicitation=lambda _, request: request.accept())])
async def test_without_a_handler_for_urls_the_caller_is_told_at_once(handlers: Any) -> None:
    async with deployed("handshake", handlers) as manager:
        with pytest.raises(UrlElicitationRequiredError):
            await learned(manager, "visit")


async def test_a_handler_for_urls_that_fails_leaves_the_call_its_error(caplog: pytest.LogCaptureFixture) -> None:
    def fail(server_id: str, request: ElicitationRequest) -> dict[str, Any]:
        raise ValueError("handler bug")

    async with deployed("handshake", Handlers(url_elicitation=fail)) as manager:
        with pytest.raises(RpcError):
            await learned(manager, "visit")
        assert "handler bug" in caplog.text
