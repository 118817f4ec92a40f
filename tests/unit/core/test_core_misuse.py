"""What the compiled core does with what it was not made for: it refuses, and its accounts stay right."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle
import pkgutil
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import pytest
from support.wires import HEAD, Network

import mcp_manager._core
from mcp_manager._core.allowance import RetryBudget, Shedder
from mcp_manager._core.breaker import Breaker, BreakerSettings
from mcp_manager._core.call_path import CallPath, Channel, RequestIds
from mcp_manager._core.call_ring import CallRing
from mcp_manager._core.deadlines import Deadline, DeadlineWheel
from mcp_manager._core.event_stream import EventStream
from mcp_manager._core.histogram import Histogram, LatencyWindow
from mcp_manager._core.http_message import Exchange, Request, WireReply
from mcp_manager._core.jsonrpc import scan, scan_batch
from mcp_manager._core.records import Limits
from mcp_manager._core.router import Router
from mcp_manager._core.stateless_frame import StatelessFrame
from mcp_manager._core.wire import Wire, WirePool

HEAP_TYPE: Final = 1 << 9
LATEST: Final = 2**63 - 1
REPLY_OF_HTTP: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
NEVER_BARE: Final = frozenset(
    {
        "BodyRoom",
        "CircuitSnapshot",
        "Exchange",
        "DirectCall",
        "GrowingBody",
        "Backend",
        "Lease",
        "Message",
        "Permit",
        "Rejected",
    }
    | {"SseEvent", "WindowSummary", "Wire", "WireReply"}
)


def extension_types() -> dict[str, type]:
    """Every extension type of the core by its name."""
    modules = [
        importlib.import_module(f"mcp_manager._core.{module.name}")
        for module in pkgutil.iter_modules(mcp_manager._core.__path__)
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and not value.__flags__ & HEAP_TYPE and value.__module__ == module.__name__
    }


TYPES: Final = extension_types()


class Future:
    """A future of which nobody asks anything but whether it is done."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.on_result: Callable[[], object] | None = None

    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def set_result(self, result: Any) -> None:
        self.result = result
        if self.on_result is not None:
            self.on_result()

    def set_exception(self, error: BaseException) -> None:
        self.error = error


def new_network() -> Network:
    return Network(Future)  # type: ignore[arg-type]


def one_server(name: str = "s") -> Router:
    router = Router()
    router.add_server(name)
    router.add_backend(name, None, BreakerSettings())
    return router


# Objects that nothing has filled


def test_the_types_of_the_core_are_found() -> None:
    assert {"Router", "Histogram", "SseParser"} | NEVER_BARE <= TYPES.keys()


@pytest.mark.parametrize("name", sorted(NEVER_BARE))
def test_what_comes_from_a_factory_cannot_be_made_bare(name: str) -> None:
    kind = TYPES[name]
    with pytest.raises(TypeError):
        kind.__new__(kind)
    with pytest.raises(TypeError):
        object.__new__(kind)
    with pytest.raises(TypeError):
        kind()


@pytest.mark.parametrize("name", sorted(TYPES.keys() - NEVER_BARE))
def test_whatever_is_made_without_arguments_answers(name: str) -> None:
    kind = TYPES[name]
    try:
        made = kind.__new__(kind)
    except TypeError:
        return
    for each in dir(made):
        if not each.startswith("__"):
            getattr(made, each)
    repr(made)


def test_leases_and_messages_are_not_copied_by_pickle() -> None:
    lease = one_server().pick("s", "m", 0, 0)
    for each in (lease, lease.backend, scan(b'{"id":1,"method":"m"}'), Request(b'"m"', None)):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError):
                pickle.dumps(each, protocol)
        with pytest.raises(TypeError):
            copy.copy(each)


def test_a_wire_that_skips_its_constructor_is_a_closed_one() -> None:
    class Bare(Wire):
        def __init__(self) -> None:
            pass

    wire = Bare()
    assert wire.closed and not wire.idle and not wire.pending
    wire.close()
    wire.retire()
    wire.expired()
    with pytest.raises(RuntimeError):
        wire.attach(object())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        wire.send(HEAD, Exchange(b"{}", 1, 0), None, 10)


def test_a_constructor_that_runs_again_changes_nothing() -> None:
    network = new_network()
    peer = network.connect()
    with pytest.raises(RuntimeError, match="has a pool already"):
        Wire.__init__(peer.wire, new_network().pool, Future)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="attached once"):
        peer.wire.attach(peer.transport)  # type: ignore[arg-type]
    future = peer.send(timeout=5)
    network.wheel.__init__(lambda: 0, lambda at_ns: None)  # type: ignore[misc]
    network.pool.__init__()  # type: ignore[misc]
    assert len(network.wheel) == 1
    peer.deliver(REPLY_OF_HTTP)
    assert future.result is not None  # type: ignore[truthy-function]
    assert len(network.wheel) == 0 and network.pool.idle == [peer.wire]


# Attributes


def test_what_must_be_bytes_cannot_become_nothing() -> None:
    network = new_network()
    channel = Channel(network.pool, RequestIds(1), network.listener, 100, HEAD, None)
    with pytest.raises(TypeError):
        channel.head = None  # type: ignore[assignment]
    with pytest.raises((AttributeError, NotImplementedError)):
        del channel.head
    channel.head = HEAD + b" "
    assert channel.head == HEAD + b" "
    with pytest.raises(TypeError):
        WireReply(200, [(b"content-type", None)], b"")  # type: ignore[list-item]
    with pytest.raises(TypeError):
        StatelessFrame(b"{", {b"m": (b"", None)}, {})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        StatelessFrame(b"{", {b"m": [b"", b"n"]}, {}).exchange(None, 1, 0)  # type: ignore[arg-type, dict-item]


def test_the_list_of_idle_wires_is_a_copy() -> None:
    network = new_network()
    network.pool.idle.append(None)  # type: ignore[arg-type]
    assert network.pool.idle == [] and network.pool.take() is None


# Flights


class Flying:
    """A router with one instance, and a call path whose calls go out on one wire."""

    def __init__(self) -> None:
        self.router = one_server()
        self.server = self.router.server("s")
        lease = self.router.pick("s", "m", 0, 0)
        self.router.done(lease, 0, 0, 0)
        self.instance = lease.backend
        assert self.instance is not None
        self.network = new_network()
        self.peer = self.network.connect()
        self.peer.send()
        self.peer.deliver(REPLY_OF_HTTP)
        self.ring = CallRing(8)
        self.path = CallPath(self.router, lambda: self.network.now, 1, self.ring)
        self.instance.channel = Channel(self.network.pool, RequestIds(7), self.network.listener, 1000, HEAD, None)

    def begin(self) -> Any:
        return self.path.begin(self.server, "m", Request(b'"m"', None), self.network.now, 0)


REPLY: Final = b'{"jsonrpc":"2.0","id":7,"result":{}}'


def test_a_flight_that_did_not_take_off_has_nothing_to_land() -> None:
    flying = Flying()
    direct = flying.path.begin(flying.server, "m", None, flying.network.now, 0)
    assert direct.future is None
    for reply in (WireReply(200, [(b"content-type", b"application/json")], REPLY), scan(REPLY)):
        with pytest.raises(ValueError, match="was not sent"):
            flying.path.land(direct, reply)


def test_a_flight_lands_once() -> None:
    flying = Flying()
    direct = flying.begin()
    assert direct.exchange.request_id == 7
    message = scan(REPLY)
    assert flying.path.land(direct, message) is message
    assert flying.path.land(direct, message) is message
    assert flying.router.inflight == flying.server.inflight == 0
    assert len(flying.ring) == 1


def test_a_reply_without_its_body_is_no_answer() -> None:
    flying = Flying()
    direct = flying.begin()
    reply = WireReply(200, [(b"content-type", b"application/json")], REPLY)
    reply.body = None  # type: ignore[assignment]
    assert flying.path.land(direct, reply) is None


def test_a_channel_of_another_kind_is_refused() -> None:
    flying = Flying()
    assert flying.instance is not None
    flying.instance.channel = object()
    with pytest.raises(TypeError):
        flying.begin()


def test_what_belongs_to_another_router_changes_no_account() -> None:
    flying, other = Flying(), one_server()
    lease = other.pick("s", "m", 0, 0)
    assert lease.backend is not None
    with pytest.raises(ValueError, match="of another router"):
        flying.router.done(lease, 0, 0, 1)
    with pytest.raises(ValueError, match="of another router"):
        flying.router.pick_on(lease.backend, "m", 0)
    with pytest.raises(ValueError, match="of another router"):
        flying.path.begin(other.server("s"), "m", None, 0, 0)
    assert (flying.router.inflight, other.inflight) == (0, 1)
    other.done(lease, 0, 0, 1)
    other.done(lease, 0, 0, 2)
    assert other.inflight == 0


def test_a_refused_call_is_counted_once() -> None:
    router = Router()
    router.add_server("s", limits=Limits(max_concurrent=1))
    router.add_backend("s", None, BreakerSettings())
    router.pick("s", "m", 0, 0)
    refused = router.pick("s", "m", 0, 0)
    assert refused.rejection == 12
    router.count_refused(refused)
    router.count_refused(refused)
    assert sum(router.server_counts("s", 0).methods[0].counts) == 1


# Other owners


def test_a_permit_counts_only_at_its_own_breaker() -> None:
    few = Breaker(BreakerSettings(half_open_permits=1, open_ns=1, open_max_ns=1, active_first=False))
    many = Breaker(BreakerSettings(half_open_permits=2_000, open_ns=1, open_max_ns=1, active_first=False))
    permits = []
    for breaker, count in ((few, 1), (many, 2_000)):
        breaker.trip(0)
        permits = [breaker.acquire(1_000) for _ in range(count)]
    assert few.generation == many.generation
    with pytest.raises(ValueError, match="of another breaker"):
        few.release(permits[-1], 2, 0, 1_001)  # type: ignore[arg-type]
    many.release(permits[-1], 2, 0, 1_001)  # type: ignore[arg-type]


def test_a_deadline_is_lifted_from_its_own_wheel_only() -> None:
    one, other = (DeadlineWheel(lambda: 0, lambda at_ns: None) for _ in range(2))
    first, second = Deadline(), Deadline()
    one.add(first, 5)
    one.add(second, 5)
    for deadline in (first, second):
        with pytest.raises(ValueError, match="another wheel"):
            other.remove(deadline)
    assert (len(one), len(other)) == (2, 0)
    one.clear()
    other.add(first, 5)
    assert (len(one), len(other)) == (0, 1)


# Sizes and times


def test_buffers_take_no_more_than_they_have() -> None:
    network = new_network()
    peer = network.connect()
    peer.send(limit=1 << 20)
    for size in (-1, -(2**63), (1 << 18) + 1, LATEST):
        with pytest.raises(ValueError, match="no room"):
            peer.wire.buffer_updated(size)
    peer.deliver(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
    room = peer.wire.get_buffer(-1)
    assert len(room) == 100_000
    for size in (-1, -100, 100_001, LATEST):
        with pytest.raises(ValueError, match="no room"):
            peer.wire.buffer_updated(size)
    peer.wire.on_body(b"x" * 100_001)
    assert peer.wire.closed


def test_a_view_of_a_body_keeps_its_memory() -> None:
    network = new_network()
    peer = network.connect()
    future: Any = peer.send()
    peer.deliver(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
    room = peer.wire.get_buffer(-1)
    peer.deliver(b" " * 99_999)
    del future.result
    gc.collect()
    filler = [bytearray(2_000) for _ in range(20)]
    room[:] = b"x" * len(room)
    assert not any(map(any, filler))


@pytest.mark.parametrize("name", ["on_header", "on_body"])
def test_what_the_parser_says_is_bytes(name: str) -> None:
    peer = new_network().connect()
    peer.send()
    with pytest.raises(TypeError):
        getattr(peer.wire, name)(*[None] * (2 if name == "on_header" else 1))


@pytest.mark.parametrize("name", ["add", "take"])
def test_a_stream_takes_bytes_alone(name: str) -> None:
    stream = EventStream(Exchange(b"{}", 1, 0), object(), 100)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        getattr(stream, name)(None)
    assert not stream.is_behind


def test_a_listener_may_close_the_wire_that_asks_it() -> None:
    network = new_network()
    peer = network.connect()
    future: Any = peer.send()
    network.listener.take_cookies = lambda values: peer.wire.abandon(future)  # type: ignore[method-assign]
    peer.deliver(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
    assert peer.wire.closed and network.pool.wires == set() and len(network.wheel) == 0


@pytest.mark.parametrize("depth", [-1, -(2**31), 4097, 2**31 - 1])
@pytest.mark.parametrize("read", [scan, scan_batch])
def test_depths_that_nothing_can_keep_are_refused(read: Callable[..., object], depth: int) -> None:
    with pytest.raises(ValueError, match="max_depth must be"):
        read(b'[{"method":"m","params":' + b"[" * 100_000, max_depth=depth)


def test_what_a_recorder_cannot_keep_is_refused() -> None:
    ring = CallRing(1)
    with pytest.raises(OverflowError):
        ring.add("s", "m", None, 0, 0, 2**31, 0)
    ring.add("s", "m", None, 0, 0, 2**31 - 1, 0)
    assert ring.past_calls()[0].inflight == 2**31 - 1


def test_windows_reach_to_the_end_of_time_and_no_further() -> None:
    budget, shedder = RetryBudget(), Shedder()
    window = LatencyWindow()
    for now_ns in (LATEST, -LATEST, 0, LATEST, -1):
        budget.deposit(now_ns)
        shedder.sent(now_ns)
        assert shedder.sheds(now_ns, 0) in (True, False)
        assert budget.balance(now_ns) > 0
        if now_ns >= 0:
            window.record(now_ns, 1)
    router = one_server()
    for now_ns in (LATEST, -LATEST, 0, -1):
        lease = router.pick("s", "m", now_ns, 0)
        router.done(lease, 1, 3, now_ns, LATEST)
        router.snapshot(now_ns)
    assert router.inflight == 0


def test_a_histogram_holds_what_it_can_add_up() -> None:
    histogram = Histogram()
    histogram.record(1, 2**62)
    for duration_ns, count in ((1, 2**63), (1, 2**64 - 1), (LATEST, 2), (2**40, 2**40)):
        with pytest.raises(OverflowError):
            histogram.record(duration_ns, count)
    histogram.merge(Histogram())
    with pytest.raises(OverflowError):
        histogram.merge(histogram)
    assert (histogram.count, histogram.sum_ns, histogram.quantile(1)) == (2**62, 2**62, 1e-9)


# Code of others in the middle


def test_names_that_run_code_are_no_methods() -> None:
    class Name(str):
        __slots__ = ()

    with pytest.raises(TypeError, match="names of methods"):
        Limits(never_shed=frozenset({Name("m")}))


def test_no_code_of_others_runs_in_the_middle_of_a_pick() -> None:
    """Whatever runs there could let another thread in, which would find the lists half changed."""
    settings = BreakerSettings(open_ns=1, open_max_ns=1, active_first=False, probe_ttl_ns=1)
    router = Router()
    router.add_server("s")
    for number in range(50):
        instance = router.add_backend("s", number, settings)
        router.trip(instance, 0)
        router.pick_probe(instance, 10)
    router.take_events()
    ran: list[str] = []

    def remove(frame: FrameType, what: str, argument: object) -> None:
        if what == "call":
            ran.append(frame.f_code.co_name)
            router.remove_server("s")

    sys.setprofile(remove)
    try:
        router.pick("s", "m", 20, 0)
    finally:
        sys.setprofile(None)
    assert ran == []
    assert len(router.take_events()) >= 50


def test_events_are_made_when_they_are_taken() -> None:
    router = one_server()
    lease = router.pick("s", "m", 0, 0)
    assert lease.backend is not None
    router.trip(lease.backend, 1)
    (event,) = router.take_events()
    assert (event.backend, event.from_state, event.to_state, event.reason) == (lease.backend, 0, 1, "tripped")
    assert router.take_events() == []


def test_a_pool_is_made_of_what_it_needs() -> None:
    for arguments in ((None, None, bytearray()), (new_network().wheel, None, None), (new_network().wheel, None, b"")):
        with pytest.raises(TypeError):
            WirePool(*arguments)  # type: ignore[arg-type]
