"""The sessions that a server keeps for callers: one for each instance and principal, made on first use."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import NoReturn

from mcp_manager.auth.caller import Caller
from mcp_manager.errors import CallError, ConnectError, InvalidRequestError, OverloadedError
from mcp_manager.runtime.background import background_task, bare_context
from mcp_manager.servers.instance import Instance
from mcp_manager.session import Session, SessionTemplate

__all__ = ["CallerSessions", "Checkout", "RoutedInstance"]


class RoutedInstance(Instance):
    """An instance that the router sends calls to; it owns the instances of callers.

    Each caller has an :class:`Instance` of its own, which the router does not know: it makes the session of the caller,
    replaces it when it is lost, and ends with this instance.
    """

    __slots__ = ("_callers", "_of_callers")

    def __init__(
        self,
        template: SessionTemplate,
        index: int,
        number: int,
        on_change: Callable[[Instance, CallError | None], None],
    ) -> None:
        super().__init__(template, index, number, on_change)
        # Both are set with the first caller: most instances have none.
        self._callers: CallerSessions | None = None
        self._of_callers: set[Instance] | None = None

    def add_for_caller(self, template: SessionTemplate, callers: CallerSessions) -> Instance:
        """Make an instance for a caller and return it; raises :class:`ConnectError` once this one is ending."""
        if self._closing:
            raise ConnectError("the server is being stopped", server_id=template.server_id, retryable=False)
        if self._of_callers is None:
            self._callers, self._of_callers = callers, set()
        instance = Instance(template, self.index, self.number, _ignore)
        self._of_callers.add(instance)
        return instance

    def remove_for_caller(self, instance: Instance) -> None:
        """End the instance of a caller in a task, which the end of this one waits for."""
        if self._of_callers is not None and instance in self._of_callers:
            self._of_callers.remove(instance)
            ending = background_task(
                instance.aclose(self.template.config.shutdown_grace_s), "end a caller's session", context=bare_context()
            )
            ending.add_done_callback(self.template.containment.read_failure)
            self._lost_sessions().keep(ending)

    def stop_connecting(self) -> None:
        """See :meth:`Instance.stop_connecting`; the same for all callers."""
        super().stop_connecting()
        for instance in self._of_callers or ():
            instance.stop_connecting()

    async def aclose(self, grace_s: float) -> None:
        """See :meth:`Instance.aclose`; the same for all callers, at the same time."""
        self.stop_connecting()
        if self._callers is None or self._of_callers is None:
            await super().aclose(grace_s)
            return
        await asyncio.gather(super().aclose(grace_s), *(each.aclose(grace_s) for each in self._of_callers))
        self._callers.instance_ended(self)


class Checkout:
    """The use of a caller's session by one call: until :meth:`release`, the session is not ended for being idle.

    Attributes
    ----------
    caller
        The caller.
    routed, instance
        The instance that the router sends calls to, and that of the caller.
    """

    __slots__ = ("_principal", "caller", "instance", "routed")

    def __init__(self, principal: _Principal, caller: Caller, routed: RoutedInstance, instance: Instance) -> None:
        self._principal = principal
        self.caller: Caller = caller
        self.routed: RoutedInstance = routed
        self.instance: Instance = instance
        principal.calls += 1

    @property
    def template(self) -> SessionTemplate:
        """What the caller's sessions are made from."""
        return self._principal.template

    def again(self) -> Checkout:
        """Return another use of the session by the same call, which is released by itself."""
        return Checkout(self._principal, self.caller, self.routed, self.instance)

    def release(self) -> None:
        """Give the session back; call it once, at the end of the call."""
        self._principal.callers.released(self._principal)


class _Principal:
    """One principal at one configuration of a server: what its sessions are made from, and its instances."""

    __slots__ = ("__weakref__", "callers", "calls", "instances", "is_ending", "key", "template", "used_at")

    def __init__(self, callers: CallerSessions, key: object, template: SessionTemplate) -> None:
        self.callers: CallerSessions = callers
        self.key: object = key
        self.template: SessionTemplate = template
        self.instances: dict[RoutedInstance, Instance] = {}
        self.calls: int = 0
        self.used_at: float = 0.0
        # Whether its sessions end with the last call under way.
        self.is_ending: bool = False

    @property
    def is_idle(self) -> bool:
        return not self.calls and not self.template.knowledge.is_subscribed


class CallerSessions:
    """Keep the sessions of one server's callers, at most ``max_caller_sessions``, each until it is idle for too long.

    Sessions are kept apart by :attr:`Caller.session_key`, and so is everything that they learn or obtain.
    """

    def __init__(self) -> None:
        # The one that was not used for longest comes first.
        self._principals: OrderedDict[object, _Principal] = OrderedDict()
        # The sessions; a principal without any counts as one, because what it learned is kept.
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0
        self._closed = False

    def __len__(self) -> int:
        return self._count

    def template(self, own: SessionTemplate, caller: Caller) -> SessionTemplate:
        """Return what a caller's sessions are made from and have learned.

        Parameters
        ----------
        own
            The template of the server's own sessions. The sessions of a program belong to all callers.
        caller
            The caller.

        Raises
        ------
        InvalidRequestError
            The server is a program, and the caller carries credentials.
        OverloadedError
            All sessions are in use.
        """
        return own if is_shared(own, caller) else self._principal_of(own, caller).template

    def check_out(self, routed: RoutedInstance, caller: Caller) -> Checkout | None:
        """Begin a call on the session of a caller; ``None`` if callers share the session of the instance.

        Raises
        ------
        CallError
            The instance is ending, or all sessions are in use.
        InvalidRequestError
            As for :meth:`template`.
        """
        if is_shared(routed.template, caller):
            return None
        principal = self._principal_of(routed.template, caller)
        instance = principal.instances.get(routed)
        if instance is None:
            principal.calls += 1
            try:
                if principal.instances:
                    self._make_room(routed.template)
                instance = routed.add_for_caller(principal.template, self)
                self._count += bool(principal.instances)
                principal.instances[routed] = instance
            finally:
                principal.calls -= 1
        return Checkout(principal, caller, routed, instance)

    def check_out_open(self, routed: Instance, caller: Caller) -> Checkout | None:
        """Begin a call on the session of a caller, if it is open and can be used by compiled code; else ``None``."""
        principal = self._principals.get((routed.template, *caller.session_key))
        if principal is None or not isinstance(routed, RoutedInstance):
            return None
        instance = principal.instances.get(routed)
        if instance is None or instance.session is None or principal.template.calls_need_python:
            return None
        if principal.template.caller is not None:
            principal.template.caller.take(caller)
        principal.is_ending = False
        return Checkout(principal, caller, routed, instance)

    def end(self, own: SessionTemplate, caller: Caller) -> None:
        """End the sessions of a caller, each with the last of its calls under way; nothing happens without any.

        Parameters
        ----------
        own
            The template of the server's own sessions.
        caller
            The caller. Its next call begins a new session.
        """
        principal = self._principals.get((own, *caller.session_key))
        if principal is None:
            return
        if principal.calls:
            principal.is_ending = True
        else:
            self._end(principal)

    def released(self, principal: _Principal) -> None:
        """Note the end of a call."""
        principal.calls -= 1
        if principal.is_ending and not principal.calls:
            self._end(principal)
        elif self._closed and not principal.calls and not principal.instances:
            self._forget(principal)
        else:
            self._used(principal)

    def generation(self, routed: Instance, caller: Caller) -> tuple[object, int]:
        """Return a value that changes when the session of a caller changes."""
        principal = self._principals.get((routed.template, *caller.session_key))
        instance = (
            None if principal is None or not isinstance(routed, RoutedInstance) else principal.instances.get(routed)
        )
        return (routed, routed.generation) if instance is None else (instance, instance.generation)

    def session(self, own: SessionTemplate, caller: Caller) -> Session | None:
        """Return a session of a caller that was made; ``None`` if there is none."""
        principal = self._principals.get((own, *caller.session_key))
        made = () if principal is None else principal.instances.values()
        return next((each.session for each in made if each.session is not None), None)

    def instance_ended(self, routed: RoutedInstance) -> None:
        """Forget the sessions of an instance that has ended."""
        for principal in list(self._principals.values()):
            if principal.instances.pop(routed, None) is None:
                continue
            if principal.instances:
                self._count -= 1
            elif not principal.calls:
                self._forget(principal)

    def close(self) -> None:
        """Stop looking for idle sessions: all end with their instances. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _principal_of(self, own: SessionTemplate, caller: Caller) -> _Principal:
        key = (own, *caller.session_key)
        principal = self._principals.get(key)
        if principal is None:
            self._make_room(own)
            principal = self._principals[key] = _Principal(self, key, own.for_caller(caller))
            self._count += 1
        else:
            principal.is_ending = False
            if principal.template.caller is not None:
                principal.template.caller.take(caller)
        self._used(principal)
        return principal

    def _used(self, principal: _Principal) -> None:
        if principal.key in self._principals:
            self._principals.move_to_end(principal.key)
        principal.used_at = asyncio.get_running_loop().time()
        idle_s = principal.template.config.caller_idle_s
        # The limit may have become shorter since the timer was set.
        if not self._closed and (self._timer is None or self._looks_at > principal.used_at + idle_s):
            self._arm(idle_s)

    def _make_room(self, own: SessionTemplate) -> None:
        """End sessions until there is room for another one."""
        most = own.config.max_caller_sessions
        while len(self) >= most:
            principal = next((each for each in self._principals.values() if each.is_idle), None)
            if principal is None:
                _refuse(own.server_id, most)
            self._end(principal)

    def _end(self, principal: _Principal) -> None:
        self._forget(principal)
        for routed, instance in principal.instances.items():
            routed.remove_for_caller(instance)

    def _forget(self, principal: _Principal) -> None:
        if self._principals.pop(principal.key, None) is not None:
            self._count -= max(1, len(principal.instances))
        credentials = principal.template.caller
        if credentials is not None:
            credentials.stop()

    # Idle sessions

    def _arm(self, delay_s: float) -> None:
        # Weak, so that the timer of a removed server keeps nothing in memory.
        looked = weakref.WeakMethod(self._look)

        def look() -> None:
            method = looked()
            if method is not None:
                method()

        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = loop.time() + delay_s
        self._timer = loop.call_at(self._looks_at, look, context=bare_context())

    def _look(self) -> None:
        """End the sessions that have been idle for too long, and look again when the next one may be."""
        self._timer = None
        now = asyncio.get_running_loop().time()
        for principal in list(self._principals.values()):
            left_s = principal.used_at + principal.template.config.caller_idle_s - now
            if left_s > 0:
                self._arm(left_s)
                return
            if principal.is_idle:
                self._end(principal)
            else:
                principal.used_at = now
                self._principals.move_to_end(principal.key)
        if self._principals:
            self._arm(next(iter(self._principals.values())).template.config.caller_idle_s)


def is_shared(own: SessionTemplate, caller: Caller) -> bool:
    """Tell whether callers share the sessions of a server, as those of a program do.

    Raises
    ------
    InvalidRequestError
        They do, and the caller carries credentials, which neither a program nor a server in memory takes with a call.
    """
    if own.config.url is not None:
        return False
    if caller.carries_credentials:
        is_program = own.config.command is not None
        raise InvalidRequestError(
            f"Invalid caller: headers and auth cannot be carried to a {'stdio server' if is_program else 'server in memory'}",
            server_id=own.server_id,
            hint="give the program its credentials in env, or deploy one server for each principal"
            if is_program
            else "leave them out: its tools can call current_caller()",
        )
    return True


def _refuse(server_id: str, most: int) -> NoReturn:
    error = OverloadedError(
        f"all {most} sessions of callers are in use",
        server_id=server_id,
        delivery="not_sent",
        hint="raise max_caller_sessions",
    )
    error.is_local = True
    error.limit = "max_caller_sessions"
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def _ignore(instance: Instance, error: CallError | None) -> None:
    """Ignore that the session of a caller was made or lost: it says nothing about the server."""
