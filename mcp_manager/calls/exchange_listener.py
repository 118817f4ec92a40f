"""What a server sends for one exchange before its reply: handed to one function, and to nobody else."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final

import msgspec

from mcp_manager.errors import RpcError
from mcp_manager.protocol.error_codes import INTERNAL_ERROR
from mcp_manager.protocol.json_reading import JsonDecoder
from mcp_manager.protocol.multi_round import MAX_ROUNDS
from mcp_manager.serialization import Serializable
from mcp_manager.session import SessionTemplate
from mcp_manager.session.progress import Deliveries
from mcp_manager.transports.base import CallListener, ProgressReport

__all__ = ["Answer", "ExchangeListener", "OnMessage", "ServerMessage"]

_PROGRESS: Final = "notifications/progress"
# While the deadline stands still, it is looked at again after this time at the earliest.
_LOOK_AGAIN_NS: Final = 50_000_000

_params_decoder = JsonDecoder(dict[str, Any])
_members_decoder = JsonDecoder(dict[str, msgspec.Raw])


class ServerMessage(Serializable, msgspec.Struct, frozen=True):
    """A message that a server sends for one exchange, before its reply.

    Parameters
    ----------
    method
        The method, such as ``elicitation/create`` or ``notifications/progress``.
    raw_params
        The params as JSON, ``{}`` if there are none.
    wants_answer
        Whether it is a request; otherwise it is a notification.
    key
        The name that the server gave a request: in the stateless era the key of the question, in the handshake era
        ``mcp-manager/inputKey`` in the ``_meta`` of its params; else "".
    """

    method: str
    raw_params: bytes
    wants_answer: bool = False
    key: str = ""

    @property
    def params(self) -> dict[str, Any]:
        """The params as Python data; a new object each time."""
        return _params_decoder.decode(self.raw_params)


Answer = Mapping[str, Any] | bytes | None
OnMessage = Callable[[ServerMessage], Awaitable[Answer] | Answer]
"""``on_message(message)`` takes what a server sends for one exchange; it may be a coroutine function.

To a request it returns the result: a mapping, or the JSON of an object as bytes. :class:`RpcError` refuses the request.
What it returns for a notification is ignored. If the coroutines of more than 256 notifications wait, the oldest are
dropped.

It may have an attribute ``party``, a string that names whom the request is made for: see :meth:`McpManager.exchange`.
"""


class ExchangeListener(CallListener):
    """Hand the messages of one exchange to a function, in order.

    Notifications are handed over before the exchange returns. A request that is still unanswered when the exchange ends
    is refused.

    Parameters
    ----------
    on_message
        See :data:`OnMessage`; ``None`` leaves requests to the handlers of the manager.
    template
        Has the log of what the function raises for notifications, and the count of those that are dropped because too
        many wait for an ``on_message`` that is slow.
    tokens
        The progress token that the server gets, and that of the caller, as JSON; ``None`` without one.
    context
        The context that the function is called in, a copy of the current one by default.
    """

    __slots__ = (
        "_answering",
        "_asked",
        "_asked_ns",
        "_asking",
        "_closed",
        "_deliveries",
        "_on_message",
        "_own_token",
        "_stood_ns",
        "_template",
        "context",
        "has_answered",
        "party",
        "stands_still",
        "takes_every_result",
        "takes_messages",
        "token",
    )

    def __init__(
        self,
        on_message: OnMessage | None,
        template: SessionTemplate,
        tokens: tuple[str, msgspec.Raw] | None = None,
        context: Context | None = None,
    ) -> None:
        self._on_message = on_message
        self._template = template
        self.context: Context | None = copy_context() if context is None else context
        self.takes_messages: bool = on_message is not None
        self.party: str | None = getattr(on_message, "party", None)
        self.takes_every_result: bool = True
        self.has_answered: bool = False
        # Whether the deadline does while the function answers.
        self.stands_still: bool = True
        self.token: str | None = None if tokens is None else tokens[0]
        self._own_token = None if tokens is None else tokens[1]
        # Made on first use: for most requests, the reply is all that comes.
        self._deliveries: Deliveries | None = None
        self._answering: set[asyncio.Task[Any]] | None = None
        self._closed = False
        # How long its deadline stood still, since when it does, for how many questions at the moment and in all.
        self._stood_ns = 0
        self._asked_ns = 0
        self._asking = 0
        self._asked = 0

    @property
    def is_delivering(self) -> bool:
        """Whether there was something to hand over, so that :meth:`finish` may have to wait."""
        return self._deliveries is not None

    def take_progress(self, params: bytes, report: ProgressReport) -> None:
        """Hand over a progress report, with the token of the caller."""
        if self._own_token is not None:
            members = _members_decoder.decode(params)
            members["progressToken"] = self._own_token
            params = msgspec.json.encode(members)
        self._hand_over(_PROGRESS, params)

    def take_notification(self, method: str, params: bytes | None) -> None:
        """Hand over a notification."""
        self._hand_over(method, params or b"{}")

    def answer(self, method: str, params: dict[str, Any], key: str = "") -> Any:
        """Return the answer to a request; raises what the function raises."""
        assert self._on_message is not None
        self._check_open()
        self.has_answered = True
        answer = self._on_message(ServerMessage(method, msgspec.json.encode(params), True, key))
        return self._awaited(answer) if inspect.isawaitable(answer) else _as_json(answer)

    def put_off(self, deadline_ns: int) -> int:
        """Return a deadline of the exchange, put off by the time that the function took for answers.

        While it answers, the result lies in the future, and is later with every call.
        """
        if not deadline_ns:
            return 0
        due_ns = deadline_ns + self._stood_ns
        if not self._asking:
            return due_ns
        now_ns = time.monotonic_ns()
        return max(due_ns + now_ns - self._asked_ns, now_ns + _LOOK_AGAIN_NS)

    def end(self) -> bool:
        """End the exchange: requests without an answer are refused. Return whether :meth:`aclose` has to be awaited."""
        self._closed = True
        for each in self._answering or ():
            each.cancel()
        return self._deliveries is not None

    async def finish(self, deadline_ns: int) -> None:
        """Wait until all notifications are handed over, or until the deadline."""
        if self._deliveries is not None:
            await self._deliveries.finish(deadline_ns)

    async def aclose(self) -> None:
        """End the exchange, and hand nothing more over."""
        self.end()
        if self._deliveries is not None:
            await self._deliveries.aclose()

    def _hand_over(self, method: str, raw_params: bytes) -> None:
        if self._on_message is None or self._closed:
            return
        if self._deliveries is None:
            template = self._template
            dropped = partial(template.knowledge.faults.count, "too many notifications at once")
            self._deliveries = Deliveries("the on_message of an exchange", template.containment, self.context, dropped)
        self._deliveries.deliver(self._on_message, ServerMessage(method, raw_params))

    async def _awaited(self, answer: Awaitable[Answer]) -> Any:
        # Each request of a server is answered in a task of its own.
        answering = asyncio.current_task()
        assert answering is not None
        if self._answering is None:
            self._answering = set()
        self._answering.add(answering)
        self._asked += 1
        stands = self.stands_still and self._asked <= MAX_ROUNDS
        if stands:
            if not self._asking:
                self._asked_ns = time.monotonic_ns()
            self._asking += 1
        try:
            return _as_json(await answer)
        except asyncio.CancelledError:
            self._check_open()
            raise
        finally:
            if stands:
                self._asking -= 1
                if not self._asking:
                    self._stood_ns += time.monotonic_ns() - self._asked_ns
            self._answering.discard(answering)
            # It holds the exception, whose traceback holds this frame.
            del answering

    def _check_open(self) -> None:
        if self._closed:
            raise RpcError(INTERNAL_ERROR, "The call that this request belongs to has ended")


def _as_json(answer: Answer) -> Any:
    # Often the JSON of a client: more than one object would change the frame around it, such as its id.
    return _members_decoder.decode(answer) if isinstance(answer, bytes) else answer
