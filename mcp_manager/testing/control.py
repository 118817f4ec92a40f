"""What all faulty servers have: a script of faults, a ledger, and the paths by which both are reached over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from mcp_manager.testing.faults.servers import ServerFault
from mcp_manager.testing.faults.wire import FaultOrder, check_fault, check_place, decode_order, encode_fault
from mcp_manager.testing.ledger import Ledger
from mcp_manager.testing.scripted import Fault, Request, ScriptedServer
from mcp_manager.testing.tools import Answers, Era, Tool

__all__ = ["FaultControl"]

_Z_99: Final = 2.326
"""The 99th percentile of the standard normal distribution."""

_CONNECT: Final = "connect"


class FaultControl(ScriptedServer):
    """The script and the ledger of one faulty server, and the paths ``/__faults`` and ``/__ledger``.

    Parameters
    ----------
    era
        How it is spoken to.
    tools
        Its tools by name.
    sse
        Reply with event streams instead of JSON.
    port
        The port of 127.0.0.1 to listen on; 0 for any free one.
    seed
        The seed of the delays of ``slow``.
    """

    def __init__(self, era: Era, tools: Mapping[str, Tool], *, sse: bool = False, port: int = 0, seed: int = 0) -> None:
        super().__init__(sse=sse, sessions=era == "handshake", port=port)
        self.ledger: Ledger = Ledger()
        self._answers = Answers(era, tools, self.ledger)
        self._tools = dict(tools)
        self._random = random.Random(seed)
        self._delay: tuple[float, float] | None = None
        self._exit: tuple[int, int] | None = None
        self._server_faults: list[ServerFault] = []

    def start(self) -> Self:
        """Begin to listen."""
        return self.__enter__()

    def stop(self) -> None:
        """End all connections, and listen no more."""
        self.__exit__()

    @property
    def era(self) -> Era:
        """How it is spoken to."""
        return self._answers.era

    # The script

    def next(self, *faults: Fault, times: int = 1, on: str = "tools/call") -> None:
        """Play faults in place of the next answers: one fault for each request, in this order.

        A fault of the server itself (``slow``, ``flap``, ``rug_pull``, ``exit``, ``ignore_sigterm``, ``stderr_flood``)
        takes effect at once instead, and lasts until :meth:`clear_faults`.

        Parameters
        ----------
        faults
            Faults, as :class:`~mcp_manager.testing.Faults` makes them.
        times
            How often the whole sequence is played.
        on
            The JSON-RPC method of the requests, a method of HTTP (``DELETE``), ``*`` for any POST without a script of
            its own, or ``connect`` for new connections, before a request is read.

        Raises
        ------
        ValueError
            If ``on`` is no method, ``times`` is below 1, or a fault is none, or does not exist for this kind of server.
        """
        check_place(on)
        if times < 1:
            raise ValueError(f"times is a number from 1, not {times}")
        for fault in faults:
            check_fault(fault)
            self.check(fault)
        answers = [fault for fault in faults if not isinstance(fault, ServerFault)]
        for fault in faults:
            if isinstance(fault, ServerFault):
                fault.apply(self)
                self._server_faults.append(fault)
        if on == _CONNECT:
            self.script_connections(*answers, times=times)
        elif answers:
            self.script(on, *answers, times=times)

    def always(self, fault: Fault, *, on: str = "tools/call") -> None:
        """Play a fault for every such request, once the faults of :meth:`next` are used up; see there for ``on``."""
        check_place(on)
        check_fault(fault)
        self.check(fault)
        if isinstance(fault, ServerFault):
            self.next(fault)
        else:
            self.script_always(on, fault)

    def order(self, order: FaultOrder) -> None:
        """Do what was ordered as JSON; raises ``ValueError`` for a fault that does not exist for this kind of server."""
        if order.always:
            self.always(order.faults[0], on=order.on)
        else:
            self.next(*order.faults, times=order.times, on=order.on)

    def clear_faults(self) -> None:
        """Forget all faults, and answer correctly again; what was executed stays in the ledger."""
        with self._lock:
            self._scripts.clear()
            self._standing.clear()
            self._on_connect.clear()
        self._delay = self._exit = None
        self._server_faults.clear()
        self._answers.tools = dict(self._tools)

    def check(self, fault: Fault) -> None:
        """Raise ``ValueError`` for what is no fault, or does not exist for this kind of server."""
        check_fault(fault)

    # Faults of the server itself

    def slow_down(self, p50_s: float, p99_s: float) -> None:
        """Answer late; see :meth:`Faults.slow`."""
        if not 0 < p50_s <= p99_s:
            raise ValueError(f"slow needs 0 < p50 <= p99, not p50={p50_s:g}, p99={p99_s:g}")
        self._delay = (p50_s, p99_s)

    def describe(self, tool: str, description: str) -> None:
        """Change the description of a tool."""
        self._answers.describe(tool, description)

    def exit_after(self, requests: int, code: int) -> None:
        """End in place of the answer to a later request."""
        self._exit = (requests, code)

    def flap(self, period_s: float) -> None:
        """Refuse and accept connections in turns."""
        raise ValueError("a program has no connections that could be refused: use Faults.exit")

    def ignore_sigterm(self) -> None:
        """Go on after SIGTERM."""
        raise ValueError('only a program gets SIGTERM: use faulty_server(transport="stdio")')

    def flood_stderr(self, size: int) -> None:
        """Write to standard error with every request."""
        raise ValueError('only a program has a standard error: use faulty_server(transport="stdio")')

    def delay_s(self) -> float:
        """Return how long to wait before the next answer: log-normal, with the percentiles of ``slow``."""
        if self._delay is None:
            return 0.0
        p50_s, p99_s = self._delay
        return p50_s * math.exp(self._random.gauss(0.0, math.log(p99_s / p50_s) / _Z_99))

    def take_exit(self, request: Request) -> int | None:
        """Count a request; return the code to end with in place of its answer, ``None`` to go on."""
        if request.id is None or request.method is None:
            return None
        with self._lock:
            if self._exit is None:
                return None
            left, code = self._exit
            self._exit = (left - 1, code) if left else None
            return None if left else code

    async def before(self, request: Request) -> None:
        """Wait as ``slow`` has it."""
        delay_s = self.delay_s()
        if delay_s:
            await asyncio.sleep(delay_s)

    # Over HTTP

    def control(self, request: Request) -> tuple[int, bytes] | None:
        """Answer a request to ``/__faults`` or ``/__ledger``."""
        path = request.path.partition("?")[0]
        if not path.startswith("/__"):
            return None
        if "origin" in request.headers:
            # A web page must not set faults.
            return 403, _json({"error": "requests of web pages are refused"})
        try:
            found = self.controlled(request.verb, path, request.body)
        except ValueError as error:
            return 400, _json({"error": str(error)})
        if found is None:
            return 404, _json(
                {"error": f"no {request.verb} {path}: GET, POST, DELETE /__faults and GET, DELETE /__ledger"}
            )
        return 200, _json(found)

    def controlled(self, verb: str, path: str, body: bytes) -> object | None:
        """Do what a request asks for, and return its answer; ``None`` if there is no such path or verb."""
        match verb, path:
            case "POST", "/__faults":
                self.order(decode_order(body))
            case "DELETE", "/__faults":
                self.clear_faults()
            case "GET", "/__faults":
                pass
            case "DELETE", "/__ledger":
                self.ledger.clear()
                return {"entries": []}
            case "GET", "/__ledger":
                return {"entries": self.ledger.entries}
            case _:
                return None
        return self._pending()

    def _pending(self) -> dict[str, Any]:
        with self._lock:
            waiting = {on: [encode_fault(fault) for fault in script] for on, script in self._scripts.items() if script}
            if self._on_connect:
                waiting[_CONNECT] = [encode_fault(fault) for fault in self._on_connect]
            always = {on: encode_fault(fault) for on, fault in self._standing.items()}
        return {"next": waiting, "always": always, "server": [encode_fault(each) for each in self._server_faults]}


def _json(value: object) -> bytes:
    try:
        # The end of line keeps the prompt of a terminal apart from what curl prints.
        return msgspec.json.encode(value) + b"\n"
    except (ValueError, OverflowError):
        # Half of a surrogate pair, or a number of more than 64 bits, that a client sent.
        return json.dumps(msgspec.to_builtins(value)).encode() + b"\n"
