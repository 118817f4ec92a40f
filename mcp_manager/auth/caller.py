"""``Caller``: who a call is made for, as a value, with the credentials and capabilities of that party."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any, Final, Protocol

import msgspec

from mcp_manager.auth.sources import CredentialProvider
from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.header_fields import check_headers, check_token, without
from mcp_manager.errors import InvalidRequestError

__all__ = ["Caller", "Newest", "calling", "current_caller", "fixed_headers", "set_caller"]

_LONGEST: Final = 1024


class Caller(msgspec.Struct, frozen=True, dict=True):
    """Whom calls are made for: :meth:`McpManager.for_caller` binds calls to it.

    Sessions, cookies and cached results are kept apart by ``principal``: nothing of one principal reaches another. A
    later ``Caller`` with the same principal may bring newer credentials, which then replace the earlier ones.

    Parameters
    ----------
    principal
        Names the party; 1 to 1,024 characters that mean nothing to the manager. They are never shown: ``repr`` has a
        digest of them.
    headers
        Header fields to send with every HTTP request for this caller. They replace those of the same names that the
        server's configuration gives.
    auth
        A bearer token, or a function that returns one, or header fields by name; it may be a coroutine function, and is
        called again after a 401. It replaces the server's own ``auth`` and ``headers_command``. If servers need
        different tokens, make a caller for each. ``None``: the server's own credentials are sent.
    capabilities
        The client capabilities that this caller has; ``None`` for the manager's.

    Raises
    ------
    InvalidRequestError
        A value cannot be sent.
    """

    principal: str
    headers: Mapping[str, str] = {}
    auth: str | CredentialProvider | None = None
    capabilities: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.principal, str) or not 0 < len(self.principal) <= _LONGEST:
            raise _wrong(f"principal must be a string of 1 to {_LONGEST:,} characters")
        if not isinstance(self.headers, Mapping):
            raise _wrong("headers must be a mapping")
        for text in (part for field in self.headers.items() for part in field):
            if not isinstance(text, str):
                raise _wrong("the names and values of headers must be strings")
        if self.auth is not None and not isinstance(self.auth, str) and not callable(self.auth):
            raise _wrong("auth must be a token or a function")
        if self.capabilities is not None and not isinstance(self.capabilities, Mapping):
            raise _wrong("capabilities must be a mapping")
        capabilities = None if self.capabilities is None else dict(self.capabilities)
        try:
            check_headers(self.headers, "headers")
            if isinstance(self.auth, str):
                check_token(self.auth, "auth")
            msgspec.json.encode(capabilities)
        except FieldProblem as problem:
            found = _wrong(f"{problem.path} {problem.text}", problem.hint)
        except (TypeError, ValueError, RecursionError):
            found = _wrong("capabilities cannot be written as JSON")
        else:
            # Copies, so that the value cannot change.
            msgspec.structs.force_setattr(self, "headers", dict(self.headers))
            msgspec.structs.force_setattr(self, "capabilities", capabilities)
            return
        try:
            raise found
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del found

    def __repr__(self) -> str:
        from hashlib import blake2b  # noqa: PLC0415 - not needed to import the package

        digest = blake2b(self.principal.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
        headers = dict.fromkeys(self.headers, "***")
        auth = None if self.auth is None else "***"
        return f"Caller(principal=#{digest}, headers={headers}, auth={auth!r}, capabilities={self.capabilities!r})"

    @property
    def carries_credentials(self) -> bool:
        """Whether it has anything to send in header fields."""
        return bool(self.headers) or self.auth is not None

    @cached_property
    def session_key(self) -> tuple[str, str, bytes]:
        """What sessions are kept apart by: the principal, the kind of its credentials, and its capabilities.

        With another kind of credentials, the same principal is another party to the server.
        """
        kind = "own" if self.auth is None else "token" if isinstance(self.auth, str) else "function"
        capabilities = b"" if self.capabilities is None else msgspec.json.encode(self.capabilities, order="sorted")
        return self.principal, kind, capabilities


def fixed_headers(caller: Caller) -> dict[str, str]:
    """Return the header fields that a caller's requests carry, but for those that a function gives."""
    if not isinstance(caller.auth, str):
        return dict(caller.headers)
    credential = {"Authorization": f"Bearer {caller.auth}"}
    return {**without(caller.headers, credential), **credential}


class Newest(Protocol):
    """Knows the newest caller of a principal."""

    caller: Caller


_current: ContextVar[Caller | Newest | None] = ContextVar("current_caller", default=None)


def current_caller() -> Caller | None:
    """Return whom the running handler works for: the caller whose session or call the server's request belongs to.

    Returns
    -------
    The caller; ``None`` in a handler of the manager's own sessions, and outside of handlers and calls.
    """
    found = _current.get()
    return found if found is None or isinstance(found, Caller) else found.caller


def set_caller(caller: Caller | Newest) -> None:
    """Make this the current caller of the running context, for good."""
    _current.set(caller)


@contextlib.contextmanager
def calling(caller: Caller | Newest) -> Iterator[None]:
    """Make this the current caller."""
    token = _current.set(caller)
    try:
        yield
    finally:
        # A call that its loop dropped is closed in another context, where there is nothing to restore.
        with contextlib.suppress(ValueError):
            _current.reset(token)


def _wrong(what: str, hint: str = "") -> InvalidRequestError:
    return InvalidRequestError(f"Invalid caller: {what}", hint=hint)
