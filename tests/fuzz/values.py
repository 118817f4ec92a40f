"""Values for arguments: likely ones by their annotation, and odd ones."""

from __future__ import annotations

import ast
import gc
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

__all__ = ["Values"]

_EDGES: Final = [0, 1, -1, 2, 7, 255, 256, 4095, 4096, 65_536]
_BEYOND: Final = [
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
    10**30,
]
_WORDS: Final = ["s", "t", "m", "tools/call", "other", "aimd", "gradient", "off", "auto", "disabled", "forced_open"]
_WORDS_OF_BALANCING: Final = ["p2c", "least_connections", "round_robin", "weighted", "random", "consistent"]
# What chance alone would not hit often enough to get anywhere.
_KNOWN: Final[dict[str, list[Any]]] = {
    "server_id": ["s"],
    "method": ["m", "tools/call"],
    "outcome": [0, 1, 2],
    "status": [0, 1, 2, 3, 4, 5, 7, 11],
    "availability": [0, 1, 2],
    "mode": ["auto", "forced_open", "disabled", "metrics_only", "aimd", "gradient", "off"],
    "policy": _WORDS_OF_BALANCING,
    "random": [0, 1, 1 << 63, (1 << 64) - 1, 0x9E3779B97F4A7C15, 0.5],
    "tier": [0, 1, 2, 255],
    "sizehint": [-1, 65_536],
    "max_depth": [512, 3, 4096],
}
_TEXTS: Final = ["", "\0", "é", "\ud800", "\U0001f600", "x" * 5000, "content-type"]
_BYTES: Final = [
    b"",
    b"\0",
    b"\xff" * 9,
    b"{}",
    b'{"jsonrpc":"2.0","id":1,"result":{}}',
    b'{"method":"m","params":{"name":"t"}}',
    b'{"id":"1","error":{"code":"5"}}',
    b'[{"method":"m"},{"id":2,"result":[1]}]',
    b'"tools/call"',
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"Content-Type",
    b"application/json",
    b"data: x\n\nid: 4\ndata: y\r\n\r\n",
    b"[" * 5000,
    b"a" * 70_000,
]


class Index:
    """A number that runs code when it is asked for."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self.meddle = meddle

    def __index__(self) -> int:
        self.meddle()
        return 3

    def __float__(self) -> float:
        self.meddle()
        return 0.5

    def __bool__(self) -> bool:
        self.meddle()
        return True

    def __eq__(self, other: object) -> bool:
        self.meddle()
        return True

    def __hash__(self) -> int:
        self.meddle()
        return hash("m")

    def __len__(self) -> int:
        self.meddle()
        return 2

    def __iter__(self) -> Iterator[object]:
        self.meddle()
        return iter((b"content-type", None))

    def __del__(self) -> None:
        self.meddle()


class Text(str):
    """A subclass of a built-in type."""

    __slots__ = ()


class Sized(bytes):
    """A subclass whose length lies."""

    def __len__(self) -> int:
        return 1 << 40


class Anything:
    """An object with whatever attribute it is asked for: a transport, a listener, a future, a dialect."""

    def __init__(self, values: Values) -> None:
        self.__dict__["values"] = values

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.values.callback()

    def done(self) -> bool:
        return False


class Future:
    """A future whose callbacks run at once."""

    def __init__(self, values: Values) -> None:
        self.values = values
        self.outcome: object = None

    def done(self) -> bool:
        return self.outcome is not None

    def set_result(self, outcome: object) -> None:
        self.outcome = outcome
        self.values.callback()()

    set_exception = set_result


class Values:
    """Draw values; ``live`` are the objects that there are, ``meddle`` does something to one of them."""

    def __init__(self, dice: Random, live: list[Any], meddle: Callable[[], object]) -> None:
        self.dice = dice
        self.live = live
        self.meddle = meddle

    def number(self) -> int:
        """Draw a whole number, most often one that makes sense."""
        if self.dice.random() < 0.93:
            return self.dice.choice(_EDGES) if self.dice.random() < 0.5 else self.dice.randrange(200) * 10**7
        return self.dice.choice(_BEYOND)

    def callback(self) -> Callable[..., Any]:
        """Make a function that may meddle, raise, or return what nobody expects."""
        kind, number = self.dice.randrange(8), self.number()

        def called(*_: object) -> Any:
            match kind:
                case 0:
                    raise ValueError("a callback raised")
                case 1 | 2:
                    self.meddle()
                case 3:
                    gc.collect(0)
                case 4:
                    return self.odd()
            return number

        return called

    def number_of_a_clock(self) -> int:
        """Say a time that most often makes sense, and meddle now and then."""
        if self.dice.randrange(12) == 0:
            self.meddle()
        return min(abs(self.number()), 1 << 62)

    def future(self) -> Future:
        """Make what a wire promises its reply to."""
        return Future(self)

    def anything(self) -> Anything:
        """Make an object that has every method."""
        return Anything(self)

    def buffer(self) -> Any:
        """Draw an object with a buffer, of any format, and perhaps no longer its own."""
        match self.dice.randrange(6):
            case 0:
                return bytearray(self.dice.choice(_BYTES))
            case 1:
                return memoryview(bytes(range(64)))[::-2]
            case 2:
                return memoryview(bytearray(64)).cast("d")
            case 3:
                return memoryview(bytearray(64)).cast("B", (4, 4, 4))
            case 4:
                view = memoryview(b"gone")
                view.release()
                return view
        return memoryview(bytearray(self.dice.choice(_BYTES)))

    def odd(self) -> Any:
        """Draw what nobody asked for."""
        match self.dice.randrange(12):
            case 0 | 1:
                return None
            case 2:
                return self.dice.choice(_BEYOND)
            case 3:
                return self.dice.choice([math.nan, math.inf, -math.inf, -0.0, 1e308, 5e-324])
            case 4:
                return self.buffer()
            case 5:
                return self.dice.choice([Text("m"), Sized(b"{}"), True, 1j, ..., object])
            case 6 | 7 if self.live:
                return self.dice.choice(self.live)
            case 8:
                return Index(self.meddle)
            case 9:
                return Anything(self)
            case 10:
                return self.dice.choice([[], {}, (), frozenset({"m"}), {b"m": (b"", None)}, [(b"a", None)], [None] * 3])
        return self.dice.choice(_TEXTS)

    def of(self, name: str, annotation: ast.expr | None) -> Any:
        """Draw a value for an argument, one in twelve times an odd one."""
        if annotation is None or self.dice.randrange(12) == 0:
            return self.odd()
        if name in _KNOWN and self.dice.randrange(12):
            return self.dice.choice(_KNOWN[name])
        return self.likely(ast.unparse(annotation))

    def likely(self, kind: str) -> Any:
        """Draw a value of a type by its annotation."""
        kind = kind.strip("'\"")
        if " | " in kind and "[" not in kind:
            kind = self.dice.choice(kind.split(" | "))
        named = [each for each in self.live if any(base.__name__ == kind for base in type(each).__mro__)]
        if named:
            return self.dice.choice(named)
        if kind.startswith("Callable"):
            return self.callback()
        match kind.partition("[")[0]:
            case "int":
                return self.number()
            case "float":
                return self.dice.choice([0.0, 0.1, 0.5, 1.0, 2.0, 10.0, 1000.0])
            case "str":
                return self.dice.choice(_WORDS_OF_BALANCING if self.dice.randrange(8) == 0 else _WORDS)
            case "bytes":
                return self.dice.choice(_BYTES)
            case "bool":
                return self.dice.random() < 0.5
            case "None":
                return None
            case "bytearray":
                return bytearray(self.dice.choice([0, 1, 64, 70_000]))
            case "list":
                return [(b"content-type", b"application/json")]
            case "dict":
                return {b'"tools/call"': (b"Mcp-Method: tools/call\r\n", b"name")} if "bytes" in kind else {}
            case "frozenset":
                return frozenset({"m"})
        return Anything(self) if self.dice.random() < 0.8 else self.odd()
