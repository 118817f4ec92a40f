"""Every documented metric family, fed by what really happened."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from support.calls import CALM, SWIFT, echo, eventually, text_of
from support.processes import unused_port

from mcp_manager import CallError, McpManager
from mcp_manager.testing import faults
from mcp_manager.testing.scripted import ScriptedServer

FAMILIES = {
    "mcp_loop_lag_seconds": "histogram",
    "mcp_requests": "counter",
    "mcp_response_time_seconds": "histogram",
    "mcp_active_connections": "gauge",
    "mcp_health_checks": "counter",
    "mcp_circuit_breaker_state": "gauge",
    "mcp_connection_pool_size": "gauge",
    "mcp_server_availability": "gauge",
    "mcp_error_rate": "gauge",
    "mcp_retries": "counter",
    "mcp_hedges": "counter",
    "mcp_fallbacks": "counter",
    "mcp_child_restarts": "counter",
    "mcp_floods": "counter",
    "mcp_circuit_openings": "counter",
    "mcp_open_circuits": "gauge",
    "mcp_instances": "gauge",
    "mcp_ejected_instances": "gauge",
    "mcp_waiting_calls": "gauge",
    "mcp_concurrency_limit": "gauge",
    "mcp_retry_budget": "gauge",
    "mcp_tool_calls": "counter",
    "mcp_tool_response_time_seconds": "histogram",
    "mcp_call_errors": "counter",
    "mcp_queue_wait_seconds": "histogram",
    "mcp_session_renewals": "counter",
    "mcp_server_state": "gauge",
    "mcp_servers": "gauge",
    "mcp_build_info": "gauge",
}


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


async def test_every_family_says_what_happened() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            calm_probes = {**SWIFT, "health": {"interval_s": 60.0}}
            await manager.deploy("good", {"url": server.url, **calm_probes})
            await manager.deploy("gone", {"url": f"http://127.0.0.1:{unused_port()}/mcp", **calm_probes})
            for number in range(5):
                await manager.execute_raw("good", echo(str(number)))
            await manager.execute_raw("good", b'{"id":1,"method":"no/such"}')
            server.script("tools/call", faults.Status(500))
            for request in (echo("fails"), b'{"method":"ping"}'):
                try:
                    await manager.execute_raw("good", request)
                except CallError as error:
                    assert error.delivery == "unknown"
            text = manager.metrics_text()
            families = {family.name: family.type for family in text_string_to_metric_families(text)}
            assert families == FAMILIES

            def requests(method: str, status: str) -> float:
                return value(text, "mcp_requests_total", server_id="good", method=method, status=status)

            assert requests("tools/call", "success") == 5
            assert requests("tools/call", "protocol_error") == 1
            assert requests("no/such", "rpc_error") == 1
            assert requests("ping", "success") == 1
            histogram = {"server_id": "good", "method": "tools/call"}
            assert value(text, "mcp_response_time_seconds_count", **histogram) == 6
            assert 0 < value(text, "mcp_response_time_seconds_sum", **histogram) < 6
            buckets = [
                (float(dict(labels)["le"]), count)
                for (name, labels), count in samples(text).items()
                if name == "mcp_response_time_seconds_bucket" and histogram.items() <= dict(labels).items()
            ]
            counts = [count for _, count in sorted(buckets)]
            assert counts == sorted(counts)
            assert counts[-1] == 6
            assert value(text, "mcp_health_checks_total", server_id="good", result="success") == 1
            assert value(text, "mcp_health_checks_total", server_id="gone", result="failure") == 1
            assert value(text, "mcp_circuit_breaker_state", server_id="good") == 0
            assert value(text, "mcp_server_availability", server_id="good") == 1
            assert value(text, "mcp_server_availability", server_id="gone") == 0
            assert value(text, "mcp_error_rate", server_id="good") == 1 / 8
            assert value(text, "mcp_error_rate", server_id="gone") == 0


async def test_calls_under_way_and_their_connections_are_counted() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **SWIFT})
            hold = faults.Hold()
            server.script("tools/call", hold, times=3)
            calls = [asyncio.create_task(manager.execute_raw("a", echo(str(number)))) for number in range(3)]
            await server.wait_for("tools/call", 3)
            text = manager.metrics_text()
            assert value(text, "mcp_active_connections", server_id="a") == 3
            assert value(text, "mcp_connection_pool_size", server_id="a", state="active") == 3
            hold.release()
            await asyncio.gather(*calls)
            text = manager.metrics_text()
            assert value(text, "mcp_active_connections", server_id="a") == 0
            assert value(text, "mcp_connection_pool_size", server_id="a", state="active") == 0
            assert value(text, "mcp_connection_pool_size", server_id="a", state="idle") >= 1


async def test_an_open_circuit_is_1_and_closes_to_0() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            slow: dict[str, Any] = {**SWIFT, "breaker": {"open_s": 0.3, "consecutive_failures": 2}}
            await manager.deploy("a", {"url": server.url, **slow})
            server.script("tools/call", faults.Status(500), times=2)
            for _ in range(3):
                try:
                    await manager.execute_raw("a", echo("x"))
                except CallError:
                    continue
            text = manager.metrics_text()
            assert value(text, "mcp_circuit_breaker_state", server_id="a") == 1
            assert total(text, "mcp_circuit_openings_total", server_id="a") == 1
            assert value(text, "mcp_open_circuits", server_id="a") == 1
            assert value(text, "mcp_requests_total", server_id="a", method="tools/call", status="circuit_open") == 1
            await eventually(
                lambda: value(manager.metrics_text(), "mcp_circuit_breaker_state", server_id="a") == 0,
                "the circuit closes",
            )


async def test_labels_are_escaped_and_methods_are_bounded() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            odd = 'odd"id\\with everything'
            await manager.deploy(odd, {"url": server.url, **SWIFT})
            for number in range(100):
                await manager.execute_raw(odd, json.dumps({"method": f'm"{number}\n'}).encode())
            text = manager.metrics_text()
            assert value(text, "mcp_requests_total", server_id=odd, method='m"0\n', status="rpc_error") == 1
            methods = {dict(labels)["method"] for name, labels in samples(text) if name == "mcp_requests_total"}
            assert len(methods) <= 65


def total(text: str, name: str, **labels: str) -> float:
    """A counter, 0 where nothing was counted."""
    return samples(text).get((name, frozenset(labels.items())), 0.0)


async def test_attempts_after_the_first_are_counted() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            swift = {**CALM, "retry": {"attempts": 3, "backoff_s": 0.01}}
            await manager.deploy("a", {"url": server.url, **swift})
            await manager.execute_raw("a", echo("x"))
            assert total(manager.metrics_text(), "mcp_retries_total", server_id="a") == 0
            server.script("tools/call", faults.Status(429), times=2)
            await manager.execute_raw("a", echo("x"))
            assert total(manager.metrics_text(), "mcp_retries_total", server_id="a") == 2
            # On the next session, within one attempt of the caller's.
            server.expire_sessions()
            await manager.execute_raw("a", echo("x"))
            assert total(manager.metrics_text(), "mcp_retries_total", server_id="a") == 3
            assert len(server.requests_of("tools/call")) == 6
            await manager.undeploy("a")
            await manager.deploy("a", {"url": server.url, **swift})
            assert total(manager.metrics_text(), "mcp_retries_total", server_id="a") == 0


async def test_the_retry_budget_is_seen_until_it_is_used_up() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            budget = {"ratio": 0.0, "min_per_s": 2 / 512, "ttl_s": 512.0}
            await manager.deploy(
                "a", {"url": server.url, **CALM, "retry": {"attempts": 3, "backoff_s": 0.01, "budget": budget}}
            )
            assert value(manager.metrics_text(), "mcp_retry_budget", server_id="a") == 2
            server.script("tools/call", faults.Status(429))
            await manager.execute_raw("a", echo("x"))
            assert value(manager.metrics_text(), "mcp_retry_budget", server_id="a") == 1
            server.script("tools/call", faults.Status(429), times=3)
            [refused] = await asyncio.gather(manager.execute_raw("a", echo("x")), return_exceptions=True)
            assert isinstance(refused, CallError)
            assert refused.attempts == 2
            assert value(manager.metrics_text(), "mcp_retry_budget", server_id="a") == 0


async def test_answers_that_stand_in_are_counted_by_their_source() -> None:
    with ScriptedServer() as server, ScriptedServer() as other:
        async with McpManager() as manager:
            static = {"static": {"tools/call:echo": {"content": [{"type": "text", "text": "fixed"}]}}}
            await manager.deploy(
                "a", {"url": server.url, **CALM, "fallback": {**static, "tag": "group", "stale_s": 60.0}}
            )

            def count(source: str) -> float:
                return total(manager.metrics_text(), "mcp_fallbacks_total", server_id="a", source=source)

            listing = b'{"method":"tools/list"}'
            await manager.execute_raw("a", listing)
            server.script_always("tools/call", faults.Reset())
            server.script_always("tools/list", faults.Reset())
            server.script("tools/call", faults.Status(429))
            assert text_of(await manager.execute_raw("a", echo("x"))) == "fixed"
            await manager.execute_raw("a", listing)
            assert (count("server"), count("stale"), count("static")) == (0, 1, 1)
            await manager.deploy("b", {"url": other.url, **CALM, "tags": ["group"]})
            server.script("tools/call", faults.Status(429))
            assert text_of(await manager.execute_raw("a", echo("y"))) == "y"
            assert (count("server"), count("stale"), count("static")) == (1, 1, 1)
            assert total(manager.metrics_text(), "mcp_fallbacks_total", server_id="b", source="server") == 0


async def test_instances_are_counted_by_where_they_are_in_life() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            await manager.deploy("a", {"url": server.url, **CALM, "instances": 3})

            def instances(state: str) -> float:
                return value(manager.metrics_text(), "mcp_instances", server_id="a", state=state)

            assert (instances("desired"), instances("ready"), instances("draining")) == (3, 3, 0)
            hold = faults.Hold()
            server.script("tools/call", hold, times=3)
            calls = [asyncio.create_task(manager.execute_raw("a", echo(str(number)))) for number in range(3)]
            await server.wait_for("tools/call", 3)
            await manager.scale("a", 0)
            assert (instances("desired"), instances("ready")) == (0, 0)
            assert instances("draining") >= 1
            hold.release()
            await asyncio.gather(*calls)
            await eventually(lambda: instances("draining") == 0, "the end of what drains")
            await manager.scale("a", 2)
            backend = manager._servers["a"].instances[0].backend
            assert backend is not None
            assert value(manager.metrics_text(), "mcp_ejected_instances", server_id="a") == 0
            assert manager._router.eject(backend, 2**62)
            assert value(manager.metrics_text(), "mcp_ejected_instances", server_id="a") == 1


async def test_a_limit_and_those_that_wait_for_it_are_seen() -> None:
    with ScriptedServer() as server:
        async with McpManager() as manager:
            limits = {"max_concurrent": 1, "max_waiting": 5, "max_wait_s": 9.0}
            await manager.deploy("a", {"url": server.url, **CALM, "limits": limits})
            hold = faults.Hold()
            server.script("tools/call", hold)
            calls = [asyncio.create_task(manager.execute_raw("a", echo(str(number)))) for number in range(3)]
            await eventually(
                lambda: value(manager.metrics_text(), "mcp_waiting_calls", server_id="a") == 2, "those that wait"
            )
            assert ("mcp_concurrency_limit", frozenset({("server_id", "a")})) not in samples(manager.metrics_text())
            hold.release()
            await asyncio.gather(*calls)
            assert value(manager.metrics_text(), "mcp_waiting_calls", server_id="a") == 0
            server.script("tools/call", faults.Status(429))
            [refused] = await asyncio.gather(manager.execute_raw("a", echo("x")), return_exceptions=True)
            assert isinstance(refused, CallError)
            assert value(manager.metrics_text(), "mcp_concurrency_limit", server_id="a") >= 1
