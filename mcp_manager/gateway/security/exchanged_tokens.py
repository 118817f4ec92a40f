"""The tokens of one server that were exchanged for those of clients: kept until they expire, renewed before."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from mcp_manager.auth.oauth.token_reply import Tokens
from mcp_manager.errors import AuthError
from mcp_manager.gateway.security.credential_errors import CredentialsUnavailableError
from mcp_manager.runtime.background import background_task, bare_context

__all__ = ["ExchangedTokens", "Key"]

_log = logging.getLogger(__name__)

Key = tuple[str, frozenset[str]]
"""Whose token it is: the name of the principal, and its scopes. A token with fewer scopes never gets what another got."""

_MOST_KEPT: Final = 10_000
_AT_ONCE: Final = 32
# A client waits no longer for the authorization server; the exchange goes on.
_PATIENCE_S: Final = 10.0
# As for the library's own tokens: renewed this long before they expire, or after four fifths of a short life.
_RENEW_BEFORE_S: Final = 60.0
_RENEW_SHARE: Final = 0.2
# For tokens whose life the authorization server does not tell (RFC 6749, section 5.1).
_ASSUMED_LIFE_S: Final = 300.0
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0
# A token that a server refuses although it was just made is not replaced at once.
_REFUSED_PAUSE_S: Final = 5.0


class _Held:
    """What is known of the token of one principal."""

    __slots__ = (
        "failure",
        "failures",
        "subject",
        "task",
        "token",
        "until",
        "usable_until",
        "wait_until",
        "young_until",
    )

    def __init__(self) -> None:
        self.token: str | None = None
        # Renewed after the first, not used after the second.
        self.until = 0.0
        self.usable_until = 0.0
        self.young_until = 0.0
        self.task: asyncio.Task[None] | None = None
        # The last failure, for which subject, and how long it counts.
        self.failure: AuthError | None = None
        self.failures = 0
        self.subject = b""
        self.wait_until = 0.0


class ExchangedTokens:
    """Keep the tokens of at most 10,000 principals; one request obtains a token for all who wait for it.

    Each worker process exchanges for itself: with several, a principal has up to one token in each of them. So tokens
    never leave the process that they were issued to, and a worker that dies takes none with it.

    Parameters
    ----------
    server_id
        Names the server in errors.
    exchange
        ``await exchange(subject)`` returns new tokens for the token of a client, or raises :class:`AuthError`.
    clock
        Returns seconds that only increase.
    """

    def __init__(
        self,
        server_id: str,
        exchange: Callable[[str], Awaitable[Tokens]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server_id = server_id
        self._exchange = exchange
        self._clock = clock
        # The one that was not used for longest comes first.
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._held)

    async def token(self, key: Key, subject: str) -> str:
        """Return a token.

        Parameters
        ----------
        key
            Whose.
        subject
            The token that the client has shown with this request.

        Raises
        ------
        LoginRequiredError, CredentialsUnavailableError, NotConfiguredError
            There is none. The same failure is raised again for a while, without another request; a failure that is
            about the token of the client only as long as it is the same.
        """
        now = self._clock()
        held = self._of(key)
        if held.token is not None and now < held.until:
            return held.token
        if held.task is None:
            self._check_pause(held, subject, now)
            if now >= held.wait_until or held.subject != _digest(subject):
                self._begin(held, subject)
        if held.token is not None and now < held.usable_until:
            # Renewed meanwhile, and if that fails, this one is still good.
            return held.token
        task = held.task
        assert task is not None
        await asyncio.wait({task}, timeout=_PATIENCE_S)
        if not task.done():
            raise CredentialsUnavailableError(
                "the token endpoint has not answered yet", server_id=self._server_id, retry_after_s=_FIRST_PAUSE_S
            )
        if held.token is not None and self._clock() < held.usable_until:
            return held.token
        self._raise(held.failure)

    def refused(self, key: Key, token: str) -> bool:
        """Take note that the server refused a token; return whether :meth:`token` has or will get another one.

        One that was just obtained is not replaced: the server would refuse the next one as well.
        """
        held = self._held.get(key)
        if held is None or held.token != token:
            return True
        if self._clock() < held.young_until:
            return False
        held.token = None
        held.wait_until = 0.0
        return True

    def forget(self) -> None:
        """Forget all tokens."""
        self._held.clear()

    async def aclose(self) -> None:
        """Obtain nothing more. Idempotent."""
        self._is_closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._held.clear()

    def _of(self, key: Key) -> _Held:
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            return held
        held = self._held[key] = _Held()
        if len(self._held) > _MOST_KEPT:
            # Whoever waits for its request still gets the answer.
            self._held.popitem(last=False)
        return held

    def _check_pause(self, held: _Held, subject: str, now: float) -> None:
        """Raise the last failure again while it counts, unless there is a token that can be used meanwhile."""
        if held.failure is None or now >= held.wait_until or (held.token is not None and now < held.usable_until):
            return
        if held.failure.retryable or held.subject == _digest(subject):
            self._raise(held.failure, held.wait_until - now)

    def _raise(self, failure: AuthError | None, retry_after_s: float | None = None) -> NoReturn:
        mine = (
            CredentialsUnavailableError("there is no token at present", server_id=self._server_id)
            if failure is None
            else failure.for_caller("not_sent")
        )
        if mine.retryable and retry_after_s is not None:
            mine.retry_after_s = retry_after_s
        try:
            raise mine
        finally:
            # Break the reference cycle: the traceback refers to this frame.
            del mine, failure

    def _begin(self, held: _Held, subject: str) -> None:
        if self._is_closed:
            self._raise(None)
        held.task = background_task(
            self._run(held, subject), "exchange a client's token", among=self._tasks, context=bare_context()
        )

    async def _run(self, held: _Held, subject: str) -> None:
        try:
            async with self._slots:
                tokens = await self._exchange(subject)
            self._keep(held, tokens)
        except AuthError as failure:
            self._fail(held, subject, failure)
        except Exception as error:
            # Its text may quote anything that was received, so it is not passed on.
            text = f"an unexpected failure ({type(error).__name__})"
            self._fail(held, subject, CredentialsUnavailableError(text, server_id=self._server_id))
        finally:
            held.task = None

    def _keep(self, held: _Held, tokens: Tokens) -> None:
        now = self._clock()
        # The reply tells a time of the wall clock, which was read just now.
        life_s = tokens.expires_at - time.time() if tokens.expires_at else _ASSUMED_LIFE_S
        held.token = tokens.access
        held.usable_until = now + life_s
        held.until = held.usable_until - min(_RENEW_BEFORE_S, life_s * _RENEW_SHARE)
        held.young_until = now + _REFUSED_PAUSE_S
        held.failure = None
        held.failures = 0
        held.wait_until = 0.0

    def _fail(self, held: _Held, subject: str, failure: AuthError) -> None:
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**held.failures)
        held.failures = min(held.failures + 1, 16)
        held.subject = _digest(subject)
        held.wait_until = self._clock() + pause_s
        # A copy without a traceback, whose frames hold tokens.
        held.failure = failure.for_caller("not_sent")
        if held.failure.retryable and held.failure.retry_after_s is None:
            held.failure.retry_after_s = pause_s
        _log.warning(
            "cannot get a token for a client at server %r: %s",
            self._server_id,
            # Records may be kept, and with the failure what its frames hold.
            str(failure),
            extra={"event": "exchange_failed", "server_id": self._server_id},
        )


def _digest(subject: str) -> bytes:
    return hashlib.blake2b(subject.encode("utf-8", "surrogatepass"), digest_size=16).digest()
