"""Scrapes: fleets of any size, what is new in them, formats, filters, and the collector beside an application's metrics."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import Counter
from collections.abc import MutableMapping
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import StreamingResponse
from support.calls import CALM, SWIFT, echo, eventually, failure_of

from mcp_manager import CallError, InvalidRequestError, ManagerConfig, McpManager, MetricsCollector, PyMcpManager
from mcp_manager.calls import attempts
from mcp_manager.config import ServerConfig
from mcp_manager.observe.metric_families import STATE_NUMBERS
from mcp_manager.observe.scraping import Scraped
from mcp_manager.protocol import safety
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

Labels = frozenset[tuple[str, str]]


def samples(text: str) -> dict[tuple[str, Labels], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(manager: McpManager, name: str, **labels: str) -> float | None:
    return samples(manager.metrics_text()).get((name, frozenset(labels.items())))


def lazy(count: int) -> dict[str, ServerConfig]:
    return {f"lazy-{at}": ServerConfig(url="http://127.0.0.1:1/mcp", connect="lazy") for at in range(count)}


async def test_failed_tools_are_told_from_results_however_they_are_called() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SWIFT})
            failed = faults.Result({"content": [], "isError": True})
            server.script("tools/call", failed, times=4)
            assert (await manager.call_tool("a", "echo", {})).is_error
            await manager.execute_raw("a", echo("x"))
            await manager.execute_raw("a", echo("x"), key="k")
            await manager.request("a", "tools/call", {"name": "echo", "arguments": {}}, on_progress=print)
            await manager.execute_raw("a", echo("x"))
            await manager.request("a", "tools/list")
            for status, count in (("tool_error", 4.0), ("success", 1.0)):
                labels = {"server_id": "a", "status": status}
                assert value(manager, "mcp_requests_total", method="tools/call", **labels) == count
                assert value(manager, "mcp_tool_calls_total", tool="echo", **labels) == count
            assert value(manager, "mcp_tool_response_time_seconds_count", server_id="a", tool="echo") == 5
            assert value(manager, "mcp_error_rate", server_id="a") == 0
            assert manager.server_state("a") == "Healthy"
            records = Counter(each.status for each in manager.flight_records() if each.method == "tools/call")
            assert records == {"tool_error": 4, "success": 1}


async def test_made_up_methods_do_not_take_the_place_of_a_method_of_mcp() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SWIFT})
            for number in range(70):
                await manager.execute_raw("a", b'{"method":"made/up/%d"}' % number)
            await manager.execute_raw("a", echo("x"))
            await manager.execute_raw("a", b'{"method":"tools/list"}')
            for method in ("tools/call", "tools/list"):
                assert value(manager, "mcp_requests_total", server_id="a", method=method, status="success") == 1
            assert value(manager, "mcp_requests_total", server_id="a", method="other", status="rpc_error") == 6


async def test_servers_that_were_never_used_only_count() -> None:
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig(servers=lazy(50))) as manager:
            assert "server_id=" not in manager.metrics_text()
            assert value(manager, "mcp_servers", state="initializing") == 50
            await manager.deploy("used", {"url": server.url, "connect": "lazy", **CALM})
            assert "server_id=" not in manager.metrics_text()
            await manager.execute_raw("used", echo("x"))
            shown = {dict(labels).get("server_id") for _, labels in samples(manager.metrics_text())}
            assert shown == {None, "used"}
            await manager.scale("lazy-3", 0)
            await manager.set_maintenance("lazy-4", True)
            await manager.deploy("off", {"url": server.url, "connect": "lazy", "instances": 0})
            counted = {each.state for each in manager.snapshot().servers}
            assert counted == {"Initializing", "Healthy", "Stopped", "Maintenance"}
            by_state = Counter(each.state.lower() for each in manager.snapshot().servers)
            for state in STATE_NUMBERS:
                assert value(manager, "mcp_servers", state=state.lower()) == by_state[state.lower()]


async def test_states_waits_errors_and_renewals_are_shown() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            limits = {"max_concurrent": 1, "max_waiting": 5, "max_wait_s": 9.0}
            await manager.deploy("a", {"url": server.url, **CALM, "limits": limits, "retry": {"attempts": 2}})
            assert value(manager, "mcp_server_state", server_id="a") == 0
            assert value(manager, "mcp_queue_wait_seconds_count", server_id="a") is None
            hold = faults.Hold()
            server.script("tools/call", hold)
            calls = [asyncio.create_task(manager.execute_raw("a", echo("x"))) for _ in range(3)]
            await eventually(lambda: value(manager, "mcp_waiting_calls", server_id="a") == 2, "the queue")
            hold.release()
            await asyncio.gather(*calls)
            assert value(manager, "mcp_queue_wait_seconds_count", server_id="a") == 2
            assert value(manager, "mcp_queue_wait_seconds_bucket", server_id="a", le="+Inf") == 2
            assert (value(manager, "mcp_queue_wait_seconds_sum", server_id="a") or 0) > 0
            assert value(manager, "mcp_session_renewals_total", server_id="a") is None
            server.expire_sessions()
            await manager.execute_raw("a", echo("x"))
            assert value(manager, "mcp_session_renewals_total", server_id="a") == 1
            server.script("tools/call", faults.Status(500))
            error = await failure_of(manager, "a", echo("x"))
            labels = {"server_id": "a", "delivery": error.delivery, "error": type(error).__name__}
            assert value(manager, "mcp_call_errors_total", **labels) == 1
            await manager.set_maintenance("a", True)
            assert value(manager, "mcp_server_state", server_id="a") == 4
            with pytest.raises(CallError):
                await manager.execute_raw("a", echo("x"))
            refused = {"server_id": "a", "delivery": "not_sent", "error": "OverloadedError"}
            assert value(manager, "mcp_call_errors_total", **refused) == 1
            requests = value(manager, "mcp_requests_total", server_id="a", method="tools/call", status="no_instance")
            assert requests == value(manager, "mcp_tool_calls_total", server_id="a", tool="echo", status="no_instance")
            await manager.undeploy("a")
            assert 'server_id="a"' not in manager.metrics_text()


async def test_the_accept_header_chooses_the_format() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            await manager.execute_raw("a", echo("x"))
            assert (await manager.scrape(None)).content_type == (await manager.scrape()).content_type
            plain = await manager.scrape("*/*")
            assert plain.content_type.startswith("text/plain; version=0.0.4")
            assert {family.name for family in text_string_to_metric_families(plain.body.decode())} >= {"mcp_requests"}
            opened = await manager.scrape("application/openmetrics-text;version=1.0.0,text/plain;q=0.1")
            assert opened.content_type.startswith("application/openmetrics-text; version=1.0.0")
            families = {family.name: family for family in openmetrics_families(opened.body.decode())}
            created = [each for each in families["mcp_requests"].samples if each.name == "mcp_requests_created"]
            assert created[0].value == manager._servers["a"].record.created_s > 1.6e9
            assert families["mcp_build"].type == "info"
            with pytest.raises(InvalidRequestError, match="format must be 'text' or 'openmetrics'"):
                manager.metrics_text(format="json")  # type: ignore[arg-type]


async def test_scrapes_within_a_second_share_a_page_and_texts_are_fresh() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            pages = await asyncio.gather(*(manager.scrape() for _ in range(5)))
            await manager.execute_raw("a", echo("x"))
            assert all(each is pages[0] for each in (*pages, await manager.scrape("")))
            assert (await manager.scrape(families=["mcp_requests"])).body != pages[0].body
            assert 'method="tools/call"' in manager.metrics_text()
            manager._scrapes = None
            assert b'method="tools/call"' in (await manager.scrape()).body


async def test_only_some_servers_or_families_are_shown() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            for server_id in ("a", "b"):
                await manager.deploy(server_id, {"url": server.url, **CALM})
            text = manager.metrics_text(servers=["b", "gone"], families=["mcp_instances", "mcp_health_checks_total"])
            assert {(name, dict(labels)["server_id"]) for name, labels in samples(text)} == {
                ("mcp_instances", "b"),
                ("mcp_health_checks_total", "b"),
            }
            assert "mcp_servers" not in manager.metrics_text(servers=["b"])
            assert manager.metrics_text(families=["mcp_build_info"]).count("\n") == 3
            with pytest.raises(
                InvalidRequestError, match="there is no family 'mcp_request'; did you mean 'mcp_request"
            ):
                manager.metrics_text(families=["mcp_request"])
            with pytest.raises(InvalidRequestError, match="servers must be a collection of strings"):
                await manager.scrape(servers="b")


def test_the_collector_stands_beside_an_applications_own_metrics() -> None:
    registry = CollectorRegistry()
    Gauge("app_users", "Users", registry=registry).set(3)
    with ScriptedServer() as server, PyMcpManager() as manager:
        collector = MetricsCollector(manager)
        registry.register(collector)
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            registry.register(MetricsCollector(manager))
        manager.deploy_server("a", {"url": server.url, **CALM})
        manager.execute("a", echo("x").decode())
        pages: list[str] = []
        thread = threading.Thread(target=lambda: pages.append(generate_latest(registry).decode()))
        thread.start()
        thread.join()
        assert "app_users 3.0" in pages[0]
        assert 'mcp_tool_calls_total{server_id="a",status="success",tool="echo"} 1.0' in pages[0]
        exported = manager.export_prometheus_metrics()
        assert samples(exported).items() <= samples(generate_latest(registry).decode()).items()
        manager.stop()
        assert "server_id=" not in generate_latest(registry).decode()
        registry.unregister(collector)
        assert generate_latest(registry).decode().count("\n") == 3


async def test_pymcpmanager_is_scraped_from_any_loop() -> None:
    with ScriptedServer() as server:
        manager = PyMcpManager()
        await asyncio.to_thread(manager.start)
        try:
            await manager.deploy_server_async("a", {"url": server.url, **CALM})
            page = await manager.scrape_async("application/openmetrics-text")
            assert page.body.endswith(b"# EOF\n")
            assert b'server_id="a"' in page.body
            assert 'server_id="a"' in await manager.export_prometheus_metrics_async()
        finally:
            await manager.stop()


async def test_pages_are_whole_while_servers_come_and_go() -> None:
    """Every page that another thread writes meanwhile parses; in the end every call is in it, and under its tool."""
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig(max_tool_series=2)) as manager:
            pages: list[str] = []
            ended = threading.Event()

            def read() -> None:
                while not ended.is_set():
                    pages.append(manager.metrics_text())

            async def come_and_go(server_id: str) -> None:
                for turn in range(6):
                    await manager.deploy(server_id, {"url": server.url, **CALM})
                    for number in range(turn + 1):
                        await manager.call_tool(server_id, "echo", {"text": str(number)})
                        await manager.execute_raw(server_id, echo(str(number)))
                    if turn < 5:
                        await manager.undeploy(server_id)

            reader = asyncio.create_task(asyncio.to_thread(read))
            try:
                await asyncio.gather(*(come_and_go(f"s{each}") for each in range(4)))
            finally:
                ended.set()
                await reader
            final = samples(manager.metrics_text())
    assert len(pages) > 0
    for page in pages:
        samples(page)
    counted: Counter[tuple[str, str]] = Counter()
    for (name, labels), count in final.items():
        if name in ("mcp_requests_total", "mcp_tool_calls_total"):
            counted[name, dict(labels)["server_id"]] += int(count)
    wanted = {(name, f"s{each}"): 12 for name in ("mcp_requests_total", "mcp_tool_calls_total") for each in range(4)}
    assert counted == wanted


async def test_a_scrape_of_many_servers_leaves_the_loop_in_between() -> None:
    async with McpManager(ManagerConfig(servers=lazy(3000))) as manager:
        for supervisor in manager._servers.values():
            supervisor.activate()
        turns = 0
        scraping = asyncio.create_task(manager.scrape())
        while not scraping.done():
            await asyncio.sleep(0)
            turns += 1
        assert len(samples((await scraping).body.decode())) > 3000 * 10
        assert turns > 5


async def test_a_stream_is_the_page_in_pieces_on_any_loop() -> None:
    """A stream shows what was read for it, whatever happens before it is sent; its memory is given back."""
    async with McpManager(ManagerConfig(servers=lazy(1500))) as manager:
        for supervisor in manager._servers.values():
            supervisor.activate()
        shown = ["mcp_instances", "mcp_servers"]
        stream = await manager.scrape_stream("application/openmetrics-text", families=shown)
        whole = await manager.scrape("application/openmetrics-text", families=shown)
        assert stream.content_type == whole.content_type
        await manager.undeploy("lazy-7")
        pieces = [piece async for piece in stream]
        assert len(pieces) > 1
        assert b"".join(pieces) == whole.body
        assert [piece async for piece in stream] == []
        elsewhere = await asyncio.to_thread(asyncio.run, collected(manager))
        assert len(samples(elsewhere)) > 1400 * 10
        assert 'server_id="lazy-7"' not in elsewhere
        with pytest.raises(InvalidRequestError, match="there is no family"):
            await manager.scrape_stream(families=["mcp_nothing"])


async def collected(manager: McpManager) -> str:
    return b"".join([piece async for piece in await manager.scrape_stream()]).decode()


async def test_what_was_read_is_dropped_after_a_second() -> None:
    async with McpManager() as manager:
        page = await manager.scrape()
        assert (await manager.scrape()) is page
        assert manager._scrapes is not None
        latest = manager._scrapes._latest
        assert latest is not None
        kept = weakref.ref(page)
        del page
        # The thread that wrote it may still hold it for a moment.
        await eventually(lambda: kept() is None, "the end of a page that nobody uses")
        stream = await manager.scrape_stream()
        await eventually(
            lambda: manager._scrapes is not None and manager._scrapes._latest is None, "the end of sharing"
        )
        assert latest.page.size > 0, "a stream would be cut short"
        assert b"".join([piece async for piece in stream]).endswith(b"1.0\n")
        assert latest.page.size == 0


@pytest.mark.parametrize(("most", "names"), [(0, 0), (2, 2)])
async def test_names_of_tools_are_read_only_if_tools_are_counted(
    most: int, names: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | None] = []

    def tool_of(params: bytes | None) -> str | None:
        read.append(safety.tool_of(params))
        return read[-1]

    monkeypatch.setattr(attempts, "tool_of", tool_of)
    with ScriptedServer() as server:
        async with McpManager(ManagerConfig(max_tool_series=most)) as manager:
            await manager.deploy("a", {"url": server.url, **CALM})
            # Calls with a key do not take the compiled path.
            for _ in range(2):
                await manager.execute_raw("a", echo("x"), key="k")
            text = manager.metrics_text()
    assert len(read) == names
    assert ('tool="echo"' in text) == bool(most)


async def test_web_frameworks_send_a_stream() -> None:
    async with McpManager(ManagerConfig(servers=lazy(1500))) as manager:
        for supervisor in manager._servers.values():
            supervisor.activate()
        whole = (await manager.scrape(families=["mcp_instances"])).body

        async def metrics(request: web.Request) -> web.Response:
            stream = await manager.scrape_stream(request.headers.get("Accept"), families=["mcp_instances"])
            return web.Response(body=stream, headers={"Content-Type": stream.content_type})

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        async with TestServer(app) as server, ClientSession() as client:
            async with client.get(server.make_url("/metrics")) as response:
                assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert await response.read() == whole
        stream = await manager.scrape_stream(families=["mcp_instances"])
        sent: list[bytes] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message.get("body", b""))

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.disconnect"}

        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        await StreamingResponse(stream, media_type=stream.content_type)(scope, receive, send)
        assert b"".join(sent) == whole


def test_much_memory_is_freed_on_a_loop_that_is_about_to_end() -> None:
    async def scrape() -> Scraped:
        async with McpManager(ManagerConfig(servers=lazy(5000))) as manager:
            for supervisor in manager._servers.values():
                supervisor.activate()
            stream = await manager.scrape_stream()
            assert manager._scrapes is not None
            scraped = manager._scrapes._latest
            assert scraped is not None
            assert scraped.page.size > 1024 * 1024
            await asyncio.get_running_loop().shutdown_default_executor()
            async for _ in stream:
                pass
            manager._scrapes._drop(weakref.ref(scraped))
            return scraped

    assert asyncio.run(scrape()).page.size == 0
