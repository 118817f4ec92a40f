"""The admin API of several workers: it is one, whichever of them a request comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from support.admin_client import TOKEN, AdminClient
from support.tool_server import ToolServer, weather
from support.worker_gateways import WorkerGateways

from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.gateway.workers.ownership import owner_of

OWNERS = {owner_of(f"s{number}", 2): f"s{number}" for number in range(8)}
"""For each of two workers, the id of a server that it administers."""


@pytest.fixture
def server() -> Any:
    with weather() as server:
        yield server


@pytest.fixture
async def admins(server: ToolServer) -> AsyncIterator[tuple[WorkerGateways, list[AdminClient]]]:
    config = {"servers": {"web": {"url": server.url}, OWNERS[0]: stdio_server_config()}}
    async with WorkerGateways.running(config, admin={"token": TOKEN}) as workers, AsyncExitStack() as stack:
        yield workers, [await stack.enter_async_context(AdminClient(url)) for url in workers.urls]


async def test_acts_reach_all_workers_whichever_is_asked(
    admins: tuple[WorkerGateways, list[AdminClient]], server: ToolServer
) -> None:
    workers, (first, second) = admins
    managers = [gateway.manager for gateway in workers.gateways]
    program = OWNERS[1]
    async with first.events() as events:
        await events.block()
        # The first one is asked, and the other one runs it.
        made = await first.ask("POST", "/servers?wait=ready", {"id": program, "config": stdio_server_config()})
        assert (made.status, made.body["transport"]) == (201, "stdio")
        await events.until("server_deployed", server_id=program)
        assert [manager.server(program).transport for manager in managers] == ["http", "stdio"]
        shown = [await admin.ask("GET", f"/servers/{program}") for admin in (first, second)]
        assert shown[0].body == shown[1].body
        assert shown[0].etag == made.etag
        for admin in (first, second):
            listed = {each["id"]: each for each in (await admin.get("/servers"))["servers"]}
            assert {each["transport"] for name, each in listed.items() if name != "web"} == {"stdio"}
            pages = [await admin.get("/servers?limit=1")]
            for _ in range(2):
                pages.append(await admin.get(f"/servers?limit=1&cursor={pages[-1]['next']}"))
            # On each page, a server is shown as the worker sees it that administers it.
            assert [page["servers"] for page in pages] == [[listed[name]] for name in sorted(listed)]
            snapshot = {each["id"]: each for each in (await admin.get("/snapshot"))["servers"]}
            assert all(snapshot[name]["instances"][0]["pid"] for name in OWNERS.values())

        patched = await second.ask("PATCH", "/servers/web", {"priority": 3}, If_Match='"old"')
        assert patched.status == 412
        patched = await second.ask("PATCH", "/servers/web", {"priority": 3})
        assert patched.status == 200
        assert "Workers-Missed" not in patched.headers
        assert [manager.server("web").priority for manager in managers] == [3, 3]
        assert (await first.ask("POST", "/servers/web/drain")).status == 200
        assert [manager.server_state("web").value for manager in managers] == ["Maintenance"] * 2
        await second.ask("POST", "/servers/web/resume?wait=ready")
        assert [manager.server_state("web").value for manager in managers] == ["Healthy"] * 2

        assert (await first.ask("DELETE", f"/servers/{program}")).status == 204
        await events.until("server_undeployed", server_id=program)
        assert [len(manager.servers()) for manager in managers] == [2, 2]

    config = (await second.ask("GET", "/config")).body
    assert set(config["servers"]) == {"web", OWNERS[0]}
    wanted = {"servers": {"web": config["servers"]["web"]}, "views": {"v": {"servers": ["web"]}}}
    replaced = await second.ask("PUT", "/config", wanted)
    assert (replaced.status, replaced.body["undeployed"]) == (200, [OWNERS[0]])
    for gateway in workers.gateways:
        assert [view.id for view in gateway.manager.servers()] == ["web"]
        assert set(gateway.views) == {"v"}
    # Nobody else passes for a worker.
    for path in ("/siblings/admin/state", "/siblings/admin/servers"):
        async with first._http.get(path, headers={"mcp-manager-sibling": "x"}) as response:
            assert response.status == 404


async def test_a_worker_that_is_started_again_takes_over_what_was_changed(
    admins: tuple[WorkerGateways, list[AdminClient]], server: ToolServer
) -> None:
    workers, (_, second) = admins
    place = {"url": server.url}
    assert (await second.ask("POST", "/servers", {"id": OWNERS[1], "config": place})).status == 201
    assert (await second.ask("DELETE", f"/servers/{OWNERS[0]}")).status == 204
    assert (await second.ask("POST", "/servers/web/drain")).status == 200
    async with asyncio.timeout(20), second.events() as others:
        await others.block()
        await workers.restart(0)
        # What the new one told before it was followed again is not known.
        assert (await others.until("missed"))["count"] is None
        manager = workers.gateways[0].manager
        while {view.id: view.state.value for view in manager.servers()} != {"web": "Maintenance", OWNERS[1]: "Healthy"}:
            await asyncio.sleep(0.01)
        async with AdminClient(workers.urls[0]) as first, first.events() as events:
            await events.block()
            for admin in (first, second):
                assert {each["id"] for each in (await admin.get("/servers"))["servers"]} == {"web", OWNERS[1]}
            assert (await first.ask("POST", f"/servers/{OWNERS[1]}/scale", {"instances": 2})).status == 200
            await events.until("server_scaled", server_id=OWNERS[1], instances=2)
            assert [gateway.manager.server(OWNERS[1]).desired for gateway in workers.gateways] == [2, 2]
            assert (await first.ask("POST", "/servers/web/resume")).status == 200
            await others.until("server_state_changed", server_id="web", state="Healthy")


async def test_the_file_counts_again_once_it_is_read(
    admins: tuple[WorkerGateways, list[AdminClient]], server: ToolServer
) -> None:
    workers, (first, second) = admins
    problems = iter([None, None, None, "a mistake"])

    def reading(gateway: Any) -> Any:
        async def reload() -> str | None:
            await gateway.apply({"other": {"url": server.url}})
            return next(problems)

        return reload

    for gateway in workers.gateways:
        # As the service of each worker does.
        assert gateway.admin is not None
        gateway.admin.read_by(str(Path("fleet.toml")), reading(gateway))
    assert (await second.ask("POST", "/reload")).body == {"problem": None}
    for admin in (first, second):
        assert set((await admin.get("/config"))["servers"]) == {"other"}
        assert [each["id"] for each in (await admin.get("/servers"))["servers"]] == ["other"]
    failed = await first.ask("POST", "/reload")
    assert (failed.status, failed.body["detail"]) == (422, "workers 1 did not apply it")
    # Whichever is asked shows what any of them could not apply.
    for admin in (first, second):
        assert (await admin.get("/snapshot"))["gateway"]["config_problem"] == failed.body["detail"]
