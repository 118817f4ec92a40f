"""Instances come and go with the records of a name, and nobody loses a call over it."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dns.rcode
import pytest
from support.calls import CALM, echo, eventually, text_of
from support.certificates import make_context
from support.leaks import Snapshot
from support.name_server import NameServer
from support.traffic import Traffic

from mcp_manager import ConfigError, ConnectError, ManagerConfig, McpManager, OverloadedError
from mcp_manager.testing.scripted import ScriptedServer

NAME = "mcp.example.test"
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as names:
        yield names


@pytest.fixture
def servers() -> Iterator[dict[str, ScriptedServer]]:
    """Servers on one port of several addresses."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                first = stack.enter_context(ScriptedServer())
                others = {
                    host: stack.enter_context(ScriptedServer(host=host, port=first.port))
                    for host in (*ADDRESSES[1:], "::1")
                }
                break
            except OSError:
                # The port is taken on one of them.
                stack.pop_all().close()
        yield {"127.0.0.1": first, **others}


@pytest.fixture(params=[True, False], ids=["lanes", "ordinary"])
async def manager(request: pytest.FixtureRequest) -> AsyncIterator[McpManager]:
    async with McpManager(ManagerConfig(http_lanes=request.param)) as manager:
        yield manager


def discovered(names: NameServer, port: int, **others: Any) -> dict[str, Any]:
    discovery = {
        "kind": "dns",
        "nameservers": [names.address],
        "refresh_s": 0.05,
        "min_refresh_s": 0.02,
        "timeout_s": 2.0,
        **others.pop("discovery", {}),
    }
    return {"url": f"http://{NAME}:{port}/mcp", "discovery": discovery, **CALM, **others}


def records(names: NameServer, *addresses: str) -> None:
    names.records[NAME, "A"] = [each for each in addresses if ":" not in each]
    names.records[NAME, "AAAA"] = [each for each in addresses if ":" in each]


def used(manager: McpManager) -> set[str]:
    """The addresses of the instances that take traffic and have a session."""
    [supervisor] = manager._servers.values()
    endpoints = supervisor.template.endpoints
    assert endpoints is not None
    return {endpoints[each.index].address for each in supervisor.instances if each.session is not None}


async def becomes(manager: McpManager, *addresses: str) -> None:
    await eventually(
        lambda: used(manager) == set(addresses) and manager.server("a").draining == 0, f"instances at {addresses}"
    )


async def test_every_address_is_an_instance_and_is_spoken_to_by_the_name(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    records(names, "127.0.0.1", "127.0.0.2", "::1")
    port = servers["::1"].port
    await manager.deploy("a", discovered(names, port))
    view = manager.server("a")
    assert (view.desired, view.ready) == (64, 3)
    for number in range(30):
        await manager.execute_raw("a", echo(str(number)))
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        calls = servers[address].requests_of("tools/call")
        assert calls
        assert {each.headers["host"] for each in servers[address].requests} == {f"{NAME}:{port}"}
    assert servers["127.0.0.3"].requests == []
    assert sorted(text for each in servers.values() for text in each.executed) == sorted(map(str, range(30)))


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("certified", [NAME, "127.0.0.1", "another.test"])
async def test_a_certificate_must_be_for_the_name_and_not_for_the_address(
    lanes: bool, certified: str, names: NameServer, tmp_path: Path
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    kind = "IP" if certified == "127.0.0.1" else "DNS"
    context, trusted = make_context(tmp_path, f"{kind}:{certified}")
    asked_for: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked_for.append(name)
    records(names, "127.0.0.1")
    with ScriptedServer(tls=context) as server:
        async with McpManager(ManagerConfig(http_lanes=lanes)) as manager:
            config = discovered(names, server.port) | {
                "url": f"https://{NAME}:{server.port}/mcp",
                "tls": {"ca_file": str(trusted)},
            }
            await manager.deploy("a", config)
            if certified == NAME:
                assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
            else:
                with pytest.raises(ConnectError, match=rf"{NAME}.* at 127.0.0.1:{server.port}.*certificate"):
                    await manager.ping("a")
                assert server.requests == []
    assert set(asked_for) == {NAME}


async def test_instances_follow_the_records_and_no_call_is_lost(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    records(names, "127.0.0.1")
    await manager.deploy("a", discovered(names, servers["::1"].port))
    async with Traffic(manager, "a") as traffic:
        await traffic.goes_on()
        for addresses in (("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "::1"), ("127.0.0.3",), ("127.0.0.1", "127.0.0.3")):
            records(names, *addresses)
            await becomes(manager, *addresses)
            await traffic.goes_on()
    assert traffic.failures == {}
    assert sorted(text for each in servers.values() for text in each.executed) == sorted(traffic.answered)
    # The sessions of those that are gone were ended.
    assert [len(servers[each].live_sessions) for each in (*ADDRESSES, "::1")] == [1, 0, 1, 0]


@pytest.mark.parametrize("trouble", ["nxdomain", "empty", "servfail", "silent", "dead"])
async def test_what_was_found_last_is_kept(
    trouble: str, names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    records(names, "127.0.0.1", "127.0.0.2")
    # Nothing else tells that no answer comes.
    looks = {"timeout_s": 0.2} if trouble in ("silent", "dead") else {}
    await manager.deploy("a", discovered(names, servers["::1"].port, discovery=looks))
    [supervisor] = manager._servers.values()
    before = supervisor.instances
    match trouble:
        case "nxdomain":
            names.records.clear()
        case "empty":
            records(names)
        case "servfail":
            names.rcode = dns.rcode.SERVFAIL
        case "silent":
            names.silent.add("*")
        case "dead":
            names.stop()
    await eventually(lambda: manager.server("a").last_error is not None, "a look that fails")
    if trouble != "dead":
        await names.wait_for_queries(4)
    assert supervisor.instances == before
    assert "no instance was found" in str(manager.server("a").last_error)
    await manager.ping("a")
    if trouble != "dead":
        names.rcode = None
        names.silent.clear()
        records(names, "127.0.0.2", "127.0.0.3")
        await becomes(manager, "127.0.0.2", "127.0.0.3")
        assert manager.server("a").last_error is None


async def test_of_two_families_the_one_that_cannot_be_asked_for_keeps_its_addresses(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    records(names, "127.0.0.1", "::1")
    await manager.deploy("a", discovered(names, servers["::1"].port, discovery={"timeout_s": 0.2}))
    names.silent.add("AAAA")
    records(names, "127.0.0.2")
    await becomes(manager, "127.0.0.2", "::1")
    names.silent.clear()
    await becomes(manager, "127.0.0.2")


async def test_a_name_without_records_is_found_when_it_has_some(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    await manager.deploy("a", discovered(names, servers["::1"].port))
    view = manager.server("a")
    assert (view.desired, view.ready) == (64, 0)
    assert NAME in str(view.last_error)
    with pytest.raises(OverloadedError, match="no address found") as caught:
        await manager.ping("a")
    assert caught.value.delivery == "not_sent"
    records(names, "127.0.0.2")
    await becomes(manager, "127.0.0.2")
    await manager.ping("a")


async def test_a_lazy_server_looks_and_does_not_connect(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    records(names, "127.0.0.1", "127.0.0.2")
    await manager.deploy("a", discovered(names, servers["::1"].port, connect="lazy"))
    await names.wait_for_queries(4)
    assert not any(each.requests for each in servers.values())
    assert text_of(await manager.execute_raw("a", echo("x"))) == "x"


async def test_at_most_so_many_are_used_as_are_wanted(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    records(names, *servers)
    await manager.deploy("a", discovered(names, servers["::1"].port, instances=2))
    two = used(manager)
    assert len(two) == 2
    # One more is one more, and the others stay.
    await manager.scale("a", 3)
    three = used(manager)
    assert two < three
    [gone] = sorted(two)[:1]
    records(names, *(set(servers) - {gone}))
    await becomes(manager, *(set(servers) - {gone}))
    await manager.scale("a", 10)
    assert (manager.server("a").desired, manager.server("a").ready) == (10, 3)
    await manager.scale("a", 0)
    await eventually(lambda: manager.server("a").draining == 0, "the end of all")
    await manager.scale("a", 2)
    assert manager.server("a").ready == 2


async def test_services_name_ports_tiers_and_weights(names: NameServer, manager: McpManager) -> None:
    with ScriptedServer() as near, ScriptedServer(host="127.0.0.2") as light, ScriptedServer() as far:
        names.records |= {
            (NAME, "SRV"): [
                f"5 30 {near.port} one.example.test.",
                f"5 10 {light.port} two.example.test.",
                f"9 0 {far.port} one.example.test.",
                "9 0 1 nowhere.example.test.",
                "9 0 0 one.example.test.",
            ],
            ("one.example.test", "A"): ["127.0.0.1"],
            ("two.example.test", "A"): ["127.0.0.2"],
        }
        config = discovered(names, 80, discovery={"kind": "srv"}, balancing={"policy": "weighted", "slow_start_s": 0})
        await manager.deploy("a", config)
        [supervisor] = manager._servers.values()
        handles = [each.backend for each in supervisor.instances if each.backend is not None]
        assert sorted((handle.tier, handle.weight) for handle in handles) == [(0, 10.0), (0, 30.0), (1, 0.1)]
        for number in range(200):
            await manager.execute_raw("a", echo(str(number)))
        assert far.executed == []
        # More than four standard deviations.
        assert 22 < len(light.executed) < 78
        assert {each.headers["host"] for each in near.requests} == {NAME}
        # A weight changes, and the instance stays; so does one whose host cannot be looked up any more.
        before = set(supervisor.instances)
        del names.records["two.example.test", "A"]
        names.records[NAME, "SRV"][0] = f"5 20 {near.port} one.example.test."
        await eventually(lambda: 20.0 in {handle.weight for handle in handles}, "the new weight")
        assert set(supervisor.instances) == before
        near.refuse_connections()
        light.refuse_connections()
        del names.records[NAME, "SRV"][:2]
        await eventually(lambda: len(supervisor.instances) == 1, "the last one")
        await manager.execute_raw("a", echo("far"))
        assert far.executed == ["far"]
        # Services of which none has a place are as good as no answer.
        last = supervisor.instances
        names.records[NAME, "SRV"][:] = ["9 0 1 nowhere.example.test."]
        await eventually(
            lambda: "no DNS record names a usable address" in str(manager.server("a").last_error), "a look in vain"
        )
        assert supervisor.instances == last
        # RFC 2782: the service is decidedly not available here.
        names.records[NAME, "SRV"][:] = ["0 0 0 ."]
        await eventually(
            lambda: "has no SRV record of a service" in str(manager.server("a").last_error),
            "a look that finds no service",
        )
        assert supervisor.instances == last
        await manager.execute_raw("a", echo("far still"))
        near.listen()
        light.listen()


async def test_the_order_of_a_hosts_addresses_moves_no_instance(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    port = servers["127.0.0.1"].port
    names.records |= {
        (NAME, "SRV"): [f"5 30 {port} one.example.test."],
        ("one.example.test", "A"): ["127.0.0.1", "127.0.0.2"],
    }
    await manager.deploy("a", discovered(names, 80, discovery={"kind": "srv"}))
    [supervisor] = manager._servers.values()
    [instance] = before = supervisor.instances
    assert used(manager) == {"127.0.0.1"}
    names.records["one.example.test", "A"].reverse()
    names.records[NAME, "SRV"][:] = [f"5 20 {port} one.example.test."]
    assert instance.backend is not None
    await eventually(lambda: getattr(instance.backend, "weight", None) != 30.0, "the next look")
    assert supervisor.instances == before


async def test_what_is_cut_short_is_asked_for_over_tcp(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    names.is_truncating = True
    records(names, "127.0.0.1", "127.0.0.2")
    await manager.deploy("a", discovered(names, servers["::1"].port))
    assert used(manager) == {"127.0.0.1", "127.0.0.2"}
    assert (NAME, "A", "tcp") in names.asked


async def test_records_are_looked_up_again_when_they_expire_and_not_before(
    names: NameServer, servers: dict[str, ScriptedServer]
) -> None:
    records(names, "127.0.0.1")
    names.records["other.example.test", "A"] = ["127.0.0.1"]
    names.ttl = 3600
    port = servers["::1"].port
    async with McpManager() as manager:
        await manager.deploy("a", discovered(names, port, discovery={"refresh_s": 3600.0, "min_refresh_s": 0.01}))
        often = {**discovered(names, port), "url": f"http://other.example.test:{port}/mcp"}
        await manager.deploy("b", often)
        # An hour for the one, and at most refresh_s for the other.
        await names.wait_for_queries(12)
        assert [each for each in names.asked if each[0] == NAME] == [(NAME, "A", "udp"), (NAME, "AAAA", "udp")]
        await manager.undeploy("a")
        names.ttl = 0
        await manager.deploy("a", discovered(names, port, discovery={"refresh_s": 3600.0, "min_refresh_s": 0.01}))
        records(names, "127.0.0.2")
        await servers["127.0.0.2"].wait_for("initialize")


async def test_a_name_is_not_looked_up_more_often_than_that(
    names: NameServer, servers: dict[str, ScriptedServer]
) -> None:
    records(names, "127.0.0.1")
    names.records["other.example.test", "A"] = ["127.0.0.1"]
    names.ttl = 0
    port = servers["::1"].port
    async with McpManager() as manager:
        seldom = {"refresh_s": 3600.0, "min_refresh_s": 3600.0}
        await manager.deploy("a", discovered(names, port, discovery=seldom))
        await manager.deploy("b", {**discovered(names, port), "url": f"http://other.example.test:{port}/mcp"})
        await names.wait_for_queries(12)
        assert [each for each in names.asked if each[0] == NAME] == [(NAME, "A", "udp"), (NAME, "AAAA", "udp")]


async def test_a_replacement_goes_where_its_own_name_leads(
    names: NameServer, servers: dict[str, ScriptedServer], manager: McpManager
) -> None:
    port = servers["::1"].port
    records(names, "127.0.0.1")
    names.records["other.example.test", "A"] = ["127.0.0.2", "127.0.0.3"]
    await manager.deploy("a", discovered(names, port))
    [supervisor] = manager._servers.values()
    first = supervisor.template.endpoints
    async with Traffic(manager, "a") as traffic:
        await traffic.goes_on()
        other = {**discovered(names, port), "url": f"http://other.example.test:{port}/mcp"}
        for strategy in ("rolling", "blue_green"):
            await manager.redeploy("a", other, strategy=strategy)  # type: ignore[arg-type]
            await becomes(manager, "127.0.0.2", "127.0.0.3")
            await traffic.goes_on()
        missing = {**discovered(names, port), "url": f"http://missing.example.test:{port}/mcp"}
        with pytest.raises(ConnectError, match="no instance was found"):
            await manager.redeploy("a", missing)
        await becomes(manager, "127.0.0.2", "127.0.0.3")
        names.records["other.example.test", "A"] = ["127.0.0.1"]
        await becomes(manager, "127.0.0.1")
        await traffic.goes_on()
    assert traffic.failures == {}
    assert first is not None
    assert first.refresher is not None
    assert first.refresher.cancelled()


async def test_the_end_of_a_server_ends_its_looks(names: NameServer, servers: dict[str, ScriptedServer]) -> None:
    names.silent.add("*")
    async with McpManager() as manager:
        slow = {"timeout_s": 30.0}
        deployment = asyncio.create_task(manager.deploy("a", discovered(names, servers["::1"].port, discovery=slow)))
        await names.wait_for_queries(2)
        deployment.cancel()
        await asyncio.wait({deployment})
        assert manager.servers() == []
        deployment = asyncio.create_task(
            manager.deploy("b", discovered(names, servers["::1"].port, discovery={"timeout_s": 0.1}))
        )
        await names.wait_for_queries(2)
        await manager.undeploy("b")
        await deployment
        assert manager.servers() == []


async def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, names: NameServer) -> None:
    import_module = builtins.__import__

    def refuse(name: str, *others: Any) -> Any:
        if name.startswith("dns"):
            raise ImportError(name)
        return import_module(name, *others)

    async with McpManager() as manager:
        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(ConfigError, match=r"dnspython.*pymcp-manager\[dns\]"):
            await manager.deploy("a", discovered(names, 80))
        monkeypatch.undo()
        assert manager.servers() == []


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"url": "http://127.0.0.1/mcp"}, "discovery.kind"),
        ({"url": "http://[::1]/mcp"}, "discovery.kind"),
        ({"url": "http://h-{i}.test/mcp"}, "discovery.kind"),
        ({"url": ["http://a.test/mcp"]}, "discovery.kind"),
        ({"url": None, "command": "x"}, "discovery.kind"),
        ({"discovery": {"kind": "dns", "nameservers": ["name"]}}, "discovery.nameservers[0]"),
        ({"discovery": {"kind": "dns", "nameservers": ["127.0.0.1", "127.0.0.1:0"]}}, "discovery.nameservers[1]"),
        ({"discovery": {"kind": "dns", "nameservers": ["[::1]:x"]}}, "discovery.nameservers[0]"),
        ({"discovery": {"kind": "dns", "min_refresh_s": 60.0}}, "discovery.min_refresh_s"),
        ({"balancing": {"weights": [1.0, 2.0]}}, "balancing.weights"),
        ({"balancing": {"tiers": [1]}}, "balancing.tiers"),
    ],
)
async def test_what_does_not_go_together_is_refused(changes: dict[str, Any], place: str, names: NameServer) -> None:
    config = {**discovered(names, 80), **changes}
    config = {name: value for name, value in config.items() if value is not None}
    async with McpManager() as manager:
        with pytest.raises(ConfigError) as caught:
            await manager.deploy("a", config)
    assert place in str(caught.value)


@pytest.mark.both_loops
@pytest.mark.parametrize("over", ["udp", "tcp"])
async def test_a_look_that_is_cancelled_at_any_moment_leaves_no_socket(names: NameServer, over: str) -> None:
    records(names, "127.0.0.1")
    names.is_truncating = over == "tcp"
    async with McpManager() as manager:
        before = Snapshot()
        for passes in range(24):
            config = discovered(names, 1, connect="lazy", discovery={"timeout_s": 30.0})
            deploying = asyncio.create_task(manager.deploy("a", config))
            for _ in range(passes):
                await asyncio.sleep(0)
            deploying.cancel()
            await asyncio.wait({deploying})
            if manager.servers():
                await manager.undeploy("a")
        await asyncio.sleep(0)
        assert before.new_descriptors() == []
