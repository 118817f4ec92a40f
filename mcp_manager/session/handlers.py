"""What a client answers and listens to, by name and with typed params; and how one handler is kept from harming the rest."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from mcp_manager.errors import ConfigError, RpcError
from mcp_manager.protocol import methods
from mcp_manager.protocol.elicitation import accept_with_defaults
from mcp_manager.protocol.error_codes import INVALID_PARAMS
from mcp_manager.runtime.background import background_task

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
    "outcome",
    "start_handler",
]

T = TypeVar("T")

Handler = Callable[[str, Any], Awaitable[Any] | Any]
"""``handler(server_id, params)`` answers a server's request, or takes its notification; it may be a coroutine function."""
HandlerMap = Mapping[str, Handler]
"""Handlers by method name, such as ``sampling/createMessage`` or ``notifications/message``."""


class TookTooLongError(Exception):
    """A handler was given up."""


class SamplingRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A server's wish for a completion by the client's model (2025-11-25, client/sampling)."""

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


class ElicitationRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A server's question to the user: a form to fill in, or a URL to go to (2025-11-25, client/elicitation)."""

    message: str
    mode: str = "form"
    requested_schema: dict[str, Any] = msgspec.field(default_factory=dict)
    url: str | None = None
    elicitation_id: str | None = None

    def accept(self, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer "yes"; fields of the form that ``content`` does not have get their defaults."""
        return accept_with_defaults({"mode": self.mode, "requestedSchema": self.requested_schema}, content)

    def decline(self) -> dict[str, Any]:
        """Return the answer "no"."""
        return {"action": "decline"}

    def cancel(self) -> dict[str, Any]:
        """Return that the user made no choice."""
        return {"action": "cancel"}


class LogMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A server's log message (2025-11-25, server/utilities/logging)."""

    level: str
    data: Any = None
    logger: str | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far a request has come (2025-11-25, basic/utilities/progress)."""

    progress_token: str | int
    progress: float
    total: float | None = None
    message: str | None = None


class _Updated(msgspec.Struct, frozen=True):
    uri: str


class _Completed(msgspec.Struct, frozen=True, rename="camel"):
    elicitation_id: str


class Root(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place in the file system that servers may work in (2025-11-25, client/roots)."""

    uri: str
    name: str | None = None


RootLike = str | Path | Root
Answer = Awaitable[Mapping[str, Any]] | Mapping[str, Any]
Done = Awaitable[None] | None


class Handlers(msgspec.Struct, frozen=True, kw_only=True):
    """What a client answers and listens to. Every handler is given the server's id first, and may be a coroutine function.

    What is not given is not declared to servers. A handler that raises or takes too long costs its request, and nothing
    else; :class:`RpcError` raised by one is what the server is answered.

    Parameters
    ----------
    sampling
        ``sampling(server_id, request)`` returns a ``CreateMessageResult``: ``role``, ``content``, ``model``.
    elicitation, url_elicitation
        Answer questions by form and by URL: ``request.accept(content)``, ``.decline()`` or ``.cancel()``. The consent
        of the user to a URL is the handler's to ask for; nothing here opens or fetches one.
    roots
        File URIs or paths, absolute; or ``roots(server_id)``, which returns them. A list can be replaced later by
        ``McpManager.set_roots``.
    logging, progress
        Take :class:`LogMessage` and :class:`Progress`.
    on_tools_changed, on_prompts_changed, on_resources_changed
        Called with the server's id alone.
    on_resource_updated, on_elicitation_complete
        Called with the URI, and with the id of the elicitation.
    others
        By method name, with params as they came: ``others={"notifications/x": handler}``.
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

    def by_method(self, roots: Roots | None) -> dict[str, Handler]:
        """Return the handlers by method name; ``roots`` are those of :meth:`root_list`."""
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
        for method, told in (
            (methods.TOOLS_CHANGED, self.on_tools_changed),
            (methods.PROMPTS_CHANGED, self.on_prompts_changed),
            (methods.RESOURCES_CHANGED, self.on_resources_changed),
        ):
            if told is not None:
                handlers[method] = _of_server(told)
        if (updated := self.on_resource_updated) is not None:
            handlers[methods.RESOURCE_UPDATED] = _typed(_Updated, lambda server_id, news: updated(server_id, news.uri))
        if (completed := self.on_elicitation_complete) is not None:
            handlers[methods.ELICITATION_COMPLETE] = _typed(
                _Completed, lambda server_id, news: completed(server_id, news.elicitation_id)
            )
        return handlers

    def root_list(self) -> Roots | None:
        """Return the roots that can be replaced, ``None`` where they are asked for or there are none."""
        return None if self.roots is None or callable(self.roots) else Roots(self.roots)

    def capabilities(self) -> dict[str, Any]:
        """Return what the handlers can do that their methods do not tell: the modes of elicitation."""
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
    """The roots that every server is told; raises :class:`ConfigError` for one that is no absolute path or file URI."""

    def __init__(self, roots: Iterable[RootLike]) -> None:
        self._roots: tuple[Root, ...] = ()
        self.replace(roots)

    def replace(self, roots: Iterable[RootLike]) -> None:
        """Tell others from now on; raises as the constructor, and changes nothing then."""
        if isinstance(roots, str):
            raise ConfigError("roots must be a list of file URIs, not one text")
        self._roots = tuple(_root(each) for each in roots)

    def result(self) -> dict[str, Any]:
        """Return the result of ``roots/list``."""
        return {"roots": self._roots}

    def answer(self, server_id: str, params: Any) -> dict[str, Any]:
        """Answer ``roots/list``, whichever server asks."""
        return self.result()


def start_handler(handler: Handler, server_id: str, params: Any) -> asyncio.Task[Any]:
    """Run a handler in a task of its own, whose exception is nobody's duty to look at."""

    async def run() -> Any:
        answer = handler(server_id, params)
        return await answer if inspect.isawaitable(answer) else answer

    task = background_task(run(), "run a handler")
    task.add_done_callback(_look_at)
    return task


async def outcome(handling: asyncio.Task[Any], timeout_s: float) -> Any:
    """Return what a handler answers, and cancel it when nobody waits for that any more.

    One that does not end even so is left alone: its answer goes nowhere. Raises what the handler raises, within a
    ``RuntimeError`` if that is no ``Exception``, and :class:`TookTooLongError` after ``timeout_s`` seconds.
    """
    try:
        await asyncio.wait({handling}, timeout=timeout_s)
    finally:
        if not handling.done():
            handling.cancel()
    if not handling.done():
        raise TookTooLongError
    if handling.cancelled():
        raise RuntimeError("the handler was cancelled, though nobody here did so")
    error = handling.exception()
    if error is not None and not isinstance(error, Exception | SystemExit | KeyboardInterrupt):
        # As if nobody waited: whoever answers for the handler looks at nothing but failures.
        raise RuntimeError(f"the handler raised {type(error).__name__}") from error
    return handling.result()


def _look_at(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _typed(kind: type[T], handler: Callable[[str, T], Any]) -> Handler:
    """Decode the params for a handler; raises :class:`RpcError` for those of another shape."""

    def handle(server_id: str, params: Any) -> Any:
        try:
            typed = msgspec.convert(params, kind)
        except msgspec.ValidationError as error:
            raise RpcError(INVALID_PARAMS, f"Invalid params: {error}") from None
        return handler(server_id, typed)

    return handle


def _of_server(handler: Callable[[str], Any]) -> Handler:
    return lambda server_id, params: handler(server_id)


def _root(given: RootLike) -> Root:
    if isinstance(given, Path):
        if not given.is_absolute():
            raise ConfigError(f"root {str(given)!r} is not an absolute path", hint="use Path.resolve()")
        return Root(uri=given.as_uri())
    root = given if isinstance(given, Root) else Root(uri=given)
    if not isinstance(root.uri, str) or not _is_file_uri(root.uri):
        raise ConfigError(f"root {root.uri!r:.200} is no file URI", hint="it must begin with file:///")
    return root


def _is_file_uri(uri: str) -> bool:
    try:
        return urlsplit(uri).scheme == "file"
    except ValueError:
        # A host in half a bracket, for one.
        return False
