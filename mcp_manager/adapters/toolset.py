"""The tools that a model may call, and what it is told of its calls."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypedDict, TypeVar, Unpack

import msgspec

from mcp_manager.adapters.answers import ToolAnswer, answer_of_error, answer_of_result
from mcp_manager.adapters.definitions import ToolDefinition, definition_of
from mcp_manager.adapters.fleet_link import FleetLink, ToolSource
from mcp_manager.bindings.caller_deadline import CallerDeadline
from mcp_manager.config.arguments import check_timeout
from mcp_manager.errors import (
    CallError,
    DeadlineExceededError,
    InvalidRequestError,
    McpManagerError,
    NotRunningError,
    ToolNotFoundError,
)
from mcp_manager.results import CallToolResult
from mcp_manager.verbs.fleet_tools import FleetTool

__all__ = ["CallNext", "Middleware", "OnError", "Toolset", "ToolsetOptions", "as_toolset", "decoded_arguments"]

T = TypeVar("T")

OnError = Literal["tell", "raise"]
"""What becomes of a call without an answer (:class:`CallError`): the model is told, or the error is raised."""

CallNext = Callable[[Mapping[str, Any]], Awaitable[CallToolResult]]
"""Makes a call with these arguments: returns its result, or raises as :meth:`Toolset.call` does."""

Middleware = Callable[[FleetTool, Mapping[str, Any], CallNext], Awaitable[CallToolResult]]
"""An async function around each call: it gets the tool, its arguments and what makes the call, and returns a result.

To refuse a call, it returns a result with ``is_error`` whose text says why, and does not make the call.
"""

_MAX_TEXT: Final = 50_000
# Comparing names letter by letter takes some 30 microseconds for each, so only those with common words are.
_COMPARED: Final = 200


class ToolsetOptions(TypedDict, total=False):
    """How a toolset calls tools and answers models.

    Attributes
    ----------
    timeout
        Seconds for each call; default: the ``request_timeout_s`` of the tool's server.
    max_text
        How many characters of a result a model gets at most; ``None`` for no limit. Default: 50,000.
    on_error
        See :data:`OnError`; default: ``tell``.
    middleware
        Runs around each call of a tool of the fleet, on the manager's loop, for example to ask a person first; see
        :data:`Middleware`. ``timeout`` bounds the call alone, and not what the middleware does besides.
    """

    timeout: float | None
    max_text: int | None
    on_error: OnError
    middleware: Middleware | None


class Toolset:
    """Some tools of a fleet for a model; immutable.

    It holds the definitions of its tools as they were when it was made; :func:`select_tools` makes a new one. It is
    iterable, has a length, and ``name in toolset`` tells whether it has a tool of that name.

    Parameters
    ----------
    manager
        A running manager, or what ``for_caller()`` returns.
    tools
        The tools, in the order in which models see them.
    missing
        Why the tools of a server could not be listed, by server id.
    timeout, max_text, on_error, middleware
        See :class:`ToolsetOptions`.
    """

    # Where a model finds the tools that there are.
    _existing = "call only tools that are offered"

    def __init__(
        self,
        manager: ToolSource,
        tools: Iterable[FleetTool],
        *,
        missing: Mapping[str, str] | None = None,
        **options: Unpack[ToolsetOptions],
    ) -> None:
        self._link = FleetLink(manager)
        self._by_name = {each.name: each for each in tools}
        self._missing: Mapping[str, str] = MappingProxyType(dict(missing or {}))
        self._timeout = check_timeout(options.get("timeout"))
        self._max_text = _checked_max_text(options.get("max_text", _MAX_TEXT))
        self._on_error = _checked_on_error(options.get("on_error", "tell"))
        self._middleware = _checked_middleware(options.get("middleware"))

    @property
    def tools(self) -> tuple[FleetTool, ...]:
        """The tools, in the order in which models see them."""
        return tuple(self._by_name.values())

    @property
    def missing(self) -> Mapping[str, str]:
        """Why the tools of a server could not be listed, by server id."""
        return self._missing

    @cached_property
    def definitions(self) -> tuple[ToolDefinition, ...]:
        """The tools as models see them, in no vendor's format."""
        return tuple(map(definition_of, self.tools))

    def definition(self, name: str) -> ToolDefinition | None:
        """Return the definition of one tool; ``None`` if this set does not have it."""
        return self._definitions_by_name.get(name) if isinstance(name, str) else None

    @cached_property
    def _definitions_by_name(self) -> dict[str, ToolDefinition]:
        return {each.name: each for each in self.definitions}

    def __iter__(self) -> Iterator[FleetTool]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        # What a model wrote may be anything, in plain data.
        return isinstance(name, str) and name in self._by_name

    def __getitem__(self, name: str) -> FleetTool:
        """Return the tool of this name in the fleet; raises ``KeyError``."""
        return self._by_name[name]

    def __repr__(self) -> str:
        names = ", ".join(list(self._by_name)[:5])
        return f"<{type(self).__name__} of {len(self)} tools: {names}{', …' if len(self) > 5 else ''}>"

    def __copy__(self) -> Self:
        """Return the toolset itself, because it is immutable; frameworks copy their tools with all that these hold."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the toolset itself."""
        return self

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str | None = None, *, timeout: float | None = None
    ) -> CallToolResult:
        """Call a tool and return its result; if the tool itself fails, the result has ``is_error``.

        Parameters
        ----------
        name
            Its name in this set.
        arguments
            The arguments by name, or the JSON text that a model wrote; ``None``, ``""`` and ``"null"`` for none.
        timeout
            Seconds for this call; default: the ``timeout`` of this set.

        Raises
        ------
        ToolNotFoundError
            This set has no tool of this name.
        InvalidRequestError
            The arguments are not a JSON object, or the name is not a string.
        CallError, RpcError, ServerNotFoundError, NotRunningError
            As for :meth:`McpManager.call_tool`.
        """
        deadline = self._deadline(name, timeout)
        return await self._link.run(self._call_by(deadline, name, arguments, timeout), deadline)

    def call_blocking(
        self, name: str, arguments: Mapping[str, Any] | str | None = None, *, timeout: float | None = None
    ) -> CallToolResult:
        """Call a tool of a :class:`PyMcpManager` from a thread; see :meth:`call`."""
        deadline = self._deadline(name, timeout)
        return self._link.run_blocking(self._call_by(deadline, name, arguments, timeout), deadline)

    async def answer(
        self, name: str, arguments: Mapping[str, Any] | str | None = None, *, timeout: float | None = None
    ) -> ToolAnswer:
        """Call a tool for a model and return what to tell it; parameters as for :meth:`call`.

        An unknown tool, invalid arguments, a failure of the tool and a call without an answer become an answer that
        says what happened, and whether the call may have been executed. Cancellation is passed on.

        Raises
        ------
        NotRunningError
            The manager does not run, or belongs to another event loop.
        CallError
            There was no answer; only with ``on_error="raise"``.
        InvalidRequestError
            ``timeout`` is invalid.
        """
        deadline = self._deadline(name, timeout)
        try:
            return await self._link.run(self._answer(deadline, name, arguments, timeout), deadline)
        except DeadlineExceededError as error:
            return self._answer_of(error)

    def answer_blocking(
        self, name: str, arguments: Mapping[str, Any] | str | None = None, *, timeout: float | None = None
    ) -> ToolAnswer:
        """Call a tool of a :class:`PyMcpManager` for a model from a thread; see :meth:`answer`."""
        deadline = self._deadline(name, timeout)
        try:
            return self._link.run_blocking(self._answer(deadline, name, arguments, timeout), deadline)
        except DeadlineExceededError as error:
            return self._answer_of(error)

    def run_blocking(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of a :class:`PyMcpManager` and block this thread until it is done.

        Raises
        ------
        NotRunningError
            The manager is a :class:`McpManager`, does not run, or this is the thread of its loop.
        """
        return self._link.run_blocking(work)

    def _deadline(self, name: str, timeout: float | None) -> CallerDeadline | None:
        """Return when a caller gives up whose manager's loop is blocked; it is not known what middleware waits for."""
        # A wrong timeout is a mistake of the program, and not of the model.
        timeout = check_timeout(timeout)
        if self._middleware is not None:
            return None
        tool = self._by_name.get(name) if isinstance(name, str) else None
        # The tools of a search have no server.
        server_id = (tool.server_id or None) if tool is not None else None
        return self._link.deadline(server_id, self._timeout if timeout is None else timeout)

    async def _answer(
        self,
        deadline: CallerDeadline | None,
        name: str,
        arguments: Mapping[str, Any] | str | None,
        timeout: float | None,
    ) -> ToolAnswer:
        try:
            result = await self._call_by(deadline, name, arguments, timeout)
        except NotRunningError:
            raise
        except McpManagerError as error:
            return self._answer_of(error)
        return answer_of_result(result, self._max_text)

    def _answer_of(self, error: McpManagerError) -> ToolAnswer:
        if self._on_error == "raise" and isinstance(error, CallError):
            try:
                raise error
            finally:
                # Its traceback holds this frame.
                del error
        return answer_of_error(error)

    async def _call_by(
        self,
        deadline: CallerDeadline | None,
        name: str,
        arguments: Mapping[str, Any] | str | None,
        timeout: float | None,
    ) -> CallToolResult:
        """Make a call in the time that is left when the loop begins it."""
        return await self._call(name, arguments, timeout if deadline is None else deadline.left_s())

    async def _call(
        self, name: str, arguments: Mapping[str, Any] | str | None, timeout: float | None
    ) -> CallToolResult:
        return await self._call_one_of(self._by_name, name, arguments, timeout)

    async def _call_one_of(
        self,
        tools: Mapping[str, FleetTool],
        name: str,
        arguments: Mapping[str, Any] | str | None,
        timeout: float | None,
    ) -> CallToolResult:
        if not isinstance(name, str):
            raise InvalidRequestError(f"The name of a tool must be a string, not {type(name).__name__}")
        tool = tools.get(name)
        if tool is None:
            raise self._not_found(name, tools)
        decoded = decoded_arguments(arguments)
        call = partial(self._call_tool, tool, timeout=self._timeout if timeout is None else timeout)
        if self._middleware is None:
            return await call(decoded)
        answering = self._middleware(tool, decoded, call)
        if not isinstance(answering, Awaitable):
            raise TypeError(f"the middleware must be an async function; it returned a {type(answering).__name__}")
        result = await answering
        if not isinstance(result, CallToolResult):
            raise TypeError(f"the middleware must return a CallToolResult, not {type(result).__name__}")
        return result

    async def _call_tool(
        self, tool: FleetTool, arguments: Mapping[str, Any], *, timeout: float | None
    ) -> CallToolResult:
        return await self._link.calls.call_tool(tool.server_id, tool.tool.name, arguments, timeout=timeout)

    def _not_found(self, name: str, tools: Mapping[str, FleetTool]) -> ToolNotFoundError:
        nearest = _nearest(name, tools)
        error = ToolNotFoundError(name, nearest=nearest, missing=tuple(self._missing))
        if nearest is None and not self._missing:
            error.hint = self._existing
        return error


def as_toolset(tools: Toolset) -> Toolset:
    """Return a toolset as it is.

    Raises
    ------
    TypeError
        It is something else, such as a manager.
    """
    if not isinstance(tools, Toolset):
        raise TypeError(f"a Toolset is needed, as select_tools() returns it, and not {type(tools).__name__}")
    return tools


def decoded_arguments(arguments: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    """Return arguments as a mapping.

    Raises
    ------
    InvalidRequestError
        They are not a JSON object.
    """
    if arguments is None:
        return {}
    if not isinstance(arguments, str):
        return _checked_object(arguments)
    if not arguments.strip():
        return {}
    try:
        decoded = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidRequestError(f"The arguments are not valid JSON: {error}") from None
    return _checked_object({} if decoded is None else decoded)


def _checked_object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"The arguments must be a JSON object, not {type(value).__name__}")
    return value


def _checked_max_text(max_text: object) -> int | None:
    if max_text is not None and (not isinstance(max_text, int) or isinstance(max_text, bool) or max_text < 1):
        raise InvalidRequestError(f"Invalid max_text {max_text!r}: it must be a positive integer, or None")
    return max_text


def _checked_on_error(on_error: object) -> OnError:
    if on_error == "tell":
        return "tell"
    if on_error == "raise":
        return "raise"
    raise InvalidRequestError(f"Invalid on_error {on_error!r}: it must be 'tell' or 'raise'")


def _checked_middleware(middleware: object) -> Middleware | None:
    if middleware is not None and not callable(middleware):
        raise InvalidRequestError(f"Invalid middleware: it must be an async function, not {type(middleware).__name__}")
    return middleware


def _nearest(name: str, names: Collection[str]) -> str | None:
    import difflib  # noqa: PLC0415 - only for mistaken names

    name = name[:64]
    if len(names) > _COMPARED:
        words, length = set(name.split("_")), len(name)
        names = heapq.nlargest(
            _COMPARED, names, key=lambda each: (len(words.intersection(each.split("_"))), -abs(len(each) - length))
        )
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)
