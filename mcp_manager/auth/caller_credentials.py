"""The credentials of one caller at one server, which change with every newer :class:`Caller` of the principal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mcp_manager.auth.base import Authorization, Authorizations
from mcp_manager.auth.caller import Caller, fixed_headers
from mcp_manager.auth.challenge import Challenge
from mcp_manager.auth.changing import ChangingCredentials
from mcp_manager.auth.sources import Source, asked
from mcp_manager.config.header_fields import without

__all__ = ["CallerCredentials"]


class CallerCredentials:
    """Keep a principal's credentials for one server; see :class:`~mcp_manager.auth.base.Authorizations`.

    Parameters
    ----------
    server_id
        Names the server in errors.
    caller
        The first caller of the principal.
    own
        What obtains the server's own credentials, which are sent for callers without ``auth``.
    """

    def __init__(self, server_id: str, caller: Caller, own: Authorizations | None) -> None:
        self.caller: Caller = caller
        self.headers: dict[str, str] = fixed_headers(caller)
        self.generation: int = 1
        self._listeners: list[Callable[[], None]] = []
        self._provided: ChangingCredentials | None = None
        self._beneath: Authorizations | None = own if caller.auth is None else None
        if callable(caller.auth):
            self._provided = self._beneath = ChangingCredentials(server_id, Source(self._ask, is_costly=True))

    @property
    def pending_hint(self) -> str:
        """What a caller may do whose deadline passes while credentials are obtained."""
        return self._beneath.pending_hint if self._beneath is not None else ""

    @property
    def is_pending(self) -> bool:
        """Whether credentials are being obtained."""
        return self._beneath is not None and self._beneath.is_pending

    def of(self, url: str) -> Authorization:
        """Return the authorization for an endpoint."""
        return _CallerAuthorization(self, None if self._beneath is None else self._beneath.of(url))

    def take(self, caller: Caller) -> None:
        """Use the credentials of a newer caller of the same principal from now on."""
        if caller is self.caller:
            return
        self.caller = caller
        headers = fixed_headers(caller)
        if headers != self.headers:
            self.headers = headers
            self.generation += 1
            for changed in list(self._listeners):
                changed()

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` with every newer caller whose header fields differ, until the returned function is called."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed) if changed in self._listeners else None

    def stop(self) -> None:
        """Stop obtaining credentials; those of the server itself go on. Idempotent."""
        if self._provided is not None:
            self._provided.stop()

    async def aclose(self) -> None:
        """Stop obtaining credentials, and wait for the end of that; see :meth:`stop`."""
        if self._provided is not None:
            await self._provided.aclose()

    @property
    def has_function(self) -> bool:
        """Whether a function of the application gives the credentials."""
        return self._provided is not None

    async def _ask(self) -> dict[str, str]:
        """Ask the function of the newest caller."""
        provide = self.caller.auth
        assert callable(provide)
        return await asked(provide)


class _CallerAuthorization:
    """The credentials of a caller for one endpoint: its own header fields, and beneath them what else is sent."""

    def __init__(self, owner: CallerCredentials, beneath: Authorization | None) -> None:
        self._owner = owner
        self._beneath = beneath
        self.pending_hint = owner.pending_hint

    @property
    def per_request(self) -> bool:
        """Whether every request needs header fields of its own."""
        return self._beneath is not None and self._beneath.per_request

    @property
    def generation(self) -> int:
        """The number of credentials so far; newer ones increment it."""
        return self._owner.generation + (0 if self._beneath is None else self._beneath.generation)

    def headers(self) -> Mapping[str, str]:
        """Return the header fields that all requests share."""
        return self._with_own({} if self._beneath is None else self._beneath.headers())

    def fields(self, verb: str, url: str) -> dict[str, str]:
        """Return the header fields of one request."""
        return self._with_own({} if self._beneath is None else self._beneath.fields(verb, url))

    def take_nonce(self, nonce: str) -> None:
        """Use a nonce from the server from now on."""
        if self._beneath is not None:
            self._beneath.take_nonce(nonce)

    async def make_ready(self) -> None:
        """Obtain what is missing; see :meth:`Authorization.make_ready`."""
        if self._beneath is not None and not self._is_replaced:
            await self._beneath.make_ready()

    async def challenged(self, challenge: Challenge, generation: int) -> bool:
        """Obtain what a refused request lacked; nothing can be obtained in place of a caller's fixed token."""
        if generation != self.generation:
            return True
        if self._beneath is None or self._is_replaced:
            return False
        return await self._beneath.challenged(challenge, self._beneath.generation)

    def refused_again(self) -> None:
        """Note that new credentials were refused as well."""
        if self._beneath is not None:
            self._beneath.refused_again()

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` with every change, until the returned function is called."""
        ends = [self._owner.subscribe(changed)]
        if self._beneath is not None:
            ends.append(self._beneath.subscribe(changed))

        def unsubscribe() -> None:
            for end in ends:
                end()

        return unsubscribe

    async def aclose(self) -> None:
        """Do nothing: the owner is closed."""

    @property
    def _is_replaced(self) -> bool:
        """Whether the caller gives the very field that would be obtained."""
        return not self._owner.has_function and "authorization" in {name.lower() for name in self._owner.headers}

    def _with_own(self, beneath: Mapping[str, str]) -> dict[str, str]:
        if self._owner.has_function:
            return {**without(self._owner.headers, beneath), **beneath}
        return {**without(beneath, self._owner.headers), **self._owner.headers}
