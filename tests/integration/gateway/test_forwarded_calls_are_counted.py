"""What calls that compiled code forwards use of limits, and what the audit log says of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.forwarding_site import Site, call, forwarding_site, text_of
from support.serve_changes import serve_with
from support.session_clients import MovedServer, SessionClient

from mcp_manager.gateway.security.limits import LIMIT_REACHED, Account
from mcp_manager.gateway.security.principal import Principal

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
FAILED = {"content": [{"type": "text", "text": "no"}], "isError": True}
FINE = {"content": [{"type": "text", "text": "yes"}], "isError": False, "structuredContent": {"isError": False}}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with forwarding_site(tmp_path) as site:
        yield site


async def lines_of(site: Site) -> list[dict[str, Any]]:
    """Return what the audit log says of calls."""
    audit = site.gateway._security.accounting.audit
    assert audit is not None
    await audit.flush()
    lines = [json.loads(line) for line in site.audit.read_text().splitlines()]
    return [each for each in lines if each["method"] == "tools/call"]


async def forwarded(site: Site, client: SessionClient, name: str, **arguments: Any) -> Any:
    """Return the reply to a call that compiled code forwards."""
    before = site.path.forwarded
    reply = await call(client, name, **arguments)
    assert site.path.forwarded == before + 1
    return reply


async def test_lines_say_how_each_call_ended(site: Site) -> None:
    anna = await site.client("anna")
    await site.forwarded(anna, "crm__find")
    known = len(await lines_of(site))
    for result in (FINE, FAILED, {**FINE, "structuredContent": {"isError": True}}, {**FINE, "x": {"error": 1}}):
        await forwarded(site, anna, "crm__find", result=result)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "crm__find"}}
    async with await anna.send(body, Traceparent=TRACEPARENT) as response:
        assert text_of(await response.json()) == "find"
    traced = {"name": "crm__find", "arguments": {}, "_meta": {"traceparent": TRACEPARENT}}
    assert text_of(await anna.request("tools/call", traced)) == "find"
    await forwarded(site, anna, "crm__find")
    first, *lines = (await lines_of(site))[known - 1 :]
    assert [each["outcome"] for each in lines] == ["ok", "tool_error", "ok", "ok", "ok", "ok", "ok"]
    assert [each.get("trace_id") for each in lines] == [None, None, None, None, TRACE, TRACE, None]
    numbers = {"time", "duration_ms", "bytes_in", "bytes_out", "outcome", "trace_id"}
    for each in lines:
        assert each["duration_ms"] > 0 and each["bytes_out"] > 0 and each["bytes_in"] > 0
        # Whichever code has written them, they differ in nothing else.
        assert {name: each[name] for name in each.keys() - numbers} == {
            name: first[name] for name in first.keys() - numbers
        }
    # A URI may have secrets in it, so that its line is made anew.
    accounting = site.gateway._security.accounting
    assert accounting.has_same_lines("find", None) and not accounting.has_same_lines("find", "https://x.example/?key=1")
    await site.gateway.replace_serve(serve_with(site.gateway, audit={"path": str(site.audit), "arguments": True}))
    await site.forwarded(anna, "crm__find")
    for city in ("Bern", "Basel"):
        await forwarded(site, anna, "crm__find", city=city)
    assert [each["arguments"] for each in (await lines_of(site))[-2:]] == [{"city": "Bern"}, {"city": "Basel"}]
    assert lines[0]["bytes_in"] > lines[6]["bytes_in"] and lines[0]["bytes_out"] > lines[6]["bytes_out"]


async def test_limits_that_are_changed_count_from_the_next_call(site: Site) -> None:
    anna, berta = await site.client("anna"), await site.client("berta")
    for client in (anna, berta):
        await site.forwarded(client, "crm__find")
    await site.gateway.replace_serve(
        serve_with(site.gateway, limits=[{"principals": ["anna"], "rate": 0.001, "burst": 2}])
    )
    for client in (anna, berta):
        assert text_of(await call(client, "crm__find")) == "find"
    await forwarded(site, anna, "crm__find")
    before = site.path.forwarded
    refused = (await call(anna, "crm__find"))["error"]
    assert (refused["code"], refused["data"]["delivery"]) == (LIMIT_REACHED, "not_sent")
    assert site.path.forwarded == before
    await forwarded(site, berta, "crm__find")
    assert [each.get("reason") for each in await lines_of(site)][-3:] == [None, "limit", None]
    # A line that another log would have to have is made anew, and one that is not wanted is not made.
    await site.gateway.replace_serve(serve_with(site.gateway, audit={}, limits=[]))
    await site.forwarded(anna, "crm__find")
    written = site.audit.stat().st_size
    await forwarded(site, anna, "crm__find")
    assert site.audit.stat().st_size == written


async def test_calls_count_in_the_account_that_their_principal_has_by_now(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {"claims": {"team": "blue"}, "max_concurrent": 1}
    await site.gateway.replace_serve(serve_with(site.gateway, limits=[limit]))
    limits = site.gateway._security.accounting.limits
    async with MovedServer().running() as moved:
        moved.replies_json = True
        await site.gateway.manager.deploy("moved", {"url": moved.url, "protocol_version": "2025-11-25"})
        await site.gateway.manager.wait_ready()
        anna = await SessionClient(site.http["anna"], f"{site.gateway.url}/servers/moved/mcp").begin()

        async def counted_once() -> Account:
            """Make a call that compiled code forwards; return the account that it counts in."""
            before = site.path.forwarded
            calling = asyncio.create_task(call(anna, "hold"))
            held = await moved.call("hold")
            accounts = [each for each in limits._newer.values() if each.running]
            held.reply()
            assert text_of(await calling) == "done" and site.path.forwarded == before + 1
            assert [each.running for each in accounts] == [0]
            return accounts[0]

        for _ in range(2):
            calling = asyncio.create_task(call(anna, "hold"))
            (await moved.call("hold")).reply()
            assert text_of(await calling) == "done"
        account = await counted_once()

        # Another token of the principal says more of it, so that another limit applies.
        limits.of(Principal(account.principal.name, claims={"team": "blue"}))
        assert await counted_once() is account
        account.counters[0].running = 1
        assert (await call(anna, "hold"))["error"]["code"] == LIMIT_REACHED
        account.counters[0].running = 0

        # So many others came that the account was forgotten.
        monkeypatch.setattr("mcp_manager.gateway.security.limits._MOST_ACCOUNTS", 2)
        for number in range(4):
            limits.of(Principal(f"other {number}"))
        assert account not in limits._newer.values()
        again = await counted_once()
        assert again is not account and again.principal.name == account.principal.name
        await site.gateway.manager.undeploy("moved")


@pytest.mark.parametrize("ending", ["answered", "cancelled", "gone on with"])
async def test_calls_under_way_are_counted_until_they_end(site: Site, ending: str) -> None:
    """One at a time: however it ends, the next one is admitted then, and not before."""
    await site.gateway.replace_serve(
        serve_with(site.gateway, limits=[{"principals": ["anna"], "tools": ["moved__*"], "max_concurrent": 1}])
    )
    async with MovedServer().running() as moved, aiohttp.ClientSession(headers=site.http["anna"].headers) as http:
        moved.replies_json = ending != "gone on with"
        await site.gateway.manager.deploy("moved", {"url": moved.url, "protocol_version": "2025-11-25"})
        await site.gateway.manager.wait_ready()
        anna = await SessionClient(site.http["anna"], f"{site.gateway.url}/servers/moved/mcp").begin()
        other = SessionClient(http, anna.url)
        other.session_id = anna.session_id
        for number in range(4):
            before = site.path.forwarded
            calling = asyncio.create_task(anna.post("tools/call", {"name": "hold"}, f"call {number}"))
            held = await moved.call("hold")
            assert (await other.request("tools/call", {"name": "hold"}))["error"]["code"] == LIMIT_REACHED
            if ending == "cancelled":
                assert (await other.notify("notifications/cancelled", {"requestId": f"call {number}"})).status == 202
            elif ending == "gone on with":
                held.send("notifications/message", {"level": "info", "data": "..."})
                held.reply()
            else:
                held.reply()
            await (await calling).read()
            anna.responses.clear()
        assert site.path.forwarded > before
        outcomes = [each["outcome"] for each in await lines_of(site) if each["name"] == "hold"]
        assert outcomes == ["refused", "cancelled" if ending == "cancelled" else "ok"] * 4
        await site.gateway.manager.undeploy("moved")
