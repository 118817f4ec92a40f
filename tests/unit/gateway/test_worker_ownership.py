"""Each program belongs to one worker, and the others reach it there."""

from __future__ import annotations

from collections import Counter

import pytest

from mcp_manager.config import BreakerConfig, ManagerConfig, RetryConfig, ServerConfig
from mcp_manager.config.changes import EFFECTS
from mcp_manager.gateway.workers import ownership
from mcp_manager.gateway.workers.assignment import Assignment

SECRET = "a secret of the workers"


def assignment(number: int, count: int) -> Assignment:
    return Assignment(number, count, "/run/w", SECRET, ("key" * 12,), -1, -1)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_each_program_runs_once_and_is_reached_at_its_owner(count: int) -> None:
    fleet = ManagerConfig(
        servers={f"s{n}": ServerConfig(command="true", tags=("a",), request_timeout_s=7.0) for n in range(200)}
    )
    shares: Counter[int] = Counter()
    for number in range(count):
        mine = ownership.divided(fleet, assignment(number, count)).servers
        for server_id, server in mine.items():
            owner = ownership.owner_of(server_id, count)
            if owner == number:
                shares[number] += 1
                assert server is fleet.servers[server_id]
            else:
                assert server.transport == "http"
                assert server.command is None
                assert server.unix_socket == f"/run/w/{owner}.sock"
                assert server.url == f"http://localhost/servers/{server_id}/mcp"
                assert (server.tags, server.request_timeout_s) == (("a",), 7.0)
    assert sum(shares.values()) == 200
    assert min(shares.values()) > 200 / count / 2


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_way_to_a_sibling_has_no_circuit_and_repeats_what_was_not_executed(attempts: int) -> None:
    retry = RetryConfig(attempts=attempts, trust_annotations=True, tools={"a": "safe"})
    server = ServerConfig(command="true", breaker=BreakerConfig(consecutive_failures=2), retry=retry)
    fleet = ManagerConfig(servers={"s": server})
    elsewhere = 1 - ownership.owner_of("s", 2)
    link = ownership.divided(fleet, assignment(elsewhere, 2)).servers["s"]
    assert not link.breaker.enabled
    assert link.retry.attempts == max(attempts, 3)
    # Retries that are turned off stay so for what may have been executed.
    assert link.retry.trust_annotations is (attempts > 1)
    assert link.retry.tools == ({} if attempts == 1 else {"a": "safe"})


def test_most_programs_stay_where_they_are_if_there_is_one_worker_more() -> None:
    moved = [n for n in range(1000) if ownership.owner_of(str(n), 4) != ownership.owner_of(str(n), 5)]
    assert len(moved) < 300
    assert all(ownership.owner_of(str(n), 5) == 4 for n in moved)


def test_servers_over_http_are_connected_by_every_worker() -> None:
    fleet = ManagerConfig(servers={"a": ServerConfig(url="http://127.0.0.1:1/mcp")})
    assert all(ownership.divided(fleet, assignment(n, 3)).servers == fleet.servers for n in range(3))


def test_every_field_of_a_server_is_known_here() -> None:
    assert set(EFFECTS) == set(ServerConfig.__struct_fields__)
    assert set(EFFECTS) >= ownership._OF_THE_PROGRAM


def test_secrets_are_not_shown() -> None:
    told = assignment(0, 2)
    assert SECRET not in repr(told)
    assert "keykey" not in repr(told)
