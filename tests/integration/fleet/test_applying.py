"""``apply`` makes the fleet what a configuration says: one at a time, whatever others do, and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.calls import CALM, echo, eventually, text_of
from support.processes import StdioCommand, scripted_stdio, unused_port
from support.traffic import Traffic

from mcp_manager import Applied, ConfigError, ManagerConfig, McpManager, NotRunningError, ScaleError, ServerConfig
from mcp_manager.errors import McpManagerError
from mcp_manager.servers.supervisor import Supervisor
from mcp_manager.testing.faults import Hold
from mcp_manager.testing.scripted import ScriptedServer

QUICK: dict[str, Any] = {**CALM, "shutdown_grace_s": 0.2, "drain_timeout_s": 5.0}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def fleet(**servers: dict[str, Any]) -> ManagerConfig:
    return ManagerConfig(servers={each: {**QUICK, **servers[each]} for each in servers})  # type: ignore[misc]


def ids(manager: McpManager) -> list[str]:
    return [view.id for view in manager.servers()]


async def test_the_second_time_nothing_is_done(server: ScriptedServer) -> None:
    config = fleet(a={"url": server.url, "tags": ["x"]}, b={"url": server.url, "instances": 2}, c={"url": server.url})
    async with McpManager() as manager:
        assert (await manager.apply(config)).deployed == ("a", "b", "c")
        again = await manager.apply(config)
        assert again == Applied(deployed=(), redeployed=(), undeployed=(), failed={}, unchanged=3)
        assert pickle.loads(pickle.dumps(again)) == again
    assert len(server.requests_of("initialize")) == 4


async def test_new_servers_come_in_the_order_of_the_configuration(server: ScriptedServer) -> None:
    async with McpManager() as manager:
        await manager.apply(
            fleet(z={"url": server.url}, a={"url": server.url}, m={"url": server.url, "connect": "lazy"})
        )
        assert ids(manager) in (["z", "a", "m"], ["m", "z", "a"])


@pytest.mark.both_loops
async def test_several_at_once_are_done_one_after_the_other(server: ScriptedServer) -> None:
    configs = [
        fleet(a={"url": server.url}, b={"url": server.url}),
        fleet(b={"url": server.url, "headers": {"X-A": "1"}}, c={"url": server.url}),
        fleet(a={"url": server.url, "tags": ["x"]}),
        fleet(),
        fleet(a={"url": server.url}, b={"url": server.url, "headers": {"X-A": "2"}}),
    ]
    async with McpManager() as manager:
        applied = await asyncio.gather(*(manager.apply(each) for each in configs))
        assert [each.failed for each in applied] == [{}] * 5
        assert [each.deployed for each in applied] == [("a", "b"), ("c",), ("a",), (), ("a", "b")]
        assert [each.undeployed for each in applied] == [(), ("a",), ("b", "c"), ("a",), ()]
        assert applied[1].redeployed == ("b",)
        assert sorted(ids(manager)) == ["a", "b"]
        assert (await manager.apply(configs[-1])).unchanged == 2


async def test_one_bad_server_changes_nothing_and_is_named(server: ScriptedServer) -> None:
    async with McpManager(fleet(a={"url": server.url})) as manager:
        for bad, kind in (
            ({"url": "nonsense"}, ConfigError),
            ({"url": server.url, "instances": 99}, ConfigError),
            ({"url": [server.url], "instances": 2}, McpManagerError),
            ({"command": "true", "headers": {"X-A": "1"}}, ConfigError),
        ):
            with pytest.raises(kind, match="bad") as raised:
                await manager.apply(fleet(a={"url": server.url, "tags": ["x"]}, fresh={"url": server.url}, bad=bad))
            assert isinstance(raised.value, ConfigError | ScaleError)
            assert (ids(manager), manager.server("a").tags) == (["a"], ())
        with pytest.raises(ConfigError, match="No such file"):
            await manager.apply("no-such-fleet.toml")
        for wrong in (None, {}, server.url, {"url": server.url}, ServerConfig(url=server.url)):
            with pytest.raises(ConfigError, match="must be a ManagerConfig"):
                await manager.apply(wrong)  # type: ignore[arg-type]
        assert ids(manager) == ["a"]


async def test_a_replacement_that_does_not_connect_keeps_the_old_server_and_is_tried_again(
    server: ScriptedServer,
) -> None:
    port = unused_port()
    moved = fleet(a={"url": f"http://127.0.0.1:{port}/mcp", "tags": ["x"]})
    async with McpManager(fleet(a={"url": server.url})) as manager:
        applied = await manager.apply(moved)
        assert (applied.redeployed, list(applied.failed)) == ((), ["a"])
        assert manager.server("a").tags == ()
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        assert list((await manager.apply(moved)).failed) == ["a"]
        with ScriptedServer(port=port) as other:
            assert (await manager.apply(moved)).redeployed == ("a",)
            assert text_of(await manager.execute_raw("a", echo("y"))) == "y"
            assert other.executed == ["y"]
            await manager.undeploy("a")


async def test_a_call_under_way_does_not_hold_up_what_comes_next(server: ScriptedServer) -> None:
    held = Hold()
    server.script("tools/call", held)
    short = {"url": server.url, "connect_timeout_s": 0.5}
    replaced = fleet(a={**short, "headers": {"X-A": "1"}})
    async with McpManager(fleet(a=short)) as manager:
        call = asyncio.create_task(manager.execute_raw("a", echo("x")))
        await server.wait_for("tools/call")
        # The new instance serves, while the old one waits for the end of its call.
        assert (await manager.apply(replaced)).redeployed == ("a",)
        assert (await manager.apply(replaced)).unchanged == 1
        applied = await manager.apply(fleet(a={**short, "headers": {"X-A": "1"}, "tags": ["x"], "instances": 2}))
        assert applied.updated == ("a",)
        assert (manager.server("a").tags, manager.server("a").draining) == (("x",), 1)
        held.release()
        assert text_of(await call) == "x"
        await eventually(lambda: manager.server("a").draining == 0, "the end of the old instance")
        await eventually(lambda: manager.server("a").ready == 2, "two instances")


async def test_an_unexpected_failure_of_one_server_affects_no_other(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Supervisor) -> None:
        if self.server_id == "a":
            raise ZeroDivisionError("scripted")

    both = {each: {"url": server.url} for each in ("a", "b")}
    async with McpManager(fleet(**both)) as manager:
        with monkeypatch.context() as patched:
            patched.setattr(Supervisor, "adjust", broken)
            changed = {each: {"url": server.url, "tags": ["x"]} for each in both}
            applied = await manager.apply(fleet(**changed, c={"url": server.url}))
        assert (applied.updated, applied.deployed, list(applied.failed)) == (("b",), ("c",), ["a"])
        assert "ZeroDivisionError" in applied.failed["a"]
        assert (await manager.apply(fleet(**changed, c={"url": server.url}))).updated == ("a",)
        for each in ("a", "b", "c"):
            assert text_of(await manager.execute_raw(each, echo(each))) == each


# Programs that take long to start


class Gate:
    """Programs that do not speak before they may."""

    def __init__(self, folder: Path) -> None:
        self._gate, self._log = folder / "gate", folder / "starts"

    def program(self) -> StdioCommand:
        start = [{"do": "note_start", "log": str(self._log)}, {"do": "wait_for", "path": str(self._gate)}]
        return scripted_stdio({"start": start})

    def open(self) -> None:
        self._gate.touch()

    @property
    def starts(self) -> int:
        return len(self._log.read_text().splitlines()) if self._log.exists() else 0


BRIEF = {"connect_timeout_s": 0.05}


@pytest.mark.both_loops
async def test_what_is_still_starting_is_not_begun_again(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    wanted = fleet(a=gate.program().config(**BRIEF, tags=["new"]))
    async with McpManager(fleet(a=scripted_stdio().config())) as manager:
        await manager.wait_ready(timeout=15)
        for _ in range(3):
            assert (await manager.apply(wanted)).starting == ("a",)
        assert manager.server("a").tags == ()
        gate.open()
        await eventually(lambda: manager.server("a").tags == ("new",), "the new program")
        await eventually(lambda: manager._servers["a"].rollout is None, "the end of the replacement")
        assert (await manager.apply(wanted)).unchanged == 1
    assert gate.starts == 1


@pytest.mark.parametrize("then", ["the old one", "another policy", "another program"])
async def test_a_later_configuration_ends_the_start_of_an_earlier_one(tmp_path: Path, then: str) -> None:
    gate = Gate(tmp_path)
    old = scripted_stdio().config()
    async with McpManager(fleet(a=old)) as manager:
        await manager.wait_ready(timeout=15)
        pids = manager.server("a").pids
        assert (await manager.apply(fleet(a=gate.program().config(**BRIEF)))).starting == ("a",)
        await eventually(lambda: gate.starts == 1, "the start of the new program")
        if then == "the old one":
            assert (await manager.apply(fleet(a=old))).unchanged == 1
        elif then == "another policy":
            assert (await manager.apply(fleet(a={**old, "tags": ["x"]}))).updated == ("a",)
            assert manager.server("a").tags == ("x",)
        else:
            assert (await manager.apply(fleet(a={**old, "env": {"A": "1"}}))).redeployed == ("a",)
        assert (manager.server("a").pids == pids) is (then != "another program")
        assert text_of(await manager.execute_raw("a", echo("x"))) == "x"
        gate.open()
        assert manager._servers["a"].rollout is None


@pytest.mark.slow
async def test_a_server_may_be_removed_while_its_replacement_starts(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    for removed_by in ("apply", "undeploy", "stop"):
        async with McpManager(fleet(a=scripted_stdio().config())) as manager:
            await manager.wait_ready(timeout=15)
            assert (await manager.apply(fleet(a=gate.program().config(**BRIEF)))).starting == ("a",)
            if removed_by == "apply":
                applied = await manager.apply(fleet())
                assert (applied.undeployed, applied.failed) == (("a",), {})
            elif removed_by == "undeploy":
                await manager.undeploy("a")
            if removed_by != "stop":
                applied = await manager.apply(fleet(a=scripted_stdio().config()))
                assert (applied.deployed, applied.failed) == (("a",), {})


# What others do meanwhile


async def test_it_waits_for_the_replacement_of_somebody_else_and_then_decides(server: ScriptedServer) -> None:
    async with McpManager(fleet(a={"url": server.url})) as manager:
        theirs = {**QUICK, "url": server.url, "headers": {"X-A": "1"}}
        slow: dict[str, Any] = {"strategy": "canary", "canary_s": 0.2, "min_calls": 0}
        replacing = asyncio.create_task(manager.redeploy("a", theirs, **slow))
        await server.wait_for("initialize", 2)
        applied = await manager.apply(fleet(a={"url": server.url, "headers": {"X-A": "1"}, "tags": ["x"]}))
        assert (applied.updated, applied.failed) == (("a",), {})
        await replacing
        assert manager.server("a").tags == ("x",)
    assert len(server.requests_of("initialize")) == 2


async def test_what_waits_for_somebody_else_does_not_undo_what_comes_later(server: ScriptedServer) -> None:
    held, starting = Hold(), Hold()
    server.script("tools/call", held)
    patient = {"url": server.url, "connect_timeout_s": 60.0}
    theirs = {**patient, "headers": {"X-A": "1"}}
    # It limits how long apply() waits; the sessions are made with another limit.
    brief = {**theirs, **BRIEF}
    async with McpManager(fleet(a=patient)) as manager:
        call = asyncio.create_task(manager.execute_raw("a", echo("x")))
        await server.wait_for("tools/call")
        server.script("initialize", starting)
        replacing = asyncio.create_task(manager.redeploy("a", {**QUICK, **theirs}))
        await server.wait_for("initialize", 2)
        assert (await manager.apply(fleet(a={**brief, "tags": ["x"]}))).starting == ("a",)
        starting.release()
        await eventually(lambda: manager._servers["a"].config.headers != {}, "the new instance")
        # The replacement has taken over; it ends when its old instance has.
        assert not replacing.done()
        assert (await manager.apply(fleet(a={**brief, "tags": ["y"]}))).updated == ("a",)
        held.release()
        await asyncio.gather(call, replacing)
        await eventually(lambda: manager._servers["a"].rollout is None, "the end of the replacement")
        assert manager.server("a").tags == ("y",)
        assert (await manager.apply(fleet(a={**brief, "tags": ["y"]}))).unchanged == 1


async def test_what_others_remove_or_deploy_meanwhile_is_no_failure(server: ScriptedServer) -> None:
    names = [f"s{number}" for number in range(8)]
    config = fleet(**{each: {"url": server.url} for each in names})
    changed = fleet(**{each: {"url": server.url, "headers": {"X-A": "1"}} for each in names})
    for passes in range(12):
        async with McpManager(config) as manager:
            applying = [asyncio.create_task(manager.apply(changed)), asyncio.create_task(manager.apply(fleet()))]
            for _ in range(passes):
                await asyncio.sleep(0)
            for each in names[:4]:
                with contextlib.suppress(McpManagerError):
                    await manager.undeploy(each)
            with contextlib.suppress(McpManagerError):
                await manager.deploy("s0", {**QUICK, "url": server.url})
            outcomes = await asyncio.gather(*applying)
            assert [each.failed for each in outcomes] == [{}, {}]
            assert ids(manager) == [] or passes == 0 or ids(manager) == ["s0"]


@pytest.mark.both_loops
async def test_stopping_the_manager_ends_it(server: ScriptedServer) -> None:
    server.script_always("initialize", Hold())
    for passes in range(12):
        manager = McpManager()
        await manager.start()
        config = fleet(**{f"s{each}": {"url": server.url} for each in range(3)})
        applying = [asyncio.create_task(manager.apply(config)) for _ in range(3)]
        for _ in range(passes):
            await asyncio.sleep(0)
        await manager.stop()
        for outcome in await asyncio.gather(*applying, return_exceptions=True):
            assert isinstance(outcome, NotRunningError), outcome
        assert manager._servers == {}


@pytest.mark.both_loops
@pytest.mark.parametrize("passes", [0, 1, 2, 3, 4, 5, 7, 9, 12, 16, 22, 30, 45, 70])
async def test_giving_up_leaves_every_server_as_it_was_or_as_it_was_to_be(server: ScriptedServer, passes: int) -> None:
    url = {"url": server.url}
    before = fleet(policy=url, replaced=url, gone=url, scaled=url, same=url)
    after = fleet(
        policy={**url, "tags": ["x"]},
        replaced={**url, "headers": {"X-A": "1"}, "tags": ["x"]},
        scaled={**url, "instances": 3},
        same=url,
        fresh=url,
        lazy={**url, "connect": "lazy"},
    )
    async with McpManager(before) as manager:
        async with Traffic(manager, "policy", callers=2) as traffic:
            applying = asyncio.create_task(manager.apply(after))
            waiting = asyncio.create_task(manager.apply(after))
            for _ in range(passes):
                await asyncio.sleep(0)
            applying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await applying
            # The next one has its turn, and finishes what was begun.
            assert (await waiting).failed == {}
            assert traffic.failures == {}
        assert sorted(ids(manager)) == ["fresh", "lazy", "policy", "replaced", "same", "scaled"]
        assert (await manager.apply(after)).unchanged == 6
        assert [manager.server(each).tags for each in ("policy", "replaced")] == [("x",), ("x",)]
        await eventually(lambda: manager.server("scaled").ready == 3, "three instances")
        for each in ("policy", "replaced", "scaled", "same", "fresh", "lazy"):
            assert text_of(await manager.execute_raw(each, echo(each))) == each


async def test_giving_up_between_servers_deploys_no_half(server: ScriptedServer) -> None:
    config = fleet(**{f"s{each}": {"url": server.url} for each in range(100)})
    for passes in (1, 2, 3, 5, 8):
        async with McpManager() as manager:
            applying = asyncio.create_task(manager.apply(config))
            for _ in range(passes):
                await asyncio.sleep(0)
            applying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await applying
            for each in manager.servers():
                # Whatever is deployed is connected, too.
                await manager.ping(each.id)


async def test_the_loop_goes_on_while_a_large_fleet_is_applied() -> None:
    turns, is_over = 0, False

    async def count() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            await asyncio.sleep(0)

    lazy = {"url": "http://127.0.0.1:1/mcp", "connect": "lazy"}
    names = [f"s{number}" for number in range(3000)]
    async with McpManager() as manager:
        counting = asyncio.create_task(count())
        for tags in ([], ["x"]):
            before = turns
            await manager.apply(fleet(**{each: {**lazy, "tags": tags} for each in names}))
            assert turns - before > 5
        is_over = True
        await counting


async def test_calls_meet_their_server_while_the_fleet_is_turned_over(server: ScriptedServer) -> None:
    with ScriptedServer() as other:
        first = fleet(a={"url": server.url}, b={"url": server.url, "tags": ["x"]})
        second = fleet(a={"url": other.url}, b={"url": server.url, "priority": 3}, c={"url": other.url})
        async with McpManager(first) as manager:
            async with (
                Traffic(manager, "a", callers=4, name="to a") as to_a,
                Traffic(manager, "b", name="to b") as to_b,
            ):
                for _ in range(5):
                    for config in (second, first):
                        applied = await manager.apply(config)
                        assert (applied.redeployed, applied.updated, applied.failed) == (("a",), ("b",), {})
                        await to_a.goes_on(5)
                        await to_b.goes_on(5)
            assert (to_a.failures, to_b.failures) == ({}, {})
            executed = Counter([*server.executed, *other.executed])
            assert executed == Counter([*to_a.answered, *to_b.answered])
