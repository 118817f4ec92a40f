"""Plain handlers of servers' requests, which may block: they run in threads, and not on the manager's loop."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import msgspec

from mcp_manager.calls.exchange_listener import ServerMessage
from mcp_manager.protocol.methods import is_notification
from mcp_manager.runtime.threads import in_thread
from mcp_manager.session.handlers import HandlerMap, Handlers

__all__ = ["answered_beside_the_loop", "beside_the_loop"]

H = TypeVar("H", bound="Handlers | HandlerMap | None")


def beside_the_loop(handlers: H) -> H:
    """Return handlers of which the plain ones that answer requests run in threads of their own.

    Coroutine functions, and the handlers of notifications, stay as they are: they run on the manager's loop, which keeps
    notifications in order.

    Parameters
    ----------
    handlers
        The handlers of an application; anything else is returned as it is.
    """
    if isinstance(handlers, Handlers):
        answering = {
            name: _threaded(handler)
            for name in ("sampling", "elicitation", "url_elicitation", "roots")
            if callable(handler := getattr(handlers, name))
        }
        return msgspec.structs.replace(handlers, **answering, others=_requests_threaded(handlers.others))
    return _requests_threaded(handlers) if isinstance(handlers, Mapping) else handlers


def answered_beside_the_loop(on_message: Any) -> Any:
    """Return an ``on_message`` of which a plain one answers requests in threads; it takes notifications on the loop."""
    if not callable(on_message):
        return on_message
    threaded = _threaded(on_message)

    def take(message: ServerMessage) -> Any:
        try:
            outcome = (threaded if message.wants_answer else on_message)(message)
        except (SystemExit, KeyboardInterrupt) as ending:
            raise _contained(ending) from ending
        return awaited(outcome) if inspect.isawaitable(outcome) else outcome

    async def awaited(outcome: Awaitable[Any]) -> Any:
        try:
            return await outcome
        except (SystemExit, KeyboardInterrupt) as ending:
            raise _contained(ending) from ending

    return take


def _requests_threaded(handlers: Any) -> Any:
    if not isinstance(handlers, Mapping):
        return handlers
    return {
        method: handler if not callable(handler) or is_notification(method) else _threaded(handler)
        for method, handler in handlers.items()
    }


def _threaded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function that calls a plain one in a thread, with the context of whoever asks."""
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__):
        return handler

    async def answer(*args: Any) -> Any:
        context = copy_context()
        given = await in_thread(partial(context.run, called, *args), "mcp-manager handler")
        return await given if inspect.isawaitable(given) else given

    def called(*args: Any) -> Any:
        try:
            return handler(*args)
        except (SystemExit, KeyboardInterrupt) as ending:
            raise _contained(ending) from ending

    return answer


def _contained(ending: BaseException) -> RuntimeError:
    # It ends a thread, but would end the manager's loop, and so all servers, if it got there.
    return RuntimeError(f"the handler raised {type(ending).__name__}")
