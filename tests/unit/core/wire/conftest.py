"""A wire with nobody but the test at its far end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from support.wires import Network, Peer


@pytest.fixture
async def network() -> Network:
    return Network(asyncio.get_running_loop().create_future)


@pytest.fixture
async def peer(network: Network) -> Peer:
    return network.connect()


@pytest.fixture(autouse=True)
def nothing_is_left_of_it(peer: Peer) -> Iterator[None]:
    """Whatever happened, the end of its connection leaves nothing of a wire in the pool or the wheel."""
    yield
    peer.lose()
    assert peer.wire.closed
    assert not peer.idle
    assert not peer.wire.pending
    assert peer.wire.transport is None
