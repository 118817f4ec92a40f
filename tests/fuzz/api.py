"""Every class and function of the core, called in any order with anything, also from inside its own callbacks."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from random import Random
from typing import Any, Final

from mcp_manager._core.breaker import Breaker, BreakerSettings
from mcp_manager._core.call_path import CallPath, Channel, RequestIds
from mcp_manager._core.call_ring import CallRing
from mcp_manager._core.deadlines import Deadline, DeadlineWheel
from mcp_manager._core.http_message import Request, WireReply, drop_spare
from mcp_manager._core.jsonrpc import scan, use_vector_path, vector_paths
from mcp_manager._core.records import Backend, Balancing, Limits, Server
from mcp_manager._core.router import Router
from mcp_manager._core.serving import ServingPool
from mcp_manager._core.stateless_frame import StatelessFrame
from mcp_manager._core.wire import Wire, WireGroup, WirePool

from ..support.served import ServedTransport, post
from ..support.wires import HEAD, Transport
from .surface import CLASSES, FUNCTIONS, Parameters, parameters_of
from .values import Values

__all__ = ["Failure", "fuzz"]

_STEPS: Final = 60
_MOST_LIVE: Final = 40
_DEEPEST: Final = 3
_COUNTED: Final = {Router: "inflight", Server: "inflight", Backend: "inflight", WireGroup: "idle", Wire: "served"}
_CORE: Final = tuple(CLASSES)
_OWN_WAYS: Final = ("__init__", "__repr__", "__len__", "__bool__", "__iter__", "__sizeof__", "__hash__", "__dir__")


class Failure(Exception):
    """Something that no call may do."""


def describe(value: object) -> str:
    """Write a value down without running any of its code."""
    kind = type(value)
    if kind in (int, float, bool, complex, type(None)):
        return repr(value)
    if kind in (str, bytes):
        return ascii(value) if len(value) <= 60 else f"{value[:20]!a}*{len(value)}"  # type: ignore[arg-type, index]
    return f"<{kind.__name__}>"


class Session:
    """One sequence of operations on objects that it makes."""

    def __init__(self, dice: Random, log: Callable[[str], None]) -> None:
        self.dice = dice
        self.log = log
        self.live: list[Any] = []
        self.depth = 0
        self.left = _STEPS * 4
        self.values = Values(dice, self.live, self.meddle)

    def run(self) -> None:
        """Do everything, and look at the accounts after it."""
        if self.dice.random() < 0.7:
            self.set_the_scene()
        for _ in range(_STEPS):
            self.step()
        self.check()

    def set_the_scene(self) -> None:
        """Make objects that work together, as they would never be made by chance."""
        router, recorder = Router(), CallRing(4)
        router.add_server("s")
        settings = BreakerSettings(open_ns=5, open_max_ns=5, active_first=False, half_open_permits=3)
        instances = [router.add_backend("s", number, settings, tier=number // 2) for number in range(4)]
        wheel = DeadlineWheel(self.values.number_of_a_clock, self.values.callback())
        pool = WirePool(wheel, self.values.number_of_a_clock, bytearray(65_536))
        wire = Wire(pool, self.values.future)
        wire.attach(Transport())  # type: ignore[arg-type]
        channel = Channel(pool, RequestIds(1), self.values.anything(), 1 << 20, HEAD, None)
        instances[0].channel = channel
        path = CallPath(router, self.values.number_of_a_clock, 1, recorder)
        self.live += [router, recorder, *instances, wheel, pool, wire, channel, path, router.server("s")]
        serving = ServingPool(
            DeadlineWheel(lambda: 0, lambda at_ns: None),
            lambda: 0,
            on_request=self.live.append,
            is_endpoint=lambda path: path == b"/mcp",
            make_web_protocol=self.values.anything,
        )
        connection = serving()
        connection.connection_made(ServedTransport())  # type: ignore[arg-type]
        data = post() + post(b"x" * 20, pieces=3)
        connection.get_buffer(-1)[: len(data)] = data
        connection.buffer_updated(len(data))
        self.live += [serving, connection]
        request = Request(b'"tools/call"', b'{"name":"t"}')
        frame = StatelessFrame(b'{"_meta":{}', {b'"tools/call"': (b"Mcp-Method: tools/call\r\n", b"name")}, {})
        self.live += [request, request.exchange(1, 5), frame, scan(b'{"id":1,"method":"m","params":{"name":"t"}}')]
        self.live += [
            settings,
            Balancing(),
            Limits(max_concurrent=2),
            Breaker(settings),
            Deadline(),
            router.pick("s", "m", 1, 1),
        ]
        self.live += [path.begin(router.server("s"), "m", request, 1, 0), WireReply(200, [], b"{}")]

    def meddle(self) -> None:
        """Do something in the middle of something else, if that is not too deep already."""
        if self.depth < _DEEPEST and self.left > 0 and self.live:
            self.depth += 1
            try:
                self.step()
            finally:
                self.depth -= 1

    def step(self) -> None:
        """Do one thing."""
        self.left -= 1
        chance = self.dice.random()
        if chance < 0.12 or not self.live:
            self.construct(self.dice.choice(CLASSES))
        elif chance < 0.22:
            name, function, parameters = self.dice.choice(FUNCTIONS)
            self.attempt(name, function, parameters)
        elif chance < 0.28:
            self.treat_oddly(self.dice.choice(self.live))
        elif chance < 0.32:
            del self.live[self.dice.randrange(len(self.live))]
        else:
            # What was there first is what the others belong to.
            self.use(self.live[min(self.dice.randrange(len(self.live)), self.dice.randrange(len(self.live)))])

    def construct(self, kind: type) -> None:
        """Make an object, or one of a subclass of it, or one that no constructor has seen."""
        way = self.dice.randrange(6)
        if way == 0:
            self.attempt(f"{kind.__name__}.__new__", kind.__new__, None, kind)
        elif way == 1:
            self.attempt(
                f"{kind.__name__} as a base", lambda: type("Sub", (kind,), {"__init__": lambda *_: None})(), None
            )
        else:
            found = parameters_of(kind, "__new__") or parameters_of(kind, "__init__")
            self.attempt(kind.__name__, kind, found)

    def use(self, owner: Any) -> None:
        """Call a method, or read, write or delete an attribute."""
        kind = type(owner)
        names = [name for name in dir(kind) if not name.startswith("__")]
        methods = [name for name in names if callable(getattr(kind, name, None))]
        name = self.dice.choice([*names, *methods * 3, *_OWN_WAYS] if kind in _CORE else names or ["__repr__"])
        label = f"{kind.__name__}.{name}"
        found = getattr(kind, name, None)
        if callable(found):
            self.attempt(label, getattr(owner, name), parameters_of(kind, name))
        elif (way := self.dice.randrange(6)) == 0:
            value = self.values.odd() if self.dice.random() < 0.5 else self.values.callback()
            self.attempt(f"{label} = {describe(value)}", lambda: setattr(owner, name, value), None)
        elif way == 1:
            self.attempt(f"del {label}", lambda: delattr(owner, name), None)
        else:
            self.attempt(label, lambda: getattr(owner, name), None)

    def treat_oddly(self, owner: Any) -> None:
        """Do what can be done to any object."""
        way = self.dice.randrange(7)
        ways: list[Callable[[], Any]] = [
            lambda: copy.copy(owner),
            lambda: copy.deepcopy(owner),
            lambda: pickle.loads(pickle.dumps(owner, self.dice.randrange(6))),
            lambda: gc.get_referents(owner) and gc.get_referrers(owner) and None,
            lambda: weakref.ref(owner, lambda _: self.meddle()),
            lambda: (owner == self.values.odd(), hash(owner), {owner: 1}) and None,
            lambda: gc.collect(self.dice.randrange(3)),
        ]
        self.attempt(f"oddity {way} on {type(owner).__name__}", ways[way], None)

    def attempt(self, label: str, function: Callable[..., Any], parameters: Parameters | None, *given: Any) -> None:
        """Call something; it may raise whatever says that it was misused."""
        positional: list[Any] = list(given)
        named: dict[str, Any] = {}
        if given:
            pass
        elif parameters is not None:
            count = self.dice.randint(parameters.required, len(parameters.positional))
            positional = [self.values.of(name, kind) for name, kind in parameters.positional[:count]]
            named = {name: self.values.of(name, kind) for name, kind in parameters.named if self.dice.random() < 0.4}
        elif label.rpartition(".")[2].startswith("__init__"):
            positional = [self.values.odd() for _ in range(self.dice.randrange(4))]
        shown = [*map(describe, positional), *(f"{name}={describe(value)}" for name, value in named.items())]
        self.log(f"{'  ' * self.depth}{label}({', '.join(shown)})")
        try:
            result = function(*positional, **named)
        except SystemError as error:
            raise Failure(f"{label} raised {error!r}") from error
        except Failure:
            raise
        except Exception as error:
            self.log(f"{'  ' * self.depth}! {type(error).__name__}")
            return
        self.keep(result)
        self.keep_some(positional)

    def keep(self, result: Any) -> None:
        """Keep what is of the core, and what holds it."""
        if type(result) in (list, tuple) and result:
            result = self.dice.choice(result)
        if isinstance(result, (*_CORE, memoryview)):
            self.live.append(result)
        while len(self.live) > _MOST_LIVE:
            del self.live[self.dice.randrange(len(self.live))]

    def keep_some(self, arguments: list[Any]) -> None:
        """Change buffers that were handed over, as their owners may."""
        for each in arguments:
            if type(each) is bytearray and self.dice.random() < 0.3:
                try:
                    each.clear()
                except BufferError:
                    each[:1] = b"!"[: len(each)]
            elif type(each) is memoryview and self.dice.random() < 0.3:
                each.release()

    def check(self) -> None:
        """Raise if what is counted has become fewer than none."""
        for each in self.live:
            name = _COUNTED.get(type(each))
            if name is not None and getattr(each, name) < 0:
                raise Failure(f"{type(each).__name__}.{name} is {getattr(each, name)}")


def fuzz(dice: Random, log: Callable[[str], None]) -> None:
    """Run one sequence."""
    ignored: list[str] = []

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.object, str) and "_core" in unraisable.object:
            ignored.append(f"{unraisable.object}: {unraisable.exc_value!r}")

    use_vector_path(vector_paths()[0])
    drop_spare()
    before, sys.unraisablehook = sys.unraisablehook, note
    try:
        Session(dice, log).run()
        gc.collect()
    finally:
        sys.unraisablehook = before
    if ignored:
        raise Failure(f"ignored: {ignored}")
