"""Every exception of the package, under one root.

Two questions decide what a caller does with a failure, so every error answers both: ``delivery`` (may the request
have been executed?) and ``retryable`` (is trying again of any use?). Neither a message nor an attribute ever holds a
credential.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, Self

__all__ = [
    "AuthError",
    "CallError",
    "CircuitOpenError",
    "ConfigError",
    "ConnectError",
    "ConnectionLostError",
    "DeadlineExceededError",
    "Delivery",
    "InputRequiredError",
    "InvalidRequestError",
    "McpManagerError",
    "NotRunningError",
    "OverloadedError",
    "ProtocolError",
    "RolloutError",
    "RpcError",
    "ScaleError",
    "ServerExistsError",
    "ServerExitedError",
    "ServerNotFoundError",
    "SessionLostError",
    "TaskError",
    "ToolNotFoundError",
    "UrlElicitationRequiredError",
]

# Characters of a server's own text that str() shows.
_SHOWN = 2000

Delivery = Literal["not_sent", "rejected", "unknown", "answered"]
"""What became of a request: ``not_sent`` (no byte of it left), ``rejected`` (the peer refused it unexecuted),
``unknown`` (it may have been executed), ``answered`` (a reply arrived)."""

_LONGEST_NAME: Final = 256


class McpManagerError(Exception):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    message
        One sentence that names the field or server concerned.
    server_id
        The server concerned, or ``None``.
    delivery
        See :data:`Delivery`.
    retryable
        Whether the same call may succeed later without a change by the caller.
    hint
        The way out, or ``""``; it is appended to ``str(error)``.
    """

    delivery: Delivery = "not_sent"
    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        server_id: str | None = None,
        delivery: Delivery | None = None,
        retryable: bool | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.server_id = server_id
        self.hint = hint
        if delivery is not None:
            self.delivery = delivery
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        # By its attributes: __init__ makes the message of some itself, and takes more than args has of others.
        return _blank, (type(self),), {**self.__dict__, "args": self.args}

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def _blank(kind: type[McpManagerError]) -> McpManagerError:
    """Make an error that has yet to get its attributes: a copy, or what crosses to another process."""
    maker = OSError if issubclass(kind, OSError) else Exception
    return maker.__new__(kind)


def _clipped(name: str) -> str:
    """Shorten what is longer than any name can be."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


class ConfigError(McpManagerError, ValueError):
    """A configuration is malformed; nothing was changed."""


class InvalidRequestError(McpManagerError, ValueError):
    """A request is not a JSON-RPC 2.0 request; nothing was sent."""


class ServerNotFoundError(McpManagerError, ValueError):
    """No server is deployed under this id."""

    def __init__(self, server_id: str, *, hint: str = "list_servers() names the deployed ones") -> None:
        super().__init__(f"Server {_clipped(server_id)} not found", server_id=server_id, hint=hint)


class ServerExistsError(McpManagerError, ValueError):
    """The id is already in use; ``redeploy`` replaces a server."""

    def __init__(self, server_id: str) -> None:
        super().__init__(
            f"Server {server_id} already exists",
            server_id=server_id,
            hint="use redeploy to replace it, or undeploy it first",
        )


class ToolNotFoundError(McpManagerError, ValueError):
    """No tool of the fleet has this name."""

    def __init__(self, name: str, *, nearest: str | None = None, missing: Iterable[str] = ()) -> None:
        hints = [f"did you mean {nearest}?"] if nearest is not None else []
        unseen = ", ".join(missing)
        if unseen:
            hints.append(f"the tools of {unseen} could not be listed")
        super().__init__(
            f"Tool {_clipped(name)} not found", hint="; ".join(hints) or "list_all_tools() names those there are"
        )


class NotRunningError(McpManagerError, RuntimeError):
    """The manager is not started, is stopped, or belongs to another event loop."""


class ScaleError(McpManagerError, RuntimeError):
    """The requested number of instances cannot be provided."""


class RolloutError(McpManagerError, RuntimeError):
    """A new configuration was tried and is not good enough; the server has its old one."""


class RpcError(McpManagerError, RuntimeError):
    """The server answered a typed call with a JSON-RPC error object (JSON-RPC 2.0, section 5.1).

    Parameters
    ----------
    code
        The error's integer code.
    message
        The server's own text, but for credentials, 16,384 characters at most; ``str()`` shows the first 2,000 of it without
        control characters.
    data
        The decoded ``data`` member, or ``None``; of an error of more than 256 KiB, or 20,000 values, it is left out, and
        ``hint`` says so.
    """

    delivery: Delivery = "answered"

    def __init__(self, code: int, message: str, data: object = None, *, server_id: str | None = None) -> None:
        super().__init__(message, server_id=server_id)
        self.code = code
        self.data = data

    def __str__(self) -> str:
        # It goes into logs and terminals, and the text is the server's.
        message = "".join(char if char.isprintable() else " " for char in self.message[:_SHOWN])
        cut = "…" if len(self.message) > _SHOWN else ""
        text = f"{message}{cut} (JSON-RPC error {self.code})"
        return f"{text} ({self.hint})" if self.hint else text


class UrlElicitationRequiredError(RpcError):
    """The server refuses a request until its user has been to some URLs (2025-11-25, client/elicitation).

    ``elicitations`` are the params of an ``elicitation/create`` in mode ``url`` each, with ``url``, ``message`` and
    ``elicitationId``. The request was not executed and may be sent again once ``notifications/elicitation/complete`` or
    the user tells that it is done.
    """

    delivery: Delivery = "rejected"
    retryable = True

    def __init__(
        self,
        code: int,
        message: str,
        data: object = None,
        *,
        server_id: str | None = None,
        elicitations: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(code, message, data, server_id=server_id)
        self.elicitations = tuple(elicitations)


class CallError(McpManagerError, RuntimeError):
    """A call got no answer. ``delivery`` says whether the request may have been executed.

    ``attempts`` is how often it was tried; ``delivery`` is that of all of them together. ``http_status`` and ``rpc_code``
    are the status of the HTTP response and the code of the JSON-RPC error that it failed with, ``None`` without one.
    """

    attempts: int = 1
    http_status: int | None = None
    rpc_code: int | None = None

    # Whether it was this side that lacked something, such as a free connection: that says nothing of the server.
    is_local: bool = False

    delivery: Delivery = "unknown"

    def __init__(
        self,
        message: str,
        *,
        server_id: str | None = None,
        delivery: Delivery | None = None,
        retryable: bool | None = None,
        hint: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, server_id=server_id, delivery=delivery, retryable=retryable, hint=hint)
        self.retry_after_s = retry_after_s

    def for_caller(self, delivery: Delivery) -> Self:
        """Copy a failure that several callers share: one object raised in two places would mix their tracebacks."""
        mine = copy.copy(self)
        mine.delivery = delivery
        return mine

    def __str__(self) -> str:
        where = f" on server {self.server_id!r}" if self.server_id is not None else ""
        text = f"Execution failed{where}: {self.message} [delivery: {self.delivery}]"
        return f"{text} ({self.hint})" if self.hint else text


class ConnectError(CallError):
    """No connection to the server could be made; nothing was sent."""

    delivery: Delivery = "not_sent"
    retryable = True


class ConnectionLostError(CallError):
    """The connection broke after the request left and before its reply arrived."""

    retryable = True


class ServerExitedError(ConnectionLostError):
    """The child process of a stdio server ended; the hint quotes the end of its stderr.

    ``retry_after_s`` says when it is started again. ``has_hung`` tells that it was killed because it did not answer.
    """

    has_hung: bool = False

    def __init__(
        self,
        message: str,
        *,
        server_id: str | None = None,
        delivery: Delivery | None = None,
        retryable: bool | None = None,
        hint: str = "",
        retry_after_s: float | None = None,
        exit_code: int | None = None,
    ) -> None:
        super().__init__(
            message,
            server_id=server_id,
            delivery=delivery,
            retryable=retryable,
            hint=hint,
            retry_after_s=retry_after_s,
        )
        self.exit_code = exit_code


class DeadlineExceededError(CallError, TimeoutError):
    """The call's deadline passed before its reply arrived.

    ``is_starting`` tells that the program was still starting, which says nothing against it.
    """

    is_starting: bool = False

    retryable = True


class CircuitOpenError(CallError):
    """The server's circuit breaker is open; nothing was sent.

    ``retry_after_s`` says when to come back: when the program is started again that has ended, which the message then
    quotes, or when calls may try the server; where a trial is under way or due, callers may be let through earlier.
    ``None`` if the circuit is held open.
    """

    delivery: Delivery = "not_sent"
    retryable = True


class OverloadedError(CallError):
    """The server, or a limit in front of it, refused the call for now; it was not executed.

    ``limit`` names the setting that refused it, such as ``limits.max_concurrent``; ``None`` if the server itself did.
    """

    limit: str | None = None

    delivery: Delivery = "rejected"
    retryable = True


class SessionLostError(CallError):
    """The server no longer knows the session and it could not be replaced in time."""

    delivery: Delivery = "rejected"
    retryable = True


class ProtocolError(CallError):
    """The server answered something that is not a valid reply to the request."""


class InputRequiredError(CallError):
    """The server asked for input before it would answer (sampling, elicitation, roots), and got none.

    There is no handler for what it asked, the handler failed, or it asked without end.
    """

    delivery: Delivery = "answered"


class TaskError(CallError):
    """The call went on as a task, and that was cancelled on the server's side: how far it came is not known."""


class AuthError(CallError):
    """The server refused the credentials, or the lack of them (HTTP 401 or 403); the request was not executed.

    ``is_challenged`` tells whether it said which credentials it wants (``WWW-Authenticate``).
    """

    is_challenged: bool = False

    delivery: Delivery = "rejected"
