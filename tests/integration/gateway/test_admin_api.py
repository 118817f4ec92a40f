"""The admin API over a real gateway: every act is seen to take effect, and what must not be is refused."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.admin_client import TOKEN, AdminClient
from support.tool_server import ToolServer, weather

from mcp_manager import ServerState
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.gateway import Gateway
from mcp_manager.gateway.admin.openapi import OPERATIONS
from mcp_manager.gateway.security.api_keys import made_key
from mcp_manager.gateway.security.keys_file import write_keys
from mcp_manager.gateway.service import Service

HOOKS = Path(__file__).parents[2] / "support" / "admin_cases.py"
SECRET = "a-secret-that-nobody-may-see"
ID = "a b/ü"
PATH = "/servers/a%20b%2F%C3%BC"


@pytest.fixture
def server() -> Any:
    with weather() as server:
        yield server


@asynccontextmanager
async def serving(server: ToolServer, **serve: Any) -> AsyncIterator[tuple[Gateway, AdminClient]]:
    servers = {"s": {"url": server.url, "headers": {"X-Key": SECRET}}}
    settings = {"listen": "127.0.0.1:0", "admin": {"token": TOKEN}, **serve}
    async with Gateway({"servers": servers}, serve=settings) as gateway, AdminClient(gateway.url) as admin:
        yield gateway, admin


async def test_acts_on_servers_take_effect(server: ToolServer, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with serving(server, audit={"path": str(log)}) as (gateway, admin), admin.events() as events:
        program = dict(stdio_server_config())
        made = await admin.ask("POST", "/servers?wait=ready", {"id": ID, "config": program})
        assert (made.status, made.headers["Location"]) == (201, f"/api/v1{PATH}")
        assert (made.body["state"], made.body["ready"]) == ("Healthy", 1)
        assert made.etag == f'"{made.body["revision"]}"'
        assert (await events.until("server_deployed", server_id=ID))["transport"] == "stdio"
        listed = await admin.get("/servers")
        assert ([each["id"] for each in listed["servers"]], listed["next"]) == ([ID, "s"], None)

        scaled = await admin.ask("POST", f"{PATH}/scale?wait=ready", {"instances": 2})
        assert (scaled.status, scaled.body["ready"]) == (200, 2)
        pids = set(gateway.manager.server(ID).pids)
        # The same configuration, and other programs.
        redeployed = await admin.ask("POST", f"{PATH}/redeploy?wait=ready", {"batch": 2})
        assert redeployed.status == 200
        assert redeployed.body["config"] == {**made.body["config"], "instances": 2}
        assert redeployed.body["ready"] == 2
        assert not pids & set(gateway.manager.server(ID).pids)

        suspended = await admin.ask("POST", f"{PATH}/suspend")
        assert suspended.status in (200, 202)
        assert gateway.manager.server(ID).desired == 0
        resumed = await admin.ask("POST", f"{PATH}/resume?wait=ready")
        assert (resumed.status, resumed.body["ready"]) == (200, 2)

        assert (await admin.ask("POST", f"{PATH}/drain")).status == 200
        assert gateway.manager.server_state(ID) is ServerState.MAINTENANCE
        await admin.ask("POST", f"{PATH}/resume")
        assert gateway.manager.server_state(ID) is ServerState.HEALTHY
        assert (await admin.ask("DELETE", PATH)).status == 204
        assert [view.id for view in gateway.manager.servers()] == ["s"]
        await events.until("server_undeployed", server_id=ID)
        assert (await admin.ask("DELETE", PATH)).status == 404
        denied = await admin.ask("POST", "/servers", {}, Authorization="Bearer no")
        assert denied.status == 401
        await gateway.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    acts = [(line["method"], line.get("server"), line["outcome"], line.get("code")) for line in lines]
    assert acts[0] == ("POST /api/v1/servers?wait=ready", ID, "ok", 201)
    assert ("DELETE /api/v1" + PATH, ID, "error", 404) in acts
    assert all(line["principal"] == "admin" and line["endpoint"] == "admin" for line in lines[:-1])
    assert (lines[-1]["outcome"], lines[-1]["reason"]) == ("refused", "authentication")
    # What only reads has no line.
    assert len(acts) == 10


async def test_servers_are_listed_page_by_page(server: ToolServer) -> None:
    async with serving(server) as (gateway, admin):
        place = {"url": server.url, "connect": "lazy"}
        await gateway.manager.apply({name: place for name in ("d", "a", "c", "b", ID, "e")})
        first = await admin.get("/servers?limit=2")
        assert [each["id"] for each in first["servers"]] == ["a", ID]
        # Neither the end of the server at which a page ended nor what comes before it changes the rest.
        await gateway.manager.undeploy(ID)
        await gateway.manager.undeploy("c")
        for name in ("0", "bb"):
            await gateway.manager.deploy(name, place)
        second = await admin.get(f"/servers?limit=3&cursor={first['next']}")
        assert [each["id"] for each in second["servers"]] == ["b", "bb", "d"]
        last = await admin.get(f"/servers?cursor={second['next']}")
        assert ([each["id"] for each in last["servers"]], last["next"]) == (["e"], None)
        alone = await admin.ask("GET", "/servers/e")
        assert last["servers"][0] == {name: value for name, value in alone.body.items() if name != "config"}
        for name in ("a", "0"):
            await gateway.manager.undeploy(name)


async def test_an_act_goes_on_if_its_client_goes(server: ToolServer) -> None:
    async with serving(server) as (gateway, admin), admin.events() as events:
        place = {"url": "http://127.0.0.1:1/mcp"}
        asked = asyncio.ensure_future(admin.ask("POST", "/servers?wait=ready", {"id": "n", "config": place}))
        await events.until("server_deployed", server_id="n")
        asked.cancel()
        # It is answered in turn, so that the other one has ended.
        assert (await admin.ask("GET", "/servers/n")).body["desired"] == 1
        assert (await admin.ask("DELETE", "/servers/n")).status == 204
        await admin.ask("POST", "/servers?wait=ready", {"id": "p", "config": dict(stdio_server_config())})
        call = asyncio.ensure_future(gateway.manager.call_tool("p", "sleep", {"seconds": 0.5}))
        while not gateway.manager.snapshot().servers[1].inflight:
            await asyncio.sleep(0.01)
        asked = asyncio.ensure_future(admin.ask("DELETE", "/servers/p?drain_timeout_s=20"))
        await events.until("server_state_changed", server_id="p", state="Maintenance")
        asked.cancel()
        # The call was not cut short, and the server is removed after it.
        assert not (await call).is_error
        await events.until("server_undeployed", server_id="p")


async def test_configurations_of_servers_change_in_place_or_not_at_all(server: ToolServer) -> None:
    async with serving(server) as (gateway, admin):
        before = await admin.ask("GET", "/servers/s")
        assert before.body["config"]["headers"] == {"X-Key": "***"}
        session = gateway.manager.snapshot().servers[0].instances[0].generation
        config = {**before.body["config"], "priority": 3}
        changed = await admin.ask("PUT", "/servers/s", config, If_Match=before.etag)
        assert (changed.status, changed.body["priority"]) == (200, 3)
        # The mask stands for the secret, and the session has gone on.
        assert gateway.manager.server_config("s").headers == {"X-Key": SECRET}
        assert gateway.manager.snapshot().servers[0].instances[0].generation == session
        late = await admin.ask("PUT", "/servers/s", config, If_Match=before.etag)
        assert (late.status, late.body["field"]) == (412, "If-Match")
        assert (await admin.ask("GET", "/servers/s", If_None_Match=changed.etag)).status == 304
        assert (await admin.ask("PATCH", "/servers/s", {}, If_Match="nonsense")).status == 400

        patched = await admin.ask(
            "PATCH", "/servers/s", {"priority": None, "tags": ["web"], "headers": {"X-More": "1"}}
        )
        assert (patched.status, patched.body["priority"], patched.body["tags"]) == (200, 0, ["web"])
        assert gateway.manager.server_config("s").headers == {"X-Key": SECRET, "X-More": "1"}
        # Of two that have read the same revision, one is told.
        race = [admin.ask("PATCH", "/servers/s", {"priority": n}, If_Match=patched.etag) for n in (1, 2)]
        assert sorted(answer.status for answer in await asyncio.gather(*race)) == [200, 412]

        kept = gateway.manager.server_config("s")
        broken = await admin.ask("PATCH", "/servers/s", {"url": "http://127.0.0.1:1/mcp"})
        assert (broken.status, broken.body["type"]) == (409, "urn:mcp-manager:problem:rollout")
        assert gateway.manager.server_config("s") == kept
        assert SECRET not in str([before, changed, late, patched, broken])


async def test_what_cannot_be_served_is_refused_with_a_problem(server: ToolServer) -> None:
    async with serving(server, max_request_bytes=2_000) as (gateway, admin):
        place = {"url": server.url}
        cases: list[tuple[str, str, Any, dict[str, str], int, str]] = [
            ("POST", "/servers", {"id": "s", "config": place}, {}, 409, ""),
            ("POST", "/servers", {"id": "n", "config": {"url": "x"}}, {}, 422, "config.url"),
            ("POST", "/servers", {"id": "n", "config": {"url": server.url, "prioriti": 1}}, {}, 422, "config.prioriti"),
            ("POST", "/servers", {"id": "n", "config": {"command": "x", "args": ["***"]}}, {}, 422, "config.args[0]"),
            ("POST", "/servers", {"id": "n", "config": {"disabled": True, **place}}, {}, 422, "disabled"),
            ("POST", "/servers", {"id": "n"}, {}, 422, "config"),
            ("POST", "/servers", {"id": "n", "config": place, "extra": 1}, {}, 422, "extra"),
            ("POST", "/servers", b"{", {"Content_Type": "application/json"}, 400, ""),
            ("POST", "/servers", b"[]", {"Content_Type": "application/json"}, 400, ""),
            ("POST", "/servers", b"{}", {"Content_Type": "text/plain"}, 415, ""),
            ("POST", "/servers", {"id": "n", "config": {"command": "x" * 3_000}}, {}, 413, ""),
            ("POST", "/servers/s/scale", {"instances": 100_000}, {}, 422, "instances"),
            ("POST", "/servers/s/scale", {"instances": "2"}, {}, 422, "instances"),
            ("POST", "/servers/s/redeploy", {"strategy": "fast"}, {}, 422, "strategy"),
            ("POST", "/servers/none/drain", None, {}, 404, ""),
            ("PUT", "/servers/none", place, {}, 404, ""),
            ("GET", "/servers?stat=x", None, {}, 400, "stat"),
            ("GET", "/servers?limit=0", None, {}, 400, "limit"),
            ("GET", "/servers?limit=1001", None, {}, 400, "limit"),
            ("GET", "/servers?cursor=", None, {}, 400, "cursor"),
            ("GET", "/servers?cursor=cw&cursor=cw", None, {}, 400, "cursor"),
            ("GET", f"/servers?cursor={'c' * 1_367}", None, {}, 400, "cursor"),
            ("POST", "/servers/s/scale?wait=never", {"instances": 1}, {}, 400, "wait"),
            ("GET", "/servers/s/flights?limit=0", None, {}, 400, "limit"),
            ("GET", "/servers/s/stderr", None, {}, 422, ""),
            ("PUT", "/config?dryrun=true", {"servers": {}}, {}, 400, "dryrun"),
            ("PUT", "/config", {"serve": {}}, {}, 422, "servers"),
            ("PUT", "/config", {"servers": {}, "serv": {}}, {}, 422, "serv"),
            ("PUT", "/config", {"servers": {}}, {"If_Match": '"old"'}, 412, "If-Match"),
            ("PUT", "/config", {"servers": {}}, {"If_Match": "without quotes"}, 400, "If-Match"),
            ("POST", "/reload", None, {}, 409, ""),
            ("GET", "/none", None, {}, 404, ""),
            ("GET", "/snapshot", None, {"Host": "evil.example.com"}, 403, ""),
            ("GET", "/snapshot", None, {"Origin": "https://evil.example.com"}, 403, ""),
            ("GET", "/snapshot", None, {"Origin": "null"}, 403, ""),
            ("GET", "/snapshot", None, {"Authorization": "Bearer x"}, 401, ""),
            ("GET", "/snapshot", None, {"Authorization": f"Basic {TOKEN}"}, 401, ""),
            ("GET", "/events", None, {"Authorization": ""}, 401, ""),
        ]
        for method, path, body, fields, status, field in cases:
            answer = await admin.ask(method, path, body, **fields)
            assert answer.status == status, (method, path, answer)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.headers["Cache-Control"] == "no-store"
            assert (answer.body["status"], answer.body.get("field", "")) == (status, field), (method, path, answer)
            assert answer.body["type"] and answer.body["title"] and answer.body["detail"]
            assert ("WWW-Authenticate" in answer.headers) == (status == 401)
        told = [
            ("/servers/s/scale", {"instances": "2"}, "instances: expected an integer, got a string", ""),
            ("/servers/s/redeploy", {"strategy": "fast"}, "strategy: is not one of blue_green, canary, rolling", ""),
            (
                "/servers",
                {"id": "n", "config": place, "extra": 1},
                "Unknown field 'extra'",
                "the fields are id, config",
            ),
            ("/servers", {"id": "n"}, "config is missing", "the fields are id, config"),
            ("/servers", b"", "The body is empty", ""),
        ]
        for path, body, detail, hint in told:
            answer = await admin.ask("POST", path, body, Content_Type="application/json")
            assert (answer.body["detail"], answer.body.get("hint", "")) == (detail, hint)
        wrong = await admin.ask("PATCH", "/servers")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET,HEAD,POST")
        assert (await admin.ask("HEAD", "/servers/s")).status == 200
        own = await admin.ask("GET", "/views", Origin=gateway.url)
        assert own.status == 200
        assert "Access-Control-Allow-Origin" not in own.headers
        assert [view.id for view in gateway.manager.servers()] == ["s"]


async def test_readers_of_events_resume_and_slow_ones_are_given_up(server: ToolServer) -> None:
    async with serving(server) as (gateway, admin):
        async with admin.events() as events:
            first = await events.block()
            assert set(first) == {"retry", "id"}
            await gateway.manager.scale("s", 2)
            await events.until("server_scaled", instances=2)
            seen = events.last_id
        await gateway.manager.scale("s", 1)
        async with admin.events(seen) as events:
            # Nothing is told twice, and nothing is left out.
            assert (await events.until("server_scaled"))["instances"] == 1
        async with admin.events("00000000-7") as events:
            assert (await events.until("missed"))["count"] is None
        api: Any = gateway.admin
        async with admin.events() as events:
            await events.block()
            for _ in range(6):
                api._events.take("big", json.dumps("x" * 2_000_000).encode())
            with pytest.raises((aiohttp.ClientError, EOFError)):
                while True:
                    # It reads no faster than this.
                    await events.until("big")
                    api._events.take("big", json.dumps("x" * 4_000_000).encode())
        async with admin.events() as events:
            await events.block()
            await gateway.drain(0)
            with pytest.raises(EOFError):
                await events.until("big")


async def test_the_configuration_is_shown_and_replaced(server: ToolServer, tmp_path: Path) -> None:
    file = tmp_path / "fleet.json"
    serve = {"listen": "127.0.0.1:0", "admin": {"token": TOKEN}, "session_keys": [SECRET * 2]}
    held = {"servers": {"s": {"url": server.url, "auth": {"type": "bearer", "token": SECRET}}}, "serve": serve}
    file.write_text(json.dumps(held))
    gateway = Gateway.from_file(file)
    service = Service(gateway, str(file), gateway.serve)
    serving = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(service.run(lambda: serving.set_result(None)))
    await serving
    try:
        async with AdminClient(gateway.url) as admin:
            shown = await admin.ask("GET", "/config")
            assert SECRET not in str(shown)
            assert TOKEN not in str(shown)
            assert (shown.body["path"], shown.body["problem"]) == (str(file), None)
            wanted = {**shown.body, "views": {"v": {"servers": ["s"]}}}
            wanted["servers"]["n"] = {"url": server.url, "connect": "lazy"}
            wanted["serve"] = {**wanted["serve"], "min_ready": 2, "workers": 3}
            plan = (await admin.ask("PUT", "/config?dry_run=true", wanted)).body
            assert (plan["deployed"], plan["unchanged"]) == (["n"], 1)
            assert (plan["followed"], plan["restart"]) == (["min_ready", "views"], ["workers"])
            assert len(gateway.manager.servers()) == 1
            done = await admin.ask("PUT", "/config", wanted, If_Match=shown.etag)
            assert (done.status, done.body["deployed"]) == (200, ["n"])
            assert gateway.serve.min_ready == 2
            assert gateway.serve.session_keys == (SECRET * 2,)
            assert gateway.manager.server_config("s").auth.token == SECRET
            assert (await admin.get("/views"))["views"] == {"v": {"servers": ["s"]}}

            held["servers"] = {"other": {"url": server.url}}
            file.write_text(json.dumps(held))
            assert (await admin.ask("POST", "/reload")).body == {"problem": None}
            assert [view.id for view in gateway.manager.servers()] == ["other"]
            file.write_text("{")
            failed = await admin.ask("POST", "/reload")
            assert failed.status == 422
            assert failed.body["detail"] == (await admin.get("/config"))["problem"]
            shown = (await admin.get("/snapshot"))["gateway"]
            assert (shown["config_path"], shown["config_problem"]) == (str(file), failed.body["detail"])
    finally:
        service.end()
        await running


async def test_details_of_servers(server: ToolServer) -> None:
    async with serving(server) as (gateway, admin):
        await gateway.manager.call_tool("s", "forecast", {"city": "Rome"})
        tools = {tool["name"]: tool for tool in (await admin.get("/servers/s/tools"))["tools"]}
        assert set(tools) == {"forecast", "radar", "fail"}
        assert tools["forecast"]["input_schema"]["required"] == ["city"]
        assert tools["forecast"]["pin"] == "off"
        flights = (await admin.get("/servers/s/flights?limit=2"))["flights"]
        assert [flight["method"] for flight in flights] == ["tools/list", "tools/call"]
        snapshot = await admin.get("/snapshot")
        assert snapshot["gateway"]["url"] == gateway.url
        assert snapshot["gateway"]["ready"] is True
        (shown,), (whole,) = snapshot["servers"], gateway.manager.snapshot().servers
        assert (shown["id"], shown["instances"][0]["where"]) == ("s", whole.instances[0].where)


async def test_at_an_address_of_its_own(server: ToolServer) -> None:
    admin_config = {"token": TOKEN, "listen": "127.0.0.1:0"}
    async with serving(server, admin=admin_config, min_ready=2) as (gateway, admin):
        assert gateway.admin is not None
        async with AdminClient(gateway.admin.url) as own, aiohttp.ClientSession() as http:
            assert (await own.ask("GET", "/servers/s")).status == 200
            assert (await admin.ask("GET", "/servers/s")).status == 404

            async def page(path: str, base: str = gateway.admin.url, **fields: str) -> tuple[int, str]:
                async with http.get(base + path, headers=fields) as response:
                    return response.status, await response.text()

            assert (await page("/health"))[0] == 200
            assert (await page("/ready")) == (200, '{"ready": true}')
            await gateway.manager.set_maintenance("s", True)
            status, text = await page("/ready")
            assert (status, "s: Maintenance" in text) == (503, True)
            assert "mcp_server_state" in (await page("/metrics", Host="10.0.0.1:9090"))[1]
            assert (await page("/metrics", Host="evil.example.com"))[0] == 403
            assert (await page("/mcp"))[0] == 404
            assert (await page("/ui"))[0] == 200
            assert (await page("/ui", base=gateway.url))[0] == 404
            await gateway.drain(0)
            assert (await page("/ready")) == (503, '{"ready": false, "reasons": ["the gateway is shutting down"]}')


async def test_files_of_the_page_need_no_credentials(server: ToolServer) -> None:
    async with serving(server) as (gateway, _), aiohttp.ClientSession(gateway.url) as http:
        async with http.get("/ui") as response:
            assert (response.status, response.content_type) == (200, "text/html")
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
            assert response.headers["Cache-Control"] == "no-cache"
            etag = response.headers["ETag"]
        async with http.get("/ui", headers={"If-None-Match": etag}) as response:
            assert response.status == 304
        async with http.get("/ui/", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (308, "/ui")
        for path in ("/ui/none.js", "/ui/../admin.py", "/ui/%2e%2e/admin.py", "/ui/.hidden"):
            async with http.get(path) as response:
                assert response.status == 404, path
        async with http.get("/ui", headers={"Host": "evil.example.com"}) as response:
            assert response.status == 403


async def test_operators_are_admitted_without_a_token(server: ToolServer, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    (boss, first), (guest, second) = made_key("boss"), made_key("guest")
    write_keys(str(keys), [first, second])
    auth = {"type": "api_key", "keys_file": str(keys), "operators": ["boss"]}
    async with serving(server, admin={"ui": False}, auth=auth) as (gateway, _):
        statuses = []
        for key in (boss, guest, TOKEN, None):
            async with AdminClient(gateway.url, key) as admin:
                statuses.append((await admin.ask("GET", "/servers")).status)
        assert statuses == [200, 403, 401, 401]
        async with AdminClient(gateway.url, boss) as admin, admin.events() as events:
            await events.block()
            await gateway.replace_serve(
                {**gateway.serve.to_dict(reveal_secrets=True), "auth": {**auth, "operators": ["b*"]}}
            )
            with pytest.raises(EOFError):
                await events.until("none")


def test_every_route_is_described() -> None:
    described = {(each.method.upper(), each.path) for each in OPERATIONS}
    made: Any = Gateway({"servers": {}}, serve={"admin": {"token": TOKEN}}).admin
    routes = {(route.method, route.path) for route in made.routes()}
    assert routes == described


async def test_the_description_holds_for_requests_that_are_made_up(server: ToolServer, tmp_path: Path) -> None:
    servers = {"fleet": {"url": server.url}}
    serve = {"listen": "127.0.0.1:0", "admin": {"token": TOKEN}}
    async with Gateway({"servers": servers}, serve=serve) as gateway:
        checks = (
            "status_code_conformance,content_type_conformance,response_headers_conformance,"
            "response_schema_conformance,unsupported_method,allow_header_conformance,ignored_auth"
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/api/v1/openapi.json"),
            *("-H", f"Authorization: Bearer {TOKEN}", "--exclude-path", "/events", "--checks", checks),
            *("--phases", "fuzzing", "--max-examples", "4", "--generation-deterministic", "--warnings", "off"),
            *("--request-timeout", "10", "--no-color"),
            env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "ADMIN_CASES_URL": server.url},
            # It keeps what it finds in the working directory.
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()[-8_000:]
        assert b"19 passed" in output
