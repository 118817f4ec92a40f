"""Handlers: the capabilities that they declare, the methods that they serve, and the params that they get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_manager import ConfigError, ElicitationRequest, Handlers, LogMessage, Progress, Root, RpcError, SamplingRequest
from mcp_manager.protocol.capabilities import elicitation_modes, handshake_capabilities, undeclared
from mcp_manager.session.handlers import Roots

FORM = {"message": "who?", "requestedSchema": {"properties": {"x": {"type": "integer", "default": 1}}}}
URL = {"mode": "url", "message": "go", "url": "https://example.com/a", "elicitationId": "e1"}


def methods_of(handlers: Handlers) -> set[str]:
    return set(handlers.by_method(handlers.root_list()))


def ask(handlers: Handlers, method: str, params: Any) -> Any:
    return handlers.by_method(handlers.root_list())[method]("server", params)


def accept(server_id: str, request: ElicitationRequest) -> dict[str, Any]:
    return request.accept()


def ignore(*news: Any) -> None:
    pass


def test_what_is_not_given_is_not_served_nor_declared() -> None:
    handlers = Handlers()
    assert (methods_of(handlers), handlers.capabilities(), handlers.root_list()) == (set(), {}, None)


def test_every_name_serves_its_method() -> None:
    handlers = Handlers(
        sampling=lambda *_: {},
        elicitation=accept,
        roots=[],
        logging=ignore,
        progress=ignore,
        on_tools_changed=ignore,
        on_prompts_changed=ignore,
        on_resources_changed=ignore,
        on_resource_updated=ignore,
        on_elicitation_complete=ignore,
        others={"notifications/x": ignore},
    )
    assert methods_of(handlers) == {
        "sampling/createMessage",
        "elicitation/create",
        "roots/list",
        "notifications/message",
        "notifications/progress",
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
        "notifications/elicitation/complete",
        "notifications/x",
    }


def test_params_come_typed() -> None:
    seen: list[Any] = []

    def take(*news: Any) -> Any:
        seen.append(news)
        return {}

    handlers = Handlers(
        sampling=take,
        elicitation=take,
        url_elicitation=take,
        logging=take,
        progress=take,
        on_tools_changed=take,
        on_resource_updated=take,
        on_elicitation_complete=take,
    )
    for method, params in (
        ("sampling/createMessage", {"messages": [], "maxTokens": 5, "systemPrompt": "s", "unknown": 1}),
        ("elicitation/create", FORM),
        ("elicitation/create", URL),
        ("notifications/message", {"level": "info", "data": [1]}),
        ("notifications/progress", {"progressToken": "t", "progress": 1}),
        ("notifications/tools/list_changed", {}),
        ("notifications/resources/updated", {"uri": "file:///a"}),
        ("notifications/elicitation/complete", {"elicitationId": "e1"}),
    ):
        ask(handlers, method, params)
    assert seen == [
        ("server", SamplingRequest(messages=[], max_tokens=5, system_prompt="s")),
        ("server", ElicitationRequest(message="who?", requested_schema=FORM["requestedSchema"])),  # type: ignore[arg-type]
        ("server", ElicitationRequest(message="go", mode="url", url="https://example.com/a", elicitation_id="e1")),
        ("server", LogMessage(level="info", data=[1])),
        ("server", Progress(progress_token="t", progress=1)),
        ("server",),
        ("server", "file:///a"),
        ("server", "e1"),
    ]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sampling/createMessage", {"messages": []}),
        ("sampling/createMessage", {"messages": "x", "maxTokens": 1}),
        ("elicitation/create", {}),
        ("elicitation/create", {"message": "go", "mode": "url"}),
        ("elicitation/create", {"message": "go", "mode": "telepathy"}),
    ],
)
def test_params_of_another_shape_are_refused(method: str, params: Any) -> None:
    handlers = Handlers(sampling=ignore, elicitation=accept, url_elicitation=accept)  # type: ignore[arg-type]
    with pytest.raises(RpcError, match="Invalid params") as caught:
        ask(handlers, method, params)
    assert caught.value.code == -32602


@pytest.mark.parametrize(
    ("handlers", "modes"),
    [
        (Handlers(elicitation=accept), ("form",)),
        (Handlers(url_elicitation=accept), ("url",)),
        (Handlers(elicitation=accept, url_elicitation=accept), ("form", "url")),
    ],
)
def test_the_modes_of_elicitation_are_those_with_a_handler(handlers: Handlers, modes: tuple[str, ...]) -> None:
    declared = handshake_capabilities(methods_of(handlers), handlers.capabilities())
    assert elicitation_modes(declared) == modes
    for params, mode in ((FORM, "form"), (URL, "url")):
        assert bool(undeclared("elicitation/create", params, declared)) == (mode not in modes)
        if mode in modes:
            assert ask(handlers, "elicitation/create", params)["action"] == "accept"
        else:
            with pytest.raises(RpcError):
                ask(handlers, "elicitation/create", params)


@pytest.mark.parametrize(
    ("method", "params", "declared", "missing"),
    [
        ("elicitation/create", {}, {"elicitation": {}}, False),
        ("elicitation/create", {"mode": "form"}, {"elicitation": {}}, False),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {}}, True),
        ("elicitation/create", {"mode": ["form"]}, {"elicitation": {}}, True),
        ("elicitation/create", {}, {"elicitation": None}, True),
        ("elicitation/create", {}, {}, True),
        ("sampling/createMessage", {}, {"sampling": {}}, False),
        ("sampling/createMessage", {"tools": []}, {"sampling": {}}, True),
        ("sampling/createMessage", {"toolChoice": {}}, {"sampling": {}}, True),
        ("sampling/createMessage", {"tools": None}, {"sampling": {}}, False),
        ("sampling/createMessage", {"tools": []}, {"sampling": {"tools": {}}}, False),
        ("roots/list", {}, {}, False),
    ],
)
def test_what_was_not_declared_is_named(method: str, params: Any, declared: Any, missing: bool) -> None:
    assert bool(undeclared(method, params, declared)) is missing


def test_roots_are_uris_or_paths(tmp_path: Path) -> None:
    roots = Roots(["file:///a", tmp_path, Root(uri="file:///b", name="B")])
    assert roots.result() == {
        "roots": (Root(uri="file:///a"), Root(uri=tmp_path.as_uri()), Root(uri="file:///b", name="B"))
    }


@pytest.mark.parametrize(
    "bad", [["/a"], ["https://example.com"], [Path("a")], "file:///a", [1], [Root(uri="x")], ["file://[::1"]]
)
def test_what_is_no_root_is_refused_and_changes_nothing(bad: Any) -> None:
    roots = Roots(["file:///a"])
    with pytest.raises(ConfigError, match="root"):
        roots.replace(bad)
    assert roots.result() == {"roots": (Root(uri="file:///a"),)}


async def test_roots_can_be_asked_for() -> None:
    async def roots(server_id: str) -> list[str]:
        return [f"file:///{server_id}"]

    for handler in (roots, lambda server_id: [f"file:///{server_id}"]):
        handlers = Handlers(roots=handler)
        assert handlers.root_list() is None
        assert await ask(handlers, "roots/list", {}) == {"roots": (Root(uri="file:///server"),)}
