"""The exceptions of the package, under one root.

Every error answers the two questions that decide what a caller does next: ``delivery`` (may the request have been
executed?) and ``retryable`` (may the same call succeed later?). No message and no attribute holds a credential;
``result`` of a :class:`ToolError` is what the tool sent.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Self

from mcp_manager.serialization.config_problem import ConfigProblem
from mcp_manager.serialization.failures import SerializableError
from mcp_manager.serialization.quoting import beginning_of, clipped

__all__ = [
    "AuthError",
    "CallError",
    "CircuitOpenError",
    "ConfigError",
    "ConfigProblem",
    "ConnectError",
    "ConnectionLostError",
    "DeadlineExceededError",
    "Delivery",
    "InputRequiredError",
    "InvalidRequestError",
    "McpManagerError",
    "NotReadyError",
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
    "ToolError",
    "ToolNotAllowedError",
    "ToolNotFoundError",
    "UrlElicitationRequiredError",
]

Delivery = Literal["not_sent", "rejected", "unknown", "answered"]
"""Whether a request reached the server: ``not_sent`` (no byte was sent), ``rejected`` (the server refused it without
executing it), ``unknown`` (it may have been executed), ``answered`` (a reply arrived)."""


class McpManagerError(SerializableError, Exception):
    """Base of the errors that this package raises.

    Parameters
    ----------
    message
        What went wrong, in one sentence.
    server_id
        The server concerned, or ``None``.
    delivery
        See :data:`Delivery`. Default: that of the class.
    retryable
        Whether the same call may succeed later without a change by the caller. Default: that of the class.
    hint
        What to do about it, or ``""``; ``str(error)`` appends it in parentheses.
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
        # Restored from its attributes, because the parameters of __init__ differ between subclasses and from args.
        return _blank, (type(self),), {**self.__dict__, "args": self.args}

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def _blank(kind: type[McpManagerError]) -> McpManagerError:
    """Make an error without attributes, for copying and unpickling."""
    maker = OSError if issubclass(kind, OSError) else Exception
    return maker.__new__(kind)


class ConfigError(McpManagerError, ValueError):
    """A configuration is invalid; nothing was changed.

    Attributes
    ----------
    problems
        Everything that is wrong in a configuration file, in its order; empty for any other configuration.
    field
        The field that is wrong, such as ``auth.key``; "" if it is none, or more than one.
    """

    problems: tuple[ConfigProblem, ...] = ()
    field: str = ""


class InvalidRequestError(McpManagerError, ValueError):
    """A request is not a JSON-RPC 2.0 request, or an argument of a call is invalid; nothing was sent."""


class ServerNotFoundError(McpManagerError, ValueError):
    """No server is deployed under this id."""

    def __init__(self, server_id: str, *, hint: str = "servers() names the deployed ones") -> None:
        super().__init__(f"Server {clipped(server_id)} not found", server_id=server_id, hint=hint)


class ServerExistsError(McpManagerError, ValueError):
    """The server id is already in use; ``redeploy`` replaces a server."""

    def __init__(self, server_id: str) -> None:
        super().__init__(
            f"Server {server_id} already exists",
            server_id=server_id,
            hint="use redeploy to replace it, or undeploy it first",
        )


class ToolNotFoundError(McpManagerError, ValueError):
    """No server of the fleet that could be listed has a tool of this name.

    Parameters
    ----------
    name
        The name in the fleet.
    nearest
        The most similar name of a tool of the same server, ``None`` without one.
    missing
        Why the tools of servers that may have it could not be listed, by server id.
    """

    def __init__(
        self, name: str, *, nearest: str | None = None, missing: Mapping[str, str] | Iterable[str] = ()
    ) -> None:
        hints = [f"did you mean {nearest}?"] if nearest is not None else []
        reasons = missing if isinstance(missing, Mapping) else dict.fromkeys(missing, "")
        for server_id, reason in reasons.items():
            hints.append(f"the tools of {server_id} could not be listed{': ' if reason else ''}{reason}")
        if not hints:
            hints = ["list_all_tools() names the existing ones"]
            if "__" not in name:
                hints.insert(0, "names of tools in the fleet begin with the server, as in docs__search")
        super().__init__(f"Tool {clipped(name)} not found", hint="; ".join(hints))


class NotRunningError(McpManagerError, RuntimeError):
    """The manager is not started, is stopped, or belongs to another event loop."""


class ScaleError(McpManagerError, RuntimeError):
    """The server cannot have the requested number of instances."""


class RolloutError(McpManagerError, RuntimeError):
    """A new configuration failed its rollout; the server keeps the old one."""


class RpcError(McpManagerError, RuntimeError):
    """The server answered a typed call with a JSON-RPC error object (JSON-RPC 2.0, section 5.1).

    Parameters
    ----------
    code
        The integer code of the error.
    message
        The server's own text, with credentials masked, at most 16,384 characters. ``str()`` shows the first 2,000 of
        them without control characters.
    data
        The decoded ``data`` member, or ``None``. It is left out if the error has more than 256 KiB or 20,000 values;
        ``hint`` says so.
    """

    delivery: Delivery = "answered"

    def __init__(self, code: int, message: str, data: object = None, *, server_id: str | None = None) -> None:
        super().__init__(message, server_id=server_id)
        self.code = code
        self.data = data

    def __str__(self) -> str:
        text = f"{beginning_of(self.message)} (JSON-RPC error {self.code})"
        return f"{text} ({self.hint})" if self.hint else text


class UrlElicitationRequiredError(RpcError):
    """The server refuses a request until the user has visited certain URLs (2025-11-25, client/elicitation).

    The request was not executed. Send it again after ``notifications/elicitation/complete`` has arrived or the user has
    confirmed the visit.

    Parameters
    ----------
    code, message, data
        See :class:`RpcError`.
    elicitations
        One mapping per URL with ``url``, ``message`` and ``elicitationId``: the params of an ``elicitation/create`` in
        mode ``url``.
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
        self.elicitations: tuple[Mapping[str, Any], ...] = tuple(elicitations)


class ToolError(McpManagerError, RuntimeError):
    """A tool reported that it failed; ``raise_for_error()`` and ``data`` of its result raise this.

    ``message`` is the tool's own text, with credentials masked, at most 16,384 characters; ``str()`` shows the first
    2,000 of them without control characters.

    Attributes
    ----------
    tool
        The name of the tool on its server; ``None`` if it is not known.
    result
        The :class:`~mcp_manager.CallToolResult` as it was received, in which nothing is masked.
    """

    tool: str | None = None
    result: Any = None

    delivery: Delivery = "answered"

    def __str__(self) -> str:
        where = f" on server {self.server_id!r}" if self.server_id is not None else ""
        which = f"Tool {clipped(self.tool)!r}" if self.tool is not None else "A tool"
        text = f"{which}{where} failed: {beginning_of(self.message)}"
        return f"{text} ({self.hint})" if self.hint else text


class CallError(McpManagerError, RuntimeError):
    """A call failed without an answer.

    ``delivery`` covers all attempts together: it is ``unknown`` if any of them may have been executed.

    Attributes
    ----------
    attempts
        How often the call was tried.
    http_status, rpc_code
        The HTTP status and the code of the JSON-RPC error with which it failed; ``None`` without one.
    retry_after_s
        Seconds after which to try again; ``None`` if not known.
    """

    attempts: int = 1
    http_status: int | None = None
    rpc_code: int | None = None

    # Whether the cause is on this side, such as no free connection; then it does not count against the server.
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
        """Return a copy with another ``delivery``; callers that share a failure must not share its traceback."""
        mine = copy.copy(self)
        mine.delivery = delivery
        return mine

    def __str__(self) -> str:
        where = f" on server {self.server_id!r}" if self.server_id is not None else ""
        text = f"Execution failed{where}: {self.message} [delivery: {self.delivery}]"
        return f"{text} ({self.hint})" if self.hint else text


class ConnectError(CallError):
    """No connection to the server could be opened; nothing was sent."""

    delivery: Delivery = "not_sent"
    retryable = True


class ConnectionLostError(CallError):
    """The connection broke after the request was sent and before its reply arrived."""

    retryable = True


class ServerExitedError(ConnectionLostError):
    """The child process of a stdio server ended; the hint quotes the end of its stderr.

    Attributes
    ----------
    exit_code
        Its exit code, negative for a signal; ``None`` if not known.
    has_hung
        Whether the manager killed it because it did not answer.
    retry_after_s
        Seconds until the manager restarts it; ``None`` if not known.
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

    Attributes
    ----------
    is_starting
        Whether the server's program was still starting; then the timeout does not count against it.
    """

    is_starting: bool = False

    retryable = True


class NotReadyError(DeadlineExceededError):
    """Servers were not ready in time (``wait_ready``); the message has a line for each that it names.

    Attributes
    ----------
    missing
        Why servers are not ready, by their ids; at most 100 of them.
    """

    missing: Mapping[str, str] = MappingProxyType({})

    delivery: Delivery = "not_sent"

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.message, self.hint and f"({self.hint})")))


class CircuitOpenError(CallError):
    """The server's circuit breaker is open; nothing was sent.

    Attributes
    ----------
    retry_after_s
        Seconds until the circuit admits a trial call, or until the manager restarts the program that ended, which the
        message then quotes. A trial that succeeds may admit calls earlier. ``None`` if the circuit is held open.
    """

    delivery: Delivery = "not_sent"
    retryable = True


class OverloadedError(CallError):
    """The server, or a limit of the manager, refused the call for now. It was not executed, unless ``delivery`` is ``unknown`` (HTTP 503).

    Attributes
    ----------
    limit
        The setting that refused it, such as ``limits.max_concurrent``; ``None`` if the server did.
    """

    limit: str | None = None

    delivery: Delivery = "rejected"
    retryable = True


class SessionLostError(CallError):
    """The server no longer knows the session, and no new session took its place in time."""

    delivery: Delivery = "rejected"
    retryable = True


class ProtocolError(CallError):
    """The server answered with something other than a valid reply to the request."""


class InputRequiredError(CallError):
    """The server needed input before it could answer (sampling, elicitation, roots), and got none.

    There is no handler for the request, the handler failed, or the server asked too often.
    """

    delivery: Delivery = "answered"


class TaskError(CallError):
    """The call became a task, and the server cancelled it; how much was executed is unknown."""


class ToolNotAllowedError(CallError):
    """The server's configuration forbids the tool (``tools``), or the request does not say clearly which tool it calls.

    Nothing was sent, unless the rules changed during the call; then ``delivery`` says what became of what was sent. It
    does not count against the server. The hint names the setting.
    """

    attempts = 0
    is_local = True

    delivery: Delivery = "not_sent"


class AuthError(CallError):
    """The server refused the credentials or their absence (HTTP 401 or 403), or obtaining them failed.

    The request was not executed.

    Attributes
    ----------
    is_challenged
        Whether the server said which credentials it wants (``WWW-Authenticate``).
    """

    is_challenged: bool = False

    delivery: Delivery = "rejected"
