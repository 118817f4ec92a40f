"""The whole fleet as one endpoint: its lists, and where its requests go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.calls import CALM, SWIFT
from support.catalog_server import CatalogServer, tool

from mcp_manager import McpManager, McpManagerError, RpcError
from mcp_manager._core.jsonrpc import Message, scan
from mcp_manager.config.serve import ViewConfig
from mcp_manager.gateway.client import Client
from mcp_manager.gateway.endpoints import merged
from mcp_manager.gateway.endpoints.catalogue import MISSING_KEY
from mcp_manager.gateway.endpoints.kinds import TOOLS
from mcp_manager.gateway.endpoints.merged import MergedEndpoint
from mcp_manager.gateway.endpoints.table import EndpointTable
from mcp_manager.gateway.list_changes import LIST_CHANGES
from mcp_manager.gateway.news import News
from mcp_manager.gateway.sessions.sealing import Sealer
from mcp_manager.protocol.revisions import Era
from mcp_manager.testing import faults

ANA = Client(Era.HANDSHAKE, "2025-11-25", session="ana")
BEN = Client(Era.HANDSHAKE, "2025-11-25", session="ben")
ODD = tool(
    "od\u00e9.d", description="Odd.", _meta={"x": {"$defs": {"a": 1}}}, inputSchema={"$anchor": "a", "type": "object"}
)


def request(method: str, **params: Any) -> Message:
    return scan(json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode())


@pytest.fixture
def servers() -> Iterator[dict[str, CatalogServer]]:
    crm = {
        "tools": [tool("find"), ODD],
        "prompts": [{"name": "greet"}],
        "resources": [{"uri": "r://shared", "name": "a"}, {"uri": "r://crm", "name": "b"}],
        "resourceTemplates": [{"uriTemplate": "crm://{id}", "name": "t"}],
    }
    wiki = {
        "tools": [tool("find"), tool("edit")],
        "resources": [{"uri": "r://shared", "name": "c"}, {"uri": "mcp-manager:crm/r://crm", "name": "d"}],
    }
    with ExitStack() as stack:
        yield {
            "crm": stack.enter_context(CatalogServer(crm, instructions="Find customers.")),
            "wiki": stack.enter_context(CatalogServer(wiki, instructions="Edit pages.")),
        }


@pytest.fixture
async def table(servers: dict[str, CatalogServer]) -> AsyncIterator[EndpointTable]:
    news = News(0.01)
    views = {
        "support": ViewConfig(servers=("crm",), tools=("crm__find",), names="short", instructions="Support."),
        "both": ViewConfig(
            names="short", rename={"wiki__edit": "change"}, descriptions={"wiki__edit": "Change a page."}
        ),
    }
    async with McpManager(handlers=news.handlers()) as manager:
        for name, server in servers.items():
            await manager.deploy(name, {"url": server.url, "priority": 5 if name == "wiki" else 1, **CALM})
        news.start(manager)
        table = EndpointTable(manager, news, Sealer(), views, page_size=2, patience_s=1.0)
        yield table
        await table.aclose()
        await news.aclose()


async def listed(endpoint: MergedEndpoint, method: str, member: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = json.loads(await endpoint.own_result(request(method, **cursor), ANA) or b"")
        found += page[member]
        if "nextCursor" not in page:
            return found
        cursor = {"cursor": page["nextCursor"]}


async def names(endpoint: MergedEndpoint) -> list[str]:
    return [each["name"] for each in await listed(endpoint, "tools/list", "tools")]


async def routed(endpoint: MergedEndpoint, method: str, **params: Any) -> tuple[str, dict[str, Any]]:
    route = await endpoint.route(request(method, **params), ANA)
    sent = route.request if isinstance(route.request, bytes) else route.request.frame
    message = json.loads(sent)
    assert (message["id"], message["method"]) == (7, method)
    return route.server_id, message["params"]


async def test_tools_of_all_servers_are_listed_sorted_and_routed(table: EndpointTable) -> None:
    tools = await listed(table.fleet, "tools/list", "tools")
    shown = [each["name"] for each in tools]
    assert shown == sorted(shown)
    assert [shown[0], shown[2], shown[3]] == ["crm__find", "wiki__edit", "wiki__find"]
    assert shown[1].startswith("crm__od_")
    assert tools[1] == {**ODD, "name": shown[1]}
    assert await routed(table.fleet, "tools/call", name="wiki__find", arguments={"name": "x"}) == (
        "wiki",
        {"name": "find", "arguments": {"name": "x"}},
    )
    assert await routed(table.fleet, "tools/call", name=shown[1]) == ("crm", {"name": ODD["name"]})
    assert json.loads(await table.fleet.tool_schema(shown[1], ANA) or b"") == ODD["inputSchema"]


async def test_a_name_is_routed_without_having_been_listed(
    table: EndpointTable, servers: dict[str, CatalogServer]
) -> None:
    assert (await routed(table.fleet, "tools/call", name="wiki__edit"))[0] == "wiki"
    assert servers["crm"].requests_of("tools/list") == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("wiki__fnd", "wiki__find"), ("nobody__find", None), ("find", None), ("crm__edit", None), ("", None)],
)
async def test_an_unknown_name_is_refused(table: EndpointTable, name: str, hint: str | None) -> None:
    with pytest.raises(RpcError) as refused:
        await table.fleet.route(request("tools/call", name=name), ANA)
    assert refused.value.code == -32602
    data = refused.value.data
    assert isinstance(data, dict) and data["source"] == "gateway"
    assert (hint in data.get("hint", "")) if hint else "did you" not in data.get("hint", "")


async def test_names_with_escapes_and_twice_are_read_as_servers_read_them(table: EndpointTable) -> None:
    twice = scan(b'{"id":7,"method":"tools/call","params":{"name":"wiki__edit","n\\u0061me":"wiki__find"}}')
    route = await table.fleet.route(twice, ANA)
    assert isinstance(route.request, Message) and json.loads(route.request.frame)["params"] == {"name": "find"}
    assert route.request.frame.count(b"name") == 1


async def test_names_that_differ_in_letters_alone_are_refused(table: EndpointTable) -> None:
    # encoding/json of Go takes the last of them.
    ref = '"ref":{"type":"ref/prompt","name":"crm__greet"%s}'
    hidden = {
        "tools/call": ('"name":"wiki__edit","Name":"find"', '"NAME":"find","name":"wiki__edit"'),
        "prompts/get": ('"name":"crm__greet","n\\u0061mE":"other"',),
        "resources/read": ('"uri":"r://shared","URI":"r://other"',),
        "completion/complete": (ref % ',"naMe":"other"', ref % "" + ',"Ref":{}', ref % ',"Type":"ref/resource"'),
    }
    for method, those in hidden.items():
        for params in those:
            message = scan(f'{{"id":7,"method":"{method}","params":{{{params}}}}}'.encode())
            with pytest.raises(RpcError, match="in other letters") as refused:
                await table.fleet.route(message, ANA)
            assert refused.value.code == -32602
            assert table.fleet.known_route(message, ANA) is None


async def test_prompts_and_completions_are_routed(table: EndpointTable) -> None:
    assert [each["name"] for each in await listed(table.fleet, "prompts/list", "prompts")] == ["crm__greet"]
    assert await routed(table.fleet, "prompts/get", name="crm__greet") == ("crm", {"name": "greet"})
    reference = {"type": "ref/prompt", "name": "crm__greet"}
    argument = {"name": "a", "value": "b"}
    server, params = await routed(table.fleet, "completion/complete", ref=reference, argument=argument)
    assert (server, params) == ("crm", {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": argument})
    template = {"type": "ref/resource", "uri": "crm://{id}"}
    assert (await routed(table.fleet, "completion/complete", ref=template))[0] == "crm"


async def test_resources_belong_to_one_server_each(table: EndpointTable, servers: dict[str, CatalogServer]) -> None:
    uris = [each["uri"] for each in await listed(table.fleet, "resources/list", "resources")]
    assert uris == [
        "mcp-manager:crm/r://shared",
        "mcp-manager:wiki/mcp-manager:crm/r://crm",
        "r://crm",
        "r://shared",
    ]
    assert await routed(table.fleet, "resources/read", uri="r://shared") == ("wiki", {"uri": "r://shared"})
    assert await routed(table.fleet, "resources/read", uri=uris[0]) == ("crm", {"uri": "r://shared"})
    assert (await routed(table.fleet, "resources/read", uri=uris[1])) == ("wiki", {"uri": uris[1][17:]})
    assert await routed(table.fleet, "resources/read", uri="mcp-manager:crm/r://crm") == ("crm", {"uri": "r://crm"})
    assert await routed(table.fleet, "resources/subscribe", uri="crm://7") == ("crm", {"uri": "crm://7"})
    assert table.fleet.uri_from("crm", "r://shared") == uris[0]
    assert table.fleet.uri_from("wiki", "r://shared") == "r://shared"
    with pytest.raises(RpcError, match="Resource not found"):
        await table.fleet.route(request("resources/read", uri="r://nowhere"), ANA)


async def test_what_a_server_had_that_is_gone_belongs_to_another(table: EndpointTable) -> None:
    await listed(table.fleet, "resources/list", "resources")
    await names(table.fleet)
    await table._manager.undeploy("wiki")
    assert await routed(table.fleet, "resources/read", uri="r://shared") == ("crm", {"uri": "r://shared"})
    with pytest.raises(RpcError, match="Unknown tool"):
        await table.fleet.route(request("tools/call", name="wiki__find"), ANA)


@pytest.mark.parametrize("uri", ["mcp-manager:crm/\ud800", "\ud800:x"])
async def test_half_of_a_surrogate_pair_is_refused(table: EndpointTable, uri: str) -> None:
    with pytest.raises(RpcError) as refused:
        await table.fleet.route(request("resources/read", uri=uri), ANA)
    assert refused.value.code == -32602


async def test_a_resource_that_nobody_lists_is_found(table: EndpointTable, servers: dict[str, CatalogServer]) -> None:
    servers["crm"].lists["resources"].append({"uri": "r://late", "name": "l"})
    servers["crm"].lists["resources"], hidden = (
        servers["crm"].lists["resources"][:-1],
        servers["crm"].lists["resources"],
    )
    await listed(table.fleet, "resources/list", "resources")
    servers["crm"].lists["resources"] = hidden
    assert (await routed(table.fleet, "resources/read", uri="r://late"))[0] == "crm"


async def test_a_server_that_does_not_answer_is_missing(
    table: EndpointTable, servers: dict[str, CatalogServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged, "_LOOK_S", 0.05)
    # The other one is known before.
    await table._listings.of(["wiki"], TOOLS)
    table._listings._patience_s = 0.05
    servers["crm"].script("tools/list", faults.SseNeverEnds())
    page = json.loads(await table.fleet.own_result(request("tools/list"), ANA) or b"")
    assert [each["name"] for each in page["tools"]] == ["wiki__edit", "wiki__find"]
    assert list(page["_meta"][MISSING_KEY]) == ["crm"]
    # Its tools can be called nevertheless, but not those that a view may give another name.
    assert await routed(table.fleet, "tools/call", name="crm__any") == ("crm", {"name": "any"})
    with pytest.raises(RpcError):
        await table.views["support"].route(request("tools/call", name="crm__any"), ANA)
    servers["crm"].script("prompts/list", faults.SseNeverEnds())
    reference = {"type": "ref/prompt", "name": "crm__greet"}
    assert (await routed(table.fleet, "completion/complete", ref=reference))[0] == "crm"
    with pytest.raises(RpcError):
        await table.fleet.route(request("completion/complete", ref={"type": "ref/tool", "name": "crm__greet"}), ANA)
    servers["crm"].refuse_connections()
    servers["crm"].listen()


async def test_pages_are_not_made_again_and_cursors_are_checked(
    table: EndpointTable, servers: dict[str, CatalogServer]
) -> None:
    first = await table.fleet.own_result(request("tools/list"), ANA)
    assert await table.fleet.own_result(request("tools/list"), ANA) is first
    cursor = json.loads(first or b"")["nextCursor"]
    view = table.views["both"]
    for endpoint, given in ((view, cursor), (table.fleet, "x"), (table.fleet, cursor[:-2] + "AA"), (table.fleet, 7)):
        with pytest.raises(RpcError) as refused:
            await endpoint.own_result(request("tools/list", cursor=given), ANA)
        assert refused.value.code == -32602
    with pytest.raises(RpcError):
        await table.fleet.own_result(request("prompts/list", cursor=cursor), ANA)


async def test_a_list_that_changes_is_another_one_at_once(
    table: EndpointTable, servers: dict[str, CatalogServer]
) -> None:
    before = await names(table.fleet)
    cursor = json.loads(await table.fleet.own_result(request("tools/list"), ANA) or b"")["nextCursor"]
    servers["wiki"].lists["tools"].append(tool("undo"))
    table._listings.changed("wiki", LIST_CHANGES[0])
    assert await names(table.fleet) == sorted([*before, "wiki__undo"])
    # A client that has got the first page goes on after it.
    servers["crm"].lists["tools"] = [tool("a"), *servers["crm"].lists["tools"]]
    servers["wiki"].lists["tools"].append(tool("zip"))
    for server in servers:
        table._listings.changed(server, LIST_CHANGES[0])
    following = json.loads(await table.fleet.own_result(request("tools/list", cursor=cursor), ANA) or b"")
    assert [each["name"] for each in following["tools"]] == before[2:]
    further = json.loads(
        await table.fleet.own_result(request("tools/list", cursor=following["nextCursor"]), ANA) or b""
    )
    assert [each["name"] for each in further["tools"]] == ["wiki__undo", "wiki__zip"]
    assert "nextCursor" not in further
    # Nothing follows any more.
    await table._manager.undeploy("wiki")
    await table._manager.undeploy("crm")
    last = json.loads(await table.fleet.own_result(request("tools/list", cursor=following["nextCursor"]), ANA) or b"")
    assert last == {"tools": []}


async def test_the_fleet_introduces_itself(table: EndpointTable) -> None:
    said = await table.fleet.describe(ANA)
    assert said.server_info["name"] == "mcp-manager"
    assert said.capabilities["tools"] == {"listChanged": True}
    assert said.capabilities["resources"] == {"subscribe": True, "listChanged": True}
    assert said.instructions is not None
    assert said.instructions.index("Edit pages.") < said.instructions.index("Find customers.")


async def test_a_single_server_introduces_itself_as_it_is(table: EndpointTable) -> None:
    crm = table.find("/servers/crm/mcp")
    assert crm is not None and table.find("/servers/none/mcp") is None
    said = await crm.describe(ANA)
    assert said.server_info == {"name": "catalog", "version": "7", "title": "A catalogue"}
    assert said.instructions == "Find customers."
    assert await crm.tool_schema("find", ANA) == b'{"type": "object"}'


async def test_a_view_shows_what_it_chooses_and_nothing_else(table: EndpointTable) -> None:
    view = table.views["support"]
    assert table.find("/mcp/support") is view
    assert await names(view) == ["find"]
    assert await routed(view, "tools/call", name="find") == ("crm", {"name": "find"})
    assert (await view.describe(ANA)).instructions == "Support."
    uris = [each["uri"] for each in await listed(view, "resources/list", "resources")]
    assert uris == ["r://crm", "r://shared"]
    hidden = [
        ("tools/call", {"name": "crm__find"}),
        ("tools/call", {"name": ODD["name"]}),
        ("tools/call", {"name": "wiki__find"}),
        ("tools/Call", {"name": "find"}),
        ("resources/read", {"uri": "mcp-manager:wiki/r://shared"}),
        ("prompts/get", {"name": "wiki__x"}),
        ("tasks/get", {"taskId": "1"}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "mcp-manager:wiki/r://shared"}}),
    ]
    for method, params in hidden:
        with pytest.raises(RpcError):
            await view.route(request(method, **params), ANA)
    assert (await routed(view, "resources/read", uri="r://shared"))[0] == "crm"


async def test_a_view_renames_and_describes(table: EndpointTable) -> None:
    view = table.views["both"]
    tools = await listed(view, "tools/list", "tools")
    assert [each["name"] for each in tools] == sorted(["change", "crm__find", ODD["name"], "wiki__find"])
    assert next(each for each in tools if each["name"] == "change")["description"] == "Change a page."
    assert await routed(view, "tools/call", name="change") == ("wiki", {"name": "edit"})
    assert (await routed(view, "tools/call", name=ODD["name"]))[0] == "crm"


async def adapted(endpoint: MergedEndpoint, name: str, result: dict[str, Any]) -> dict[str, Any]:
    route = await endpoint.route(request("tools/call", name=name), ANA)
    assert route.adapt is not None
    response = json.loads(route.adapt(json.dumps({"jsonrpc": "2.0", "id": 7, "result": result}).encode()))
    assert (response["jsonrpc"], response["id"]) == ("2.0", 7)
    found: dict[str, Any] = response["result"]
    return found


async def test_links_in_results_lead_to_the_server_that_made_them(
    table: EndpointTable, servers: dict[str, CatalogServer]
) -> None:
    fleet = table.fleet
    await listed(fleet, "resources/list", "resources")
    await listed(fleet, "resources/templates/list", "resourceTemplates")
    linked = [
        {"type": "resource_link", "uri": "r://shared", "name": "n"},
        {"type": "resource", "resource": {"uri": "r://shared", "text": "r://shared"}},
        {"type": "text", "text": '"resource" r://shared'},
    ]
    content = (await adapted(fleet, "crm__find", {"content": linked, "isError": False}))["content"]
    assert content[0] == {**linked[0], "uri": "mcp-manager:crm/r://shared"}
    assert content[1] == {"type": "resource", "resource": {"uri": "mcp-manager:crm/r://shared", "text": "r://shared"}}
    assert content[2] == linked[2]
    assert (await adapted(fleet, "wiki__find", {"content": linked}))["content"] == linked
    # One that a template of another server matches, and one that nobody knows yet.
    links = [{"type": "resource_link", "uri": uri, "name": "n"} for uri in ("crm://1", "r://new")]
    seen = (await adapted(fleet, "wiki__find", {"content": links}))["content"]
    assert [each["uri"] for each in seen] == ["mcp-manager:wiki/crm://1", "r://new"]
    assert (await routed(fleet, "resources/read", uri="r://new"))[0] == "wiki"
    again = (await adapted(fleet, "crm__find", {"content": links}))["content"]
    assert [each["uri"] for each in again] == ["crm://1", "mcp-manager:crm/r://new"]


async def test_links_lead_to_their_server_before_anybody_has_listed_resources(table: EndpointTable) -> None:
    for server, uri in (("crm", "r://shared"), ("wiki", "crm://1")):
        link = {"type": "resource_link", "uri": uri, "name": "n"}
        told = (await adapted(table.fleet, f"{server}__find", {"content": [link]}))["content"][0]
        assert await routed(table.fleet, "resources/read", uri=told["uri"]) == (server, {"uri": uri})


async def test_a_server_that_comes_late_is_told(table: EndpointTable) -> None:
    told = asyncio.Event()
    listening = table._news.listen(table.fleet, lambda method, params: told.set(), frozenset(LIST_CHANGES))
    with CatalogServer({"tools": [tool("x")]}) as late:
        late.refuse_connections()
        with contextlib.suppress(McpManagerError):
            await table._manager.deploy("late", {"url": late.url, **SWIFT})
        page = json.loads(await table.fleet.own_result(request("tools/list"), ANA) or b"")
        assert list(page["_meta"][MISSING_KEY]) == ["late"]
        told.clear()
        late.listen()
        await told.wait()
        assert "late__x" in await names(table.fleet)
    listening.close()


async def test_a_view_that_changes_is_another_one_for_all_who_have_it(table: EndpointTable) -> None:
    view = table.views["support"]
    assert await names(view) == ["find"]
    told: list[str] = []
    came = asyncio.Event()

    def deliver(method: str, params: bytes) -> None:
        told.append(method)
        came.set()

    listening = table._news.listen(view, deliver, frozenset(LIST_CHANGES))
    table.replace_views({"support": ViewConfig(servers=("wiki",))})
    assert await names(view) == ["wiki__edit", "wiki__find"]
    with pytest.raises(RpcError):
        await view.route(request("tools/call", name="find"), ANA)
    await came.wait()
    table.replace_views({})
    assert table.find("/mcp/support") is None
    assert await names(view) == []
    with pytest.raises(RpcError):
        await view.route(request("tools/call", name="wiki__find"), ANA)
    # Whoever still has a view that was removed sees it again when it is back.
    table.replace_views({"support": ViewConfig(servers=("crm",))})
    assert table.find("/mcp/support") is view
    assert "crm__find" in await names(view)
    listening.close()


async def test_methods_of_extensions_go_to_the_server_that_declares_them(table: EndpointTable) -> None:
    declared = {"tools": {}, "resources": {}, "extensions": {"io.modelcontextprotocol/skills": {}}, "tasks": {}}
    with CatalogServer({"tools": [], "resources": [{"uri": "s://1", "name": "s"}]}, capabilities=declared) as skilled:
        await table._manager.deploy("skilled", {"url": skilled.url, **CALM})
        assert await routed(table.fleet, "skills/list") == ("skilled", {})
        assert await routed(table.fleet, "skills/get", uri="s://1") == ("skilled", {"uri": "s://1"})
        for method, params in (("talents/list", {}), ("ping", {}), ("tasks/get", {}), ("skills/get", {"uri": "t://1"})):
            with pytest.raises(RpcError):
                await table.fleet.route(request(method, **params), ANA)
        assert await routed(table.fleet, "tasks/list") == ("skilled", {})
        await table._manager.deploy("again", {"url": skilled.url, **CALM})
        with pytest.raises(RpcError, match="Method not found"):
            await table.fleet.route(request("tasks/list"), ANA)
        with pytest.raises(RpcError, match="Task not found"):
            await table.fleet.route(request("tasks/get", taskId="1"), ANA)
        with pytest.raises(RpcError, match="Method not found"):
            await table.fleet.route(request("skills/list"), ANA)


async def test_a_task_belongs_to_the_server_that_made_it_for_the_client(table: EndpointTable) -> None:
    declared: dict[str, Any] = {"tools": {}, "tasks": {"list": {}, "requests": {"tools": {"call": {}}}}}
    with CatalogServer({"tools": [tool("job")]}, capabilities=declared) as server:
        for name in ("one", "two"):
            await table._manager.deploy(name, {"url": server.url, **CALM})
        table.replace_views({"jobs": ViewConfig(tools=("*__job",))})
        view = table.views["jobs"]
        for endpoint in (table.fleet, view):
            assert "list" not in (await endpoint.describe(ANA)).capabilities["tasks"]
            # Servers may give the same ids, and to each client the same.
            for client, owner in ((ANA, "two"), (BEN, "one")):
                made = request("tools/call", name=f"{owner}__job", task={})
                route = await endpoint.route(made, client)
                assert route.adapt is not None
                created = b'{"jsonrpc":"2.0","id":7,"result":{"task":{"taskId":"1","status":"working"}}}'
                task = json.loads(route.adapt(created))["result"]["task"]
                assert task == {"taskId": task["taskId"], "status": "working"}
                # The id is the same whenever it is given, and leads to the server that has the task.
                assert json.loads(route.adapt(created))["result"]["task"] == task
                params = {"taskId": task["taskId"], "TaskID": "2"}
                assert await routed(endpoint, "tasks/result", **params) == (owner, {"taskId": "1"})
                other = view if endpoint is table.fleet else table.fleet
                with pytest.raises(RpcError, match="Task not found"):
                    await other.route(request("tasks/result", taskId=task["taskId"]), client)
            for params in ({"taskId": "1"}, {"taskId": "1", "uri": "r://crm"}):
                with pytest.raises(RpcError, match="Task not found"):
                    await endpoint.route(request("tasks/result", **params), ANA)
        with pytest.raises(RpcError, match="Method not found"):
            await view.route(request("tasks/list"), ANA)


async def test_links_in_tasks_lead_to_the_server_that_made_them(table: EndpointTable) -> None:
    await listed(table.fleet, "resources/list", "resources")
    ended = {
        "taskId": "1",
        "status": "completed",
        "result": {"content": [{"type": "resource_link", "uri": "r://shared", "name": "n"}]},
    }
    response = json.dumps({"jsonrpc": "2.0", "id": 7, "result": ended}).encode()
    told = json.loads(table.fleet.adapter("crm")(response))["result"]
    assert told["result"]["content"][0]["uri"] == "mcp-manager:crm/r://shared"
    assert told["status"] == "completed"
