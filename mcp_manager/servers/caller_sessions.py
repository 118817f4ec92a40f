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
from mcp_manager.session import SessionTemplate

__all__ = ["CallerSessions", "HostInstance", "Stay"]


class HostInstance(Instance):
    """An instance that takes traffic, and keeps sessions for callers beside its own.

    The session of a caller is kept by an :class:`Instance` of its own, which the router does not know: it makes the
    session, replaces it when it is lost, and ends with this instance.
    """

    __slots__ = ("_callers", "_guests")

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
        self._guests: set[Instance] | None = None

    def guest(self, template: SessionTemplate, callers: CallerSessions) -> Instance:
        """Return the keeper of a new session for a caller; raises :class:`ConnectError` once this one is ending."""
        if self._closing:
            raise ConnectError("the server is being stopped", server_id=template.server_id, retryable=False)
        if self._guests is None:
            self._callers, self._guests = callers, set()
        keeper = Instance(template, self.index, self.number, _ignore)
        self._guests.add(keeper)
        return keeper

    def dismiss(self, keeper: Instance) -> None:
        """End the session of a caller in a task, which the end of this instance waits for."""
        if self._guests is not None and keeper in self._guests:
            self._guests.remove(keeper)
            ending = background_task(
                keeper.aclose(self.template.config.shutdown_grace_s), "end a caller's session", context=bare_context()
            )
            ending.add_done_callback(self.template.containment.read_failure)
            self._lost_sessions().keep(ending)

    def stop_connecting(self) -> None:
        """See :meth:`Instance.stop_connecting`; the same for all callers."""
        super().stop_connecting()
        for keeper in self._guests or ():
            keeper.stop_connecting()

    async def aclose(self, grace_s: float) -> None:
        """See :meth:`Instance.aclose`; the same for all callers, at the same time."""
        self.stop_connecting()
        if self._callers is None or self._guests is None:
            await super().aclose(grace_s)
            return
        await asyncio.gather(super().aclose(grace_s), *(each.aclose(grace_s) for each in self._guests))
        self._callers.host_ended(self)


class Stay:
    """A call of a caller: it keeps the session of the caller from being ended; ``keeper`` has the session."""

    __slots__ = ("_callers", "_guest", "keeper")

    def __init__(self, callers: CallerSessions, guest: _Guest, keeper: Instance) -> None:
        self._callers = callers
        self._guest = guest
        self.keeper = keeper

    def leave(self) -> None:
        """End the stay."""
        self._callers.left(self._guest)


class _Guest:
    """One principal at one configuration of a server: what its sessions are made from, and their keepers."""

    __slots__ = ("__weakref__", "calls", "keepers", "key", "template", "used_at")

    def __init__(self, key: object, template: SessionTemplate) -> None:
        self.key = key
        self.template = template
        self.keepers: dict[HostInstance, Instance] = {}
        self.calls = 0
        self.used_at = 0.0

    @property
    def is_idle(self) -> bool:
        return not self.calls and not self.template.knowledge.is_subscribed


class CallerSessions:
    """Keep the sessions of one server's callers, at most ``max_caller_sessions``, each until it is idle for too long.

    Sessions are kept apart by :attr:`Caller.session_key`, and so is everything that they learn or obtain.
    """

    def __init__(self) -> None:
        # The one that was not used for longest comes first.
        self._guests: OrderedDict[object, _Guest] = OrderedDict()
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
        return own if is_shared(own, caller) else self._guest(own, caller).template

    def enter(self, host: HostInstance, caller: Caller) -> Stay | None:
        """Begin a call on the session of a caller; ``None`` if callers share the session of the instance.

        Raises
        ------
        CallError
            The instance is ending, or all sessions are in use.
        InvalidRequestError
            As for :meth:`template`.
        """
        if is_shared(host.template, caller):
            return None
        guest = self._guest(host.template, caller)
        keeper = guest.keepers.get(host)
        if keeper is None:
            guest.calls += 1
            try:
                if guest.keepers:
                    self._make_room(host.template)
                keeper = host.guest(guest.template, self)
                self._count += bool(guest.keepers)
                guest.keepers[host] = keeper
            finally:
                guest.calls -= 1
        guest.calls += 1
        return Stay(self, guest, keeper)

    def left(self, guest: _Guest) -> None:
        """Note the end of a call."""
        guest.calls -= 1
        if self._closed and not guest.calls and not guest.keepers:
            self._forget(guest)
        else:
            self._used(guest)

    def generation(self, host: Instance, caller: Caller) -> tuple[object, int]:
        """Return a value that changes when the session of a caller changes."""
        guest = self._guests.get((host.template, *caller.session_key))
        keeper = None if guest is None or not isinstance(host, HostInstance) else guest.keepers.get(host)
        return (host, host.generation) if keeper is None else (keeper, keeper.generation)

    def host_ended(self, host: HostInstance) -> None:
        """Forget the sessions of an instance that has ended."""
        for guest in list(self._guests.values()):
            if guest.keepers.pop(host, None) is None:
                continue
            if guest.keepers:
                self._count -= 1
            elif not guest.calls:
                self._forget(guest)

    def close(self) -> None:
        """Stop looking for idle sessions: all end with their instances. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _guest(self, own: SessionTemplate, caller: Caller) -> _Guest:
        key = (own, *caller.session_key)
        guest = self._guests.get(key)
        if guest is None:
            self._make_room(own)
            guest = self._guests[key] = _Guest(key, own.for_caller(caller))
            self._count += 1
        elif guest.template.caller is not None:
            guest.template.caller.take(caller)
        self._used(guest)
        return guest

    def _used(self, guest: _Guest) -> None:
        if guest.key in self._guests:
            self._guests.move_to_end(guest.key)
        guest.used_at = asyncio.get_running_loop().time()
        idle_s = guest.template.config.caller_idle_s
        # The limit may have become shorter since the timer was set.
        if not self._closed and (self._timer is None or self._looks_at > guest.used_at + idle_s):
            self._arm(idle_s)

    def _make_room(self, own: SessionTemplate) -> None:
        """End sessions until there is room for another one."""
        most = own.config.max_caller_sessions
        while len(self) >= most:
            guest = next((each for each in self._guests.values() if each.is_idle), None)
            if guest is None:
                _refuse(own.server_id, most)
            self._end(guest)

    def _end(self, guest: _Guest) -> None:
        self._forget(guest)
        for host, keeper in guest.keepers.items():
            host.dismiss(keeper)

    def _forget(self, guest: _Guest) -> None:
        if self._guests.pop(guest.key, None) is not None:
            self._count -= max(1, len(guest.keepers))
        credentials = guest.template.caller
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
        for guest in list(self._guests.values()):
            left_s = guest.used_at + guest.template.config.caller_idle_s - now
            if left_s > 0:
                self._arm(left_s)
                return
            if guest.is_idle:
                self._end(guest)
            else:
                guest.used_at = now
                self._guests.move_to_end(guest.key)
        if self._guests:
            self._arm(next(iter(self._guests.values())).template.config.caller_idle_s)


def is_shared(own: SessionTemplate, caller: Caller) -> bool:
    """Tell whether callers share the sessions of a server, as those of a program do.

    Raises
    ------
    InvalidRequestError
        They do, and the caller carries credentials, which a program cannot be given with a call.
    """
    if own.config.command is None:
        return False
    if caller.carries_credentials:
        raise InvalidRequestError(
            "Invalid caller: headers and auth cannot be carried to a stdio server",
            server_id=own.server_id,
            hint="give the program its credentials in env, or deploy one server for each principal",
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
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def _ignore(instance: Instance, error: CallError | None) -> None:
    """Ignore that the session of a caller was made or lost: it says nothing about the server."""
