"""Mirrors of classes with coroutine methods: the same methods for every thread and loop, blocking and to be awaited."""

from __future__ import annotations

import enum
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from threading import get_ident
from types import FunctionType
from typing import Any, Final, NamedTuple

from mcp_manager.bindings.blocking_handlers import answered_beside_the_loop
from mcp_manager.bindings.caller_deadline import CallerDeadline
from mcp_manager.bindings.fleet_change import FleetChange
from mcp_manager.bindings.progress import LoopReports, ThreadReports
from mcp_manager.bindings.runner import ManagerRunner
from mcp_manager.config import arguments
from mcp_manager.manager import McpManager
from mcp_manager.observe.observation import Observation
from mcp_manager.runtime.effects import has_effect_at_once
from mcp_manager.runtime.phase import Lifetime

__all__ = ["Kind", "Mirror", "deadline_of", "is_mirrored", "kind_of", "mirror", "returned", "twin_doc"]

_READERS: Final = (Observation, Lifetime)
# PyMcpManager has its own: the first two start and end the thread that all others need, and the third returns a mirror.
_BY_HAND: Final = frozenset({"start", "stop", "for_caller"})

Arguments = tuple[Any, ...]
Options = Mapping[str, Any]


class Mirror(ABC):
    """An object whose calls are made on another one, which lives on the loop of a manager."""

    @abstractmethod
    def _mirrored(self) -> tuple[ManagerRunner, Any]:
        """Return who runs the calls, and the object that they are made on.

        Raises
        ------
        NotRunningError
            The manager does not run.
        """

    @abstractmethod
    def _mirrored_for_reading(self) -> tuple[ManagerRunner, Any]:
        """Return the same for calls that only read: they work before the start and after the end, too."""


class Kind(enum.Enum):
    """What a public attribute is, and so how it is mirrored."""

    PROPERTY = enum.auto()
    """Read on any thread."""
    READING = enum.auto()
    """A plain method that only reads: called on any thread."""
    READING_ASYNC = enum.auto()
    """A coroutine method that only reads: awaited on any loop."""
    CALL = enum.auto()
    """A coroutine method: run on the manager's loop."""
    CHANGE = enum.auto()
    """A coroutine method that takes effect at once: run on the manager's loop, and begun at once if called there."""
    PLAIN = enum.auto()
    """A plain method: called on the manager's loop."""


def kind_of(owner: type, attribute: object) -> Kind | None:
    """Return the kind of an attribute that a class defines; ``None`` for one that is not mirrored."""
    if isinstance(attribute, property):
        return Kind.PROPERTY
    if not isinstance(attribute, FunctionType) or attribute.__name__ in _BY_HAND:
        return None
    is_async = inspect.iscoroutinefunction(attribute) or returned(attribute) is not None
    if owner in _READERS:
        return Kind.READING_ASYNC if is_async else Kind.READING
    if not is_async:
        return Kind.PLAIN
    return Kind.CHANGE if has_effect_at_once(attribute) else Kind.CALL


def returned(function: FunctionType) -> str | None:
    """Return what a plain function's coroutine returns, as its annotation says; ``None`` if it returns none."""
    annotation = function.__annotations__.get("return")
    prefix = "Coroutine[Any, Any, "
    return annotation[len(prefix) : -1] if isinstance(annotation, str) and annotation.startswith(prefix) else None


def twin_doc(name: str, doc: str) -> str:
    """Return the docstring of the ``_async`` twin of a method."""
    first = doc.strip().partition("\n")[0].rstrip(".")
    if "; see :meth:`" in first:
        return f"{first}."
    return f"{first}. See :meth:`{name}`." if ";" in first or ". " in first else f"{first}; see :meth:`{name}`."


@cache
def mirror(original: type) -> type[Mirror]:
    """Return the mirror of a class: for each public method one that blocks, and a twin that can be awaited.

    The mirror of a class inherits from the mirrors of its bases. Its methods have the signatures and docstrings of the
    originals; type checkers read them from the stubs in ``mirrors/``, which ``tests/support/mirror_stubs.py`` writes.
    """
    bases = tuple(mirror(each) for each in original.__bases__ if is_mirrored(each))
    namespace: dict[str, Any] = {
        "__doc__": f"The public methods of :class:`{original.__name__}`, for callers on any thread and loop.",
        "__module__": "mcp_manager.bindings.mirrors",
    }
    for name, attribute in vars(original).items():
        kind = None if name.startswith("_") else kind_of(original, attribute)
        if kind is not None:
            namespace.update(_mirrored_attribute(original, name, attribute, kind))
    return type(original)(f"{original.__name__}Mirror", bases or (Mirror,), namespace)


def is_mirrored(original: type) -> bool:
    """Tell whether a class, or a base of it, has public attributes that are mirrored."""
    return any(
        not name.startswith("_") and kind_of(each, attribute) is not None
        for each in original.__mro__
        for name, attribute in vars(each).items()
    )


def deadline_of(manager: McpManager, server_id: object, timeout: float | None) -> CallerDeadline | None:
    """Return when a caller gives up; ``None`` if the server, and so its timeout, is still to be chosen."""
    timeout_s = (
        manager._request_timeout_s(server_id)  # type: ignore[arg-type]
        if timeout is None
        else arguments.as_seconds(timeout, "timeout")
    )
    if timeout_s is None:
        return None
    return CallerDeadline(timeout_s, server_id if isinstance(server_id, str) else None)


class _Timing(NamedTuple):
    """What bounds the time of a method's calls."""

    name: str
    twin: str
    is_bounded: bool
    """Whether its timeout is for the whole call."""
    has_default: bool
    """Whether the timeout of the server is the default."""

    def deadline(self, manager: McpManager, args: Arguments, options: Options) -> CallerDeadline | None:
        """Return when the caller of a call gives up, ``None`` for never."""
        timeout = options.get("timeout")
        if not self.is_bounded or (timeout is None and not self.has_default):
            return None
        return deadline_of(manager, args[0] if args else options.get("server_id"), timeout)


def _timing(name: str, function: FunctionType) -> _Timing:
    parameters = inspect.signature(function).parameters
    has_server = next(iter([*parameters][1:]), "") == "server_id"
    # What lists from several servers has its timeout for each of them; what lists from one, its default for each page.
    is_list = name.startswith("list_")
    is_bounded = "timeout" in parameters and (has_server or not is_list)
    return _Timing(name, f"{name}_async", is_bounded, has_default=is_bounded and has_server and not is_list)


def _mirrored_attribute(owner: type, name: str, attribute: Any, kind: Kind) -> dict[str, Any]:
    if kind is Kind.PROPERTY:

        def read(self: Mirror) -> Any:
            return getattr(self._mirrored_for_reading()[1], name)

        return {name: property(read, doc=attribute.__doc__)}
    plain, twin = _METHODS[kind](_timing(name, attribute))
    return {name: _dressed(plain, owner, attribute, name), f"{name}_async": _dressed(twin, owner, attribute, name)}


def _dressed(function: FunctionType, owner: type, original: FunctionType, name: str) -> FunctionType:
    """Return a function that shows itself as a method of the mirror, or as its twin."""
    is_twin = inspect.iscoroutinefunction(function)
    # The globals of the original are where its annotations can be evaluated.
    dressed = FunctionType(function.__code__, original.__globals__, name, None, function.__closure__)
    dressed.__name__ = f"{name}_async" if is_twin else name
    dressed.__qualname__ = f"{owner.__name__}Mirror.{dressed.__name__}"
    dressed.__module__ = "mcp_manager.bindings.mirrors"
    dressed.__doc__ = twin_doc(name, original.__doc__ or "") if is_twin else original.__doc__
    given = inspect.signature(original)
    result: Any = returned(original) or given.return_annotation
    if has_effect_at_once(original) and not is_twin:
        result = FleetChange
    dressed.__signature__ = given.replace(return_annotation=result)  # type: ignore[attr-defined]
    dressed.__annotations__ = {**original.__annotations__, "return": result}
    return dressed


# The functions that follow become methods of mirrors: they may only use what is local to the function around them.


def _reading(timing: _Timing) -> tuple[Any, Any]:
    name = timing.name

    def plain(self: Mirror, *args: Any, **options: Any) -> Any:
        return getattr(self._mirrored_for_reading()[1], name)(*args, **options)

    async def twin(self: Mirror, *args: Any, **options: Any) -> Any:
        return getattr(self._mirrored_for_reading()[1], name)(*args, **options)

    return plain, twin


def _reading_async(timing: _Timing) -> tuple[Any, Any]:
    name = timing.name

    def plain(self: Mirror, *args: Any, **options: Any) -> Any:
        runner, subject = self._mirrored_for_reading()
        return runner._read(getattr(subject, name)(*args, **options))

    async def twin(self: Mirror, *args: Any, **options: Any) -> Any:
        return await getattr(self._mirrored_for_reading()[1], name)(*args, **options)

    return plain, twin


def _plain(timing: _Timing) -> tuple[Any, Any]:
    name, call_plain, called = timing.name, _call_plain, _called

    def plain(self: Mirror, *args: Any, **options: Any) -> Any:
        return call_plain(self, name, args, options)

    async def twin(self: Mirror, *args: Any, **options: Any) -> Any:
        runner, subject = self._mirrored()
        return await runner._await(called(getattr(subject, name), args, options))

    return plain, twin


def _change(timing: _Timing) -> tuple[Any, Any]:
    name, change = timing.name, _change_at_once

    def plain(self: Mirror, *args: Any, **options: Any) -> Any:
        return change(self, name, args, options)

    async def twin(self: Mirror, *args: Any, **options: Any) -> Any:
        runner, subject = self._mirrored()
        await runner._await(getattr(subject, name)(*args, **options))

    return plain, twin


def _call(timing: _Timing) -> tuple[Any, Any]:
    name, this_thread, call_blocking, call_async = timing.name, get_ident, _call_blocking, _call_async

    def plain(self: Mirror, *args: Any, **options: Any) -> Any:
        return call_blocking(self, timing, args, options)

    async def twin(self: Mirror, *args: Any, **options: Any) -> Any:
        runner, subject = self._mirrored()
        if this_thread() == runner._home:
            return await getattr(subject, name)(*args, **options)
        return await call_async(runner, subject, timing, args, options)

    return plain, twin


_METHODS: Final[dict[Kind, Callable[[_Timing], tuple[Any, Any]]]] = {
    Kind.READING: _reading,
    Kind.READING_ASYNC: _reading_async,
    Kind.PLAIN: _plain,
    Kind.CHANGE: _change,
    Kind.CALL: _call,
}


def _call_blocking(mirror: Mirror, timing: _Timing, args: Arguments, options: Options) -> Any:
    runner, subject = mirror._mirrored()
    deadline = timing.deadline(runner._running(), args, options)
    call = getattr(subject, timing.name)
    if "on_message" in options:
        options = {**options, "on_message": answered_beside_the_loop(options["on_message"])}
    on_progress = options.get("on_progress")
    if not callable(on_progress) or inspect.iscoroutinefunction(on_progress):
        return runner._wait(_in_time(call, args, options, deadline), deadline, timing.twin)
    ends_ns = None if deadline is None else deadline.patience_ends_ns
    reports = ThreadReports(on_progress, lambda outcome: runner._wait(_awaited(outcome)), ends_ns)
    options = {**options, "on_progress": reports.put}
    return runner._wait(_in_time(call, args, options, deadline), deadline, timing.twin, reports)


async def _call_async(runner: ManagerRunner, subject: Any, timing: _Timing, args: Arguments, options: Options) -> Any:
    call = getattr(subject, timing.name)
    if runner._is_on_loop():
        return await call(*args, **options)
    deadline = timing.deadline(runner._running(), args, options)
    if "on_message" in options:
        options = {**options, "on_message": answered_beside_the_loop(options["on_message"])}
    on_progress = options.get("on_progress")
    if not callable(on_progress):
        return await runner._await(_in_time(call, args, options, deadline), deadline)
    reports = LoopReports(on_progress)
    options = {**options, "on_progress": reports.put}
    try:
        result = await runner._await(_in_time(call, args, options, deadline), deadline)
        await reports.finish(None if deadline is None else deadline.patience_ends_ns)
        return result
    finally:
        await reports.aclose()


def _call_plain(mirror: Mirror, name: str, args: Arguments, options: Options) -> Any:
    runner, subject = mirror._mirrored()
    call = getattr(subject, name)
    return call(*args, **options) if runner._is_on_loop() else runner._wait(_called(call, args, options))


def _change_at_once(mirror: Mirror, name: str, args: Arguments, options: Options) -> FleetChange:
    runner, subject = mirror._mirrored()
    return runner._change(getattr(subject, name)(*args, **options), args[0] if args else options.get("server_id"))


async def _in_time(
    call: Callable[..., Coroutine[Any, Any, Any]], args: Arguments, options: Options, deadline: CallerDeadline | None
) -> Any:
    """Make a call in the time that is left when the loop begins it."""
    if deadline is None:
        return await call(*args, **options)
    return await call(*args, **{**options, "timeout": deadline.left_s()})


async def _called(call: Callable[..., Any], args: Arguments, options: Options) -> Any:
    return call(*args, **options)


async def _awaited(outcome: Any) -> Any:
    return await outcome
