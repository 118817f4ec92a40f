"""What principals may use through a gateway: every list, call, stream and error agrees with the rules."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.catalog_server import CatalogServer, tool
from support.gateway_pipes import stateless_meta
from support.serve_changes import serve_with
from support.session_clients import SessionClient

from mcp_manager.gateway import Gateway
from mcp_manager.gateway.security.api_keys import made_key
from mcp_manager.gateway.security.keys_file import write_keys

CRM = {
    "tools": [tool("find"), tool("remove")],
    "prompts": [{"name": "greet"}, {"name": "covert"}],
    "resources": [{"uri": "crm://public/a", "name": "a"}, {"uri": "crm://private/b", "name": "b"}],
    "resourceTemplates": [
        {"uriTemplate": "crm://public/{id}", "name": "t"},
        {"uriTemplate": "crm://private/{id}", "name": "u"},
    ],
}
WIKI = {
    "tools": [tool("edit"), tool("find")],
    "prompts": [{"name": "shy"}],
    "resources": [{"uri": "wiki://x", "name": "x"}],
}
RULES: list[dict[str, Any]] = [
    {"principals": ["boss"]},
    {
        "claims": {"groups": "support"},
        "servers": ["crm"],
        "tools": ["crm__f*"],
        "prompts": ["crm__greet"],
        "resources": ["crm://public/*"],
    },
    {"principals": ["editor"], "servers": ["wiki"], "methods": ["tools/*"]},
    {"principals": ["guest"], "views": ["both"], "tools": ["wiki__find"]},
]
HIDDEN_OF_CLERK = ("wiki", "remove", "covert", "://private", "Edit pages", "Find customers")


class Site:
    """A gateway before two servers, and its clients by principal."""

    def __init__(self, gateway: Gateway, http: dict[str, aiohttp.ClientSession], servers: dict[str, CatalogServer]):
        self.gateway = gateway
        self.http = http
        self.servers = servers

    async def client(self, principal: str, path: str = "/mcp") -> SessionClient:
        return await SessionClient(self.http[principal], f"{self.gateway.url}{path}").begin()

    async def stateless(self, principal: str, method: str, path: str = "/mcp", **params: Any) -> tuple[int, str]:
        """Send a request of 2026-07-28; return the status and the text of the response."""
        fields = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
        }
        name = params.get("name") or params.get("uri")
        if name is not None:
            fields["Mcp-Name"] = name
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": stateless_meta(), **params}}
        url = f"{self.gateway.url}{path}"
        async with self.http[principal].post(url, data=json.dumps(body), headers=fields) as response:
            return response.status, await response.text()

    async def status(self, principal: str, path: str) -> int:
        return (await self.stateless(principal, "tools/list", path))[0]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    groups = {"boss": "bosses", "clerk": "support", "editor": "x", "guest": "x", "nobody": "x"}
    keys = {name: made_key(name, claims={"groups": ("y", group)}) for name, group in groups.items()}
    path = tmp_path / "keys"
    write_keys(str(path), [kept for _, kept in keys.values()])
    with ExitStack() as stack:
        servers = {
            "crm": stack.enter_context(CatalogServer(CRM, instructions="Find customers.")),
            "wiki": stack.enter_context(CatalogServer(WIKI, instructions="Edit pages.")),
        }
        async with AsyncExitStack() as opened:
            config = {
                "servers": {
                    name: {"url": server.url, "protocol_version": "2025-11-25"} for name, server in servers.items()
                },
                "views": {
                    "both": {"names": "short"},
                    "found": {"discovery": "search", "hot": ["*__remove", "wiki__edit"]},
                    "pages": {"servers": ["wiki"], "instructions": "About wiki."},
                },
            }
            serve = {
                "listen": "127.0.0.1:0",
                "auth": {"type": "api_key", "keys_file": str(path)},
                "allow": RULES,
                "list_changed_delay_s": 0.01,
            }
            gateway = await opened.enter_async_context(Gateway(config, serve=serve))
            http = {
                name: await opened.enter_async_context(
                    aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})
                )
                for name, (key, _) in keys.items()
            }
            yield Site(gateway, http, servers)


async def names(client: SessionClient, method: str, member: str, key: str) -> list[str]:
    result = (await client.request(method))["result"]
    return [each[key] for each in result[member]]


async def test_lists_and_calls_agree_with_the_rules(site: Site) -> None:
    boss, clerk = await site.client("boss"), await site.client("clerk")
    assert await names(boss, "tools/list", "tools", "name") == ["crm__find", "crm__remove", "wiki__edit", "wiki__find"]
    assert await names(clerk, "tools/list", "tools", "name") == ["crm__find"]
    assert await names(clerk, "prompts/list", "prompts", "name") == ["crm__greet"]
    assert await names(clerk, "resources/list", "resources", "uri") == ["crm://public/a"]
    templates = await names(clerk, "resources/templates/list", "resourceTemplates", "uriTemplate")
    assert templates == ["crm://public/{id}"]
    for name, is_allowed in (("crm__find", True), ("crm__remove", False), ("wiki__edit", False), ("crm__none", False)):
        assert ("result" in await clerk.request("tools/call", {"name": name, "arguments": {}})) is is_allowed, name
        _, text = await site.stateless("clerk", "tools/call", name=name, arguments={})
        assert ("result" in json.loads(text)) is is_allowed, name
    uris = {
        "crm://public/a": True,
        "crm://public/other": True,
        "crm://private/b": False,
        "crm://private/other": False,
        "crm://public/../private/b": False,
        "crm://public/%2e%2e/private/b": False,
        "crm://public/%252e%252e/private/b": False,
        "mcp-manager:crm/crm://private/b": False,
        "mcp-manager:crm/crm://public/a": True,
        "mcp-manager:wiki/wiki://x": False,
        "wiki://x": False,
    }
    for uri, is_allowed in uris.items():
        assert ("result" in await clerk.request("resources/read", {"uri": uri})) is is_allowed, uri
        assert ("result" in await clerk.request("resources/subscribe", {"uri": uri})) is is_allowed, uri
    references: list[tuple[dict[str, str], bool]] = [
        ({"type": "ref/prompt", "name": "crm__greet"}, True),
        ({"type": "ref/prompt", "name": "crm__covert"}, False),
        ({"type": "ref/prompt", "name": "wiki__shy"}, False),
        ({"type": "ref/resource", "uri": "crm://public/{id}"}, True),
        ({"type": "ref/resource", "uri": "crm://private/{id}"}, False),
    ]
    for reference, is_allowed in references:
        params = {"ref": reference, "argument": {"name": "id", "value": ""}}
        assert ("result" in await clerk.request("completion/complete", params)) is is_allowed, reference


async def test_calls_with_a_name_in_other_letters_are_refused_on_every_path(site: Site) -> None:
    for path, name in (("/mcp", "wiki__find"), ("/servers/wiki/mcp", "find")):
        for _ in range(3):
            # From the second one on, compiled code forwards them.
            status, text = await site.stateless("boss", "tools/call", path, name=name, arguments={})
            assert status == 200 and "result" in json.loads(text), text
        status, text = await site.stateless("boss", "tools/call", path, name=name, Name="edit", arguments={})
        assert "in other letters" in json.loads(text)["error"]["message"]
    client = await site.client("boss", "/servers/wiki/mcp")
    for method, params in (
        ("tools/call", {"name": "find", "NAME": "edit"}),
        ("resources/read", {"uri": "a:b", "Uri": "c:d"}),
    ):
        assert "in other letters" in (await client.request(method, params))["error"]["message"]
    client.close()


async def test_nothing_of_what_is_hidden_is_in_any_answer(site: Site) -> None:
    clerk = await site.client("clerk")
    lists = ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "tasks/list", "skills/list")
    answers = [json.dumps(clerk.initialized), *[json.dumps(await clerk.request(method)) for method in lists]]
    for name in ("crm__remov", "crm__cover", "wik__edit", "wiki", "edit", "x"):
        answers.append(json.dumps(await clerk.request("tools/call", {"name": name, "arguments": {}})).replace(name, ""))
        answers.append(json.dumps(await clerk.request("prompts/get", {"name": name})).replace(name, ""))
    answers.append((await site.stateless("clerk", "server/discover"))[1])
    for answer in answers:
        assert not [text for text in HIDDEN_OF_CLERK if text in answer], answer
    # What a client asks for that is hidden is answered as what does not exist.
    for hidden, missing in (("crm__remove", "crm__nowhere"), ("wiki__edit", "none__edit")):
        both = [await clerk.request("tools/call", {"name": each}, 9) for each in (hidden, missing)]
        assert json.dumps(both[0]).replace(hidden, "") == json.dumps(both[1]).replace(missing, "")
    both = [await clerk.request("resources/read", {"uri": each}, 9) for each in ("crm://private/b", "crm://nowhere/b")]
    assert json.dumps(both[0]).replace("private", "nowhere") == json.dumps(both[1])


async def test_paths_are_there_for_those_who_may_see_something(site: Site) -> None:
    paths = ("/mcp", "/mcp/both", "/mcp/pages", "/mcp/none", "/servers/crm/mcp", "/servers/wiki/mcp")
    expected = {
        "boss": (200, 200, 200, 404, 200, 200),
        "clerk": (200, 200, 404, 404, 200, 404),
        "editor": (200, 200, 200, 404, 404, 200),
        "guest": (404, 200, 404, 404, 404, 404),
        "nobody": (404,) * 6,
    }
    for principal, statuses in expected.items():
        assert tuple([await site.status(principal, path) for path in paths]) == statuses, principal
    bodies = {(await site.stateless("nobody", "tools/list", path))[1] for path in paths}
    assert len(bodies) == 1
    # A short name says nothing of a hidden tool with the same one.
    assert await names(await site.client("guest", "/mcp/both"), "tools/list", "tools", "name") == ["find"]


async def test_a_search_finds_what_the_rules_allow(site: Site) -> None:
    boss, clerk = await site.client("boss", "/mcp/found"), await site.client("clerk", "/mcp/found")
    own = ["call_tool", "describe_tools", "search_tools"]
    listed = [*own, "crm__remove", "wiki__edit"]
    assert await names(boss, "tools/list", "tools", "name") == sorted(listed)
    assert await names(clerk, "tools/list", "tools", "name") == own
    told = [json.dumps(clerk.initialized)]

    async def asked(client: SessionClient, meta_tool: str, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = (await client.request("tools/call", {"name": meta_tool, "arguments": arguments}))[
            "result"
        ]
        return result

    for query in ("find remove edit crm wiki", "wiki", "remove", ""):
        for client, total in ((boss, 4), (clerk, 1)):
            found = await asked(client, "search_tools", query=query)
            assert found["structuredContent"]["total"] == total
        told.append(json.dumps(found))
    described = await asked(clerk, "describe_tools", names=["crm__remove", "wiki__find", "crm__find"])
    assert [each["name"] for each in described["structuredContent"]["tools"]] == ["crm__find"]
    assert [each["near"] for each in described["structuredContent"]["unknown"]] == [["crm__find"], ["crm__find"]]
    assert not any(hidden in text for text in told for hidden in HIDDEN_OF_CLERK)
    # A tool that is hidden and one that does not exist get the same answer.
    for hidden, missing in (("crm__remove", "crm__nobody"), ("wiki__edit", "none__edit")):
        both = [json.dumps(await asked(clerk, "call_tool", name=each, arguments={})) for each in (hidden, missing)]
        assert both[0].replace(hidden, "") == both[1].replace(missing, "") and '"isError": true' in both[0]
    assert "isError" not in await asked(boss, "call_tool", name="crm__remove", arguments={})
    assert "isError" not in await asked(clerk, "call_tool", name="crm__find", arguments={})


async def test_the_endpoint_of_a_server_shows_what_is_allowed_of_it(site: Site) -> None:
    clerk = await site.client("clerk", "/servers/crm/mcp")
    assert clerk.initialized["result"]["serverInfo"]["title"] == "A catalogue"
    assert "instructions" not in clerk.initialized["result"]
    assert await names(clerk, "tools/list", "tools", "name") == ["find"]
    assert "result" in await clerk.request("tools/call", {"name": "find"})
    both = [await clerk.request("tools/call", {"name": each}, 9) for each in ("remove", "nowhere")]
    assert json.dumps(both[0]).replace("remove", "nowhere") == json.dumps(both[1])
    assert "result" in await clerk.request("resources/read", {"uri": "crm://public/a"})
    assert "error" in await clerk.request("resources/read", {"uri": "crm://private/b"})
    editor = await site.client("editor", "/servers/wiki/mcp")
    assert set(editor.initialized["result"]["capabilities"]) == {"tools"}
    assert await names(editor, "tools/list", "tools", "name") == ["edit", "find"]
    assert await names(editor, "prompts/list", "prompts", "name") == []
    for method, params in (("prompts/get", {"name": "shy"}), ("logging/setLevel", {"level": "debug"})):
        assert "error" in await editor.request(method, params), method


async def test_other_rules_apply_at_once_and_sessions_go_on(site: Site) -> None:
    clerk, editor = await site.client("clerk"), await site.client("editor")
    assert "result" in await clerk.request("resources/subscribe", {"uri": "crm://public/a"})
    stream, other = await clerk.listen(), await editor.listen()
    assert "error" in await clerk.request("tools/call", {"name": "wiki__edit"})
    assert "result" in await editor.request("tools/call", {"name": "wiki__edit"})
    await site.gateway.replace_serve(
        serve_with(site.gateway, allow=[{"claims": {"groups": "support"}, "servers": ["wiki"]}])
    )
    changed = {f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources")}
    assert {(await stream.message())["method"] for _ in changed} == changed
    assert {(await other.message())["method"] for _ in changed} == changed
    assert "result" in await clerk.request("tools/call", {"name": "wiki__edit"})
    assert "error" in await clerk.request("tools/call", {"name": "crm__find"})
    assert (await editor.post("tools/call", {"name": "wiki__edit"})).status == 404
    await site.gateway.replace_serve(serve_with(site.gateway, allow=[]))
    assert {(await stream.message())["method"] for _ in changed} == changed
    assert {(await other.message())["method"] for _ in changed} == changed
    assert "result" in await editor.request("tools/call", {"name": "crm__remove"})
    for client in (clerk, editor):
        client.close()


async def test_a_cursor_is_for_those_who_may_use_as_much(site: Site) -> None:
    site.gateway._endpoints.replace_page_size(1)
    boss, editor = await site.client("boss"), await site.client("editor")
    pages = [(await each.request("tools/list"))["result"] for each in (boss, editor)]
    unknown = await editor.request("tools/list", {"cursor": "x"}, 9)
    assert unknown["error"]["code"] == -32602
    for client, page, foreign in ((boss, *pages), (editor, *reversed(pages))):
        assert await client.request("tools/list", {"cursor": foreign["nextCursor"]}, 9) == unknown
        following = (await client.request("tools/list", {"cursor": page["nextCursor"]}))["result"]["tools"]
        assert len(following) == 1 and following != page["tools"]
