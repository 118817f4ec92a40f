"""The application's handlers for requests and notifications of servers, and running one with a time limit."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from mcp_manager.config.arguments import shown
from mcp_manager.errors import ConfigError, RpcError
from mcp_manager.protocol import methods
from mcp_manager.protocol.elicitation import accept_with_defaults
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.runtime.background import background_task
from mcp_manager.serialization import Serializable

__all__ = [
    "ElicitationRequest",
    "Handler",
    "HandlerMap",
    "Handlers",
    "LogMessage",
    "Progress",
    "Root",
    "RootLike",
    "Roots",
    "SamplingRequest",
    "TookTooLongError",
    "as_handlers",
    "outcome",
    "start_handler",
]

T = TypeVar("T")

Handler = Callable[[str, Any], Awaitable[Any] | Any]
"""``handler(server_id, params)`` answers a request, or takes a notification; it may be a coroutine function."""
HandlerMap = Mapping[str, Handler]
"""Handlers by method name, such as ``sampling/createMessage`` or ``notifications/message``."""


class TookTooLongError(Exception):
    """A handler did not answer within its time limit."""


class SamplingRequest(Serializable, msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A server's request to generate a message with the client's language model (2025-11-25, client/sampling).

    Members that the server left out are ``None``. Nested objects are as the server sent them.

    Parameters
    ----------
    messages
        The conversation so far: objects with ``role`` (``user`` or ``assistant``) and ``content``.
    max_tokens
        The most tokens to generate.
    system_prompt
        The system prompt that the server suggests.
    model_preferences
        Which model the server prefers: ``hints``, ``costPriority``, ``speedPriority`` and ``intelligencePriority``.
    temperature
        The sampling temperature that the server suggests.
    stop_sequences
        Texts that end the generation.
    include_context
        Which context of servers to include: ``none``, ``thisServer`` or ``allServers``.
    tools, tool_choice
        The tools that the model may use, and how it chooses among them. A server that sends them is refused unless the
        client declares ``{"sampling": {"tools": {}}}``; see the ``capabilities`` of :class:`~mcp_manager.McpManager`.
    metadata
        Further parameters for the provider of the model.
    """

    messages: list[dict[str, Any]]
    max_tokens: int
    system_prompt: str | None = None
    model_preferences: dict[str, Any] | None = None
    temperature: float | None = None
    stop_sequences: list[str] | None = None
    include_context: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class ElicitationRequest(Serializable, msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A server's request for user input: a form to fill in, or a URL to visit (2025-11-25, client/elicitation).

    A handler returns what :meth:`accept`, :meth:`decline` or :meth:`cancel` returns.

    Parameters
    ----------
    message
        The text to show to the user.
    mode
        ``form`` or ``url``.
    requested_schema
        The form, as a JSON schema: a flat object of strings, numbers, integers, booleans and choices. Empty in mode
        ``url``.
    url
        The URL that the user is asked to visit; ``None`` in mode ``form``.
    elicitation_id
        The id that ``on_elicitation_complete`` reports when the visit is done; ``None`` in mode ``form``.
    """

    message: str
    mode: str = "form"
    requested_schema: dict[str, Any] = msgspec.field(default_factory=dict)
    url: str | None = None
    elicitation_id: str | None = None

    def accept(self, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of a user who accepts.

        Parameters
        ----------
        content
            The values of the form's fields, by name. Fields that are missing get the defaults of the schema, if they
            have any. Ignored in mode ``url``.
        """
        return accept_with_defaults({"mode": self.mode, "requestedSchema": self.requested_schema}, content)

    def decline(self) -> dict[str, Any]:
        """Return the answer of a user who says no."""
        return {"action": "decline"}

    def cancel(self) -> dict[str, Any]:
        """Return the answer of a user who made no choice, by closing the form for example."""
        return {"action": "cancel"}


class LogMessage(Serializable, msgspec.Struct, frozen=True, kw_only=True):
    """A server's log message (2025-11-25, server/utilities/logging).

    Parameters
    ----------
    level
        The severity: ``debug``, ``info``, ``notice``, ``warning``, ``error``, ``critical``, ``alert`` or ``emergency``.
    data
        The message: text, or any other JSON value.
    logger
        The name of the server's logger, ``None`` if it has none.
    """

    level: str
    data: Any = None
    logger: str | None = None


class Progress(Serializable, msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A progress report of one request (2025-11-25, basic/utilities/progress).

    Parameters
    ----------
    progress_token
        The token of the request that the report is about.
    progress
        How much is done; grows with every report.
    total
        How much there is to do, ``None`` if the server does not know.
    message
        A text about the progress, or ``None``.
    """

    progress_token: str | int
    progress: float
    total: float | None = None
    message: str | None = None


class _Updated(msgspec.Struct, frozen=True):
    uri: str


class _Completed(msgspec.Struct, frozen=True, rename="camel"):
    elicitation_id: str


class Root(Serializable, msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A directory or file that servers may work on (2025-11-25, client/roots).

    Parameters
    ----------
    uri
        A ``file://`` URI.
    name
        A name to show to people, or ``None``.
    """

    uri: str
    name: str | None = None


RootLike = str | Path | Root
Answer = Awaitable[Mapping[str, Any]] | Mapping[str, Any]
Done = Awaitable[None] | None


def as_handlers(handlers: object, name: str) -> dict[str, Callable[..., Any]]:
    """Return a copy of a mapping of functions by method name, empty for ``None``; raises :class:`ConfigError`."""
    if handlers is None:
        return {}
    if not isinstance(handlers, Mapping):
        raise ConfigError(
            f"{name} must be a mapping, not {shown(handlers)}", hint="use Handlers, or give functions by method name"
        )
    for method, handler in handlers.items():
        if method in Handlers.__struct_fields__:
            hint = f"use Handlers({method}=…): a mapping has functions by method name, such as elicitation/create"
            raise ConfigError(f"{name} has {method!r}, which is no method", hint=hint)
        if not isinstance(method, str) or not callable(handler):
            raise ConfigError(f"{name} must be functions by method name, which that of {method!r} is not")
    return dict(handlers)


class Handlers(msgspec.Struct, frozen=True, kw_only=True):
    """The handlers of an application: they answer the requests of servers and take their notifications.

    Every handler may be a function or a coroutine function, and gets the server id first. It runs on the manager's loop,
    which a function must not block; only with ``PyMcpManager`` do functions that answer requests run in threads of
    their own. The client declares to servers the capabilities for which there are handlers. A handler that raises, or
    takes longer than ``handler_timeout_s`` of :class:`~mcp_manager.ManagerConfig`, affects only its own request or
    notification: the server receives an error. Raise :class:`~mcp_manager.RpcError` to choose which. A server of
    2026-07-28 asks as part of a call, so there the call fails with :class:`~mcp_manager.InputRequiredError`.

    Parameters
    ----------
    sampling
        ``sampling(server_id, request)`` gets a :class:`SamplingRequest` and returns a ``CreateMessageResult``: a
        mapping with ``role``, ``content`` and ``model``.
    elicitation, url_elicitation
        ``elicitation(server_id, request)`` gets an :class:`ElicitationRequest` in mode ``form``, ``url_elicitation``
        one in mode ``url``. Both return ``request.accept(...)``, ``.decline()`` or ``.cancel()``. The manager never
        opens or fetches a URL: the handler asks the user for consent, and opens it.
    roots
        Absolute paths or ``file://`` URIs, as a list that ``McpManager.set_roots`` can replace later; or
        ``roots(server_id)``, which returns them.
    logging
        ``logging(server_id, message)`` gets every :class:`LogMessage`; ``McpManager.set_log_level`` chooses the level.
    progress
        ``progress(server_id, report)`` gets the :class:`Progress` reports of all requests.
    on_tools_changed, on_prompts_changed, on_resources_changed
        ``on_tools_changed(server_id)`` is called after the server's list of tools has changed; likewise the others.
    on_resource_updated
        ``on_resource_updated(server_id, uri)`` is called after a subscribed resource has changed.
    on_elicitation_complete
        ``on_elicitation_complete(server_id, elicitation_id)`` is called when the visit to a URL is done.
    others
        Handlers for other methods, by method name: ``handler(server_id, params)`` gets the decoded params.

    Examples
    --------
    Fill in every form with one value and its defaults, and print log messages::

        def fill_in(server_id: str, request: ElicitationRequest) -> dict[str, Any]:
            return request.accept({"name": "Ada"})


        def log(server_id: str, message: LogMessage) -> None:
            print(server_id, message.level, message.data)


        manager = McpManager(handlers=Handlers(elicitation=fill_in, logging=log, roots=["file:///srv/data"]))
    """

    sampling: Callable[[str, SamplingRequest], Answer] | None = None
    elicitation: Callable[[str, ElicitationRequest], Answer] | None = None
    url_elicitation: Callable[[str, ElicitationRequest], Answer] | None = None
    roots: Sequence[RootLike] | Callable[[str], Awaitable[Iterable[RootLike]] | Iterable[RootLike]] | None = None
    logging: Callable[[str, LogMessage], Done] | None = None
    progress: Callable[[str, Progress], Done] | None = None
    on_tools_changed: Callable[[str], Done] | None = None
    on_prompts_changed: Callable[[str], Done] | None = None
    on_resources_changed: Callable[[str], Done] | None = None
    on_resource_updated: Callable[[str, str], Done] | None = None
    on_elicitation_complete: Callable[[str, str], Done] | None = None
    others: HandlerMap = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name not in ("roots", "others") and value is not None and not callable(value):
                raise ConfigError(f"{name} must be a function, not of type {type(value).__name__}")
        as_handlers(self.others, "others")

    def by_method(self, roots: Roots | None) -> dict[str, Handler]:
        """Return the handlers by method name; ``roots`` is the result of :meth:`root_list`."""
        handlers = dict(self.others)
        if self.sampling is not None:
            handlers[methods.SAMPLE] = _typed(SamplingRequest, self.sampling)
        if self.elicitation is not None or self.url_elicitation is not None:
            handlers[methods.ELICIT] = _typed(ElicitationRequest, self._elicit)
        if self.roots is not None:
            handlers[methods.LIST_ROOTS] = self._answer_roots if roots is None else roots.answer
        if self.logging is not None:
            handlers[methods.LOG_MESSAGE] = _typed(LogMessage, self.logging)
        if self.progress is not None:
            handlers[methods.PROGRESS] = _typed(Progress, self.progress)
        for method, changed in (
            (methods.TOOLS_CHANGED, self.on_tools_changed),
            (methods.PROMPTS_CHANGED, self.on_prompts_changed),
            (methods.RESOURCES_CHANGED, self.on_resources_changed),
        ):
            if changed is not None:
                handlers[method] = _without_params(changed)
        if (updated := self.on_resource_updated) is not None:
            handlers[methods.RESOURCE_UPDATED] = _typed(_Updated, lambda server_id, news: updated(server_id, news.uri))
        if (completed := self.on_elicitation_complete) is not None:
            handlers[methods.ELICITATION_COMPLETE] = _typed(
                _Completed, lambda server_id, news: completed(server_id, news.elicitation_id)
            )
        return handlers

    def root_list(self) -> Roots | None:
        """Return the roots as a list that can be replaced; ``None`` if a function returns them, or there are none."""
        return None if self.roots is None or callable(self.roots) else Roots(self.roots)

    def capabilities(self) -> dict[str, Any]:
        """Return the capabilities that the method names alone do not show: the modes of elicitation."""
        modes = {"form": self.elicitation, "url": self.url_elicitation}
        given: dict[str, Any] = {mode: {} for mode, handler in modes.items() if handler is not None}
        return {"elicitation": given} if given else {}

    def _elicit(self, server_id: str, request: ElicitationRequest) -> Answer:
        handler = {"form": self.elicitation, "url": self.url_elicitation}.get(request.mode)
        if handler is None or (request.mode == "url" and request.url is None):
            raise RpcError(INVALID_PARAMS, f"Invalid params: no elicitation in mode {request.mode!r:.40}")
        return handler(server_id, request)

    async def _answer_roots(self, server_id: str, params: Any) -> Any:
        assert callable(self.roots)
        roots = self.roots(server_id)
        return Roots(await roots if isinstance(roots, Awaitable) else roots).result()


class Roots:
    """The list of roots that every server gets.

    Parameters
    ----------
    roots
        Absolute paths or ``file://`` URIs.

    Raises
    ------
    ConfigError
        One of them is neither.
    """

    def __init__(self, roots: Iterable[RootLike]) -> None:
        self._roots: tuple[Root, ...] = ()
        self.replace(roots)

    def replace(self, roots: Iterable[RootLike]) -> None:
        """Replace the list; raises as the constructor does, and then keeps the old list."""
        if isinstance(roots, str):
            raise ConfigError("roots is a string and not a list", hint=f"pass [{roots!r:.200}]")
        self._roots = tuple(_root(each) for each in roots)

    def result(self) -> dict[str, Any]:
        """Return the result of ``roots/list``."""
        return {"roots": self._roots}

    def answer(self, server_id: str, params: Any) -> dict[str, Any]:
        """Answer ``roots/list``, in the same way for every server."""
        return self.result()


def start_handler(handler: Handler, server_id: str, params: Any, context: Context | None = None) -> asyncio.Task[Any]:
    """Run a handler in a task of its own, and return the task; its exception need not be retrieved.

    It runs in a copy of the current context, unless another one is given.
    """

    async def run() -> Any:
        answer = handler(server_id, params)
        return await answer if inspect.isawaitable(answer) else answer

    task = background_task(run(), "run a handler", context=context)
    task.add_done_callback(_retrieve_exception)
    return task


async def outcome(handling: asyncio.Task[Any], timeout_s: float | None) -> Any:
    """Wait for a handler's answer, and return it.

    When the time is up, or the wait is cancelled, the handler is cancelled. If it ignores that, it goes on in the
    background and its answer is dropped. An ``Exception`` that the handler raises is raised unchanged.

    Parameters
    ----------
    handling
        The task that :func:`start_handler` returned.
    timeout_s
        Seconds to wait; ``None`` for no limit.

    Raises
    ------
    TookTooLongError
        The handler did not end in time.
    RuntimeError
        Something else cancelled the handler, or it raised an exception that is neither an ``Exception`` nor meant to
        end the process.
    """
    try:
        await asyncio.wait({handling}, timeout=timeout_s)
    finally:
        if not handling.done():
            handling.cancel()
    if not handling.done():
        raise TookTooLongError
    if handling.cancelled():
        raise RuntimeError("the handler was cancelled, but not by the manager")
    error = handling.exception()
    if error is not None and not isinstance(error, Exception | SystemExit | KeyboardInterrupt):
        # Callers handle only an Exception.
        raise RuntimeError(f"the handler raised {type(error).__name__}") from error
    try:
        return handling.result()
    finally:
        # The traceback of an exception holds this frame.
        del handling, error


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _typed(kind: type[T], handler: Callable[[str, T], Any]) -> Handler:
    """Return a handler that decodes the params; it raises :class:`RpcError` if they do not have the right shape."""

    def handle(server_id: str, params: Any) -> Any:
        try:
            typed = msgspec.convert(params, kind)
        except msgspec.ValidationError as error:
            raise RpcError(INVALID_PARAMS, f"Invalid params: {error}") from None
        return handler(server_id, typed)

    return handle


def _without_params(handler: Callable[[str], Any]) -> Handler:
    return lambda server_id, params: handler(server_id)


def _root(given: RootLike) -> Root:
    if isinstance(given, Path):
        if not given.is_absolute():
            raise ConfigError(f"root {str(given)!r} is not an absolute path", hint="use Path.resolve()")
        return Root(uri=given.as_uri())
    root = given if isinstance(given, Root) else Root(uri=given)
    if not isinstance(root.uri, str) or not _is_file_uri(root.uri):
        raise ConfigError(f"root {root.uri!r:.200} is not a file URI", hint="it must begin with file:///")
    return root


def _is_file_uri(uri: str) -> bool:
    try:
        return urlsplit(uri).scheme == "file"
    except ValueError:
        # A host with an unclosed bracket, for example.
        return False
