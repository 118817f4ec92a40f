"""``Introspection``: tokens that only their authorization server can read (RFC 7662)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Any, Final
from urllib.parse import quote

import msgspec

from mcp_manager.auth.oauth.documents import kind_of
from mcp_manager.auth.oauth.http import JsonReply
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.errors import AuthError
from mcp_manager.gateway.security.issuer import Issuer
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.token_claims import ClaimRules
from mcp_manager.gateway.security.verdicts import Rejected, Verdict, Verified
from mcp_manager.runtime.background import background_task, bare_context

__all__ = ["Introspection"]

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 16
_MOST_PENDING: Final = 512
_MOST_REFUSED: Final = 2_048
_REFUSED_S: Final = 5.0
_DOWN_S: Final = 2.0
_WARN_EVERY_S: Final = 10.0
_MOST_ANSWERS: Final = 20_000
# How long a stream outlasts an answer that cannot be renewed, because the authorization server is down.
_UNANSWERED_S: Final = 60.0
_LONGEST_TOKEN: Final = 8_192
_NO_TOKEN: Final = "no-token"
_WHAT: Final = "the introspection endpoint"
_INACTIVE: Final = Rejected("invalid_token", "the token is not active")
_TOO_LONG: Final = Rejected("invalid_token", "the token is too long")
_BUSY: Final = Rejected("unavailable", "too many tokens are being looked up", 1)
_DOWN: Final = Rejected("unavailable", "the authorization server of the token is not available", 2)


class _Answer(msgspec.Struct):
    """What is known of a token: the last principal and until when that holds; or that it is not active any more."""

    principal: Principal | None
    until: float


class Introspection:
    """Ask an authorization server about tokens: once for all who wait, and not about the same token too often.

    Parameters
    ----------
    config
        How clients authenticate.
    """

    def __init__(self, config: ClientAuthConfig) -> None:
        self._cache_s = config.cache_s
        self._rules = ClaimRules(config, needs_all=False)
        self._issuer = Issuer(config)
        # RFC 6749, section 2.3.1: both are form-encoded first.
        pair = ":".join(quote(each or "", safe="") for each in (config.client_id, config.client_secret))
        self._headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        self._pending: dict[bytes, asyncio.Task[Verdict]] = {}
        self._refused: dict[bytes, tuple[float, Rejected]] = {}
        # Of tokens that were active, those looked up last.
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._down_until = 0.0
        self._warns_at = 0.0
        self._problem = ""
        if not config.audience and config.resource is None:
            _log.warning("serve.auth has no audience: tokens that were issued for other services are accepted")

    async def start(self) -> None:
        """Do nothing: the first token is looked up when it comes."""

    async def probe(self) -> str:
        """Look up a token that there is not; return why that failed, "" if it did not."""
        self._problem = ""
        verdict = self.verify(_NO_TOKEN)
        if isinstance(verdict, Awaitable):
            await verdict
        return self._problem

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        while self._pending:
            for task in self._pending.values():
                task.cancel()
            await asyncio.wait(set(self._pending.values()))
        await self._issuer.aclose()

    def verify(self, token: str) -> Verdict | Awaitable[Verdict]:
        """Examine a token: at once if it was refused a moment ago, or if it cannot be looked up now."""
        if len(token) > _LONGEST_TOKEN:
            return _TOO_LONG
        found = self._looking_up(token, _digest(token))
        return found if isinstance(found, Rejected) else _result_of(found)

    def latest(self, principal: Principal) -> Principal | None:
        """Return the principal of a token as it is known now; ``None`` if the token is not active any more.

        An answer that does not hold any longer is asked for again, without waiting for it. If that fails for a minute,
        the token counts as one that is not active.
        """
        token = principal.credential
        if token is None:
            return principal
        digest, now = _digest(token), time.time()
        answer = self._answers.get(digest)
        if answer is None:
            answer = _Answer(principal, now)
            self._keep(digest, answer)
        if answer.until <= now and answer.principal is not None:
            self._looking_up(token, digest)
            if answer.until + _UNANSWERED_S <= now:
                return None
        return answer.principal

    def _looking_up(self, token: str, digest: bytes) -> asyncio.Task[Verdict] | Rejected:
        """Return the task that looks a token up, or why there is none."""
        now = time.monotonic()
        refused = self._refused.get(digest)
        if refused is not None and refused[0] > now:
            return refused[1]
        task = self._pending.get(digest)
        if task is None:
            if now < self._down_until:
                return _DOWN
            if len(self._pending) >= _MOST_PENDING:
                return _BUSY
            task = background_task(self._look_up(token, digest), "look up a token", context=bare_context())
            self._pending[digest] = task
            task.add_done_callback(lambda _: self._pending.pop(digest, None))
        return task

    async def _look_up(self, token: str, digest: bytes) -> Verdict:
        async with self._places:
            if time.monotonic() < self._down_until:
                return _DOWN
            form = {"token": token, "token_type_hint": "access_token"}
            try:
                reply = await self._issuer.post(form, self._headers, _WHAT)
            except TimeoutError:
                return self._failed("it did not answer in time")
            except AuthError as error:
                return self._failed(str(error))
        found = self._verdict(token, reply)
        if isinstance(found, Verified):
            self._keep(digest, _Answer(found.principal, found.until))
        elif found.error != "unavailable" and digest in self._answers:
            self._keep(digest, _Answer(None, 0.0))
        if isinstance(found, Rejected):
            self._refuse(digest, found, _DOWN_S if found.error == "unavailable" else min(self._cache_s, _REFUSED_S))
        return found

    def _verdict(self, token: str, reply: JsonReply) -> Verdict:
        claims: dict[str, Any] = reply.body
        active = claims.pop("active", None)
        if reply.status != 200 or not isinstance(active, bool):
            hint = "; check client_id and client_secret" if reply.status in (400, 401, 403) else ""
            # Another status may be due to this token, which must not keep others out.
            is_for_all = reply.is_transient or reply.status in (401, 403)
            return self._failed(f"HTTP {reply.status} without an answer{hint}", is_for_all=is_for_all)
        if not active:
            return _INACTIVE
        problem = self._rules.rejected(claims, time.time())
        return self._rules.verdict(claims, token, time.time() + self._cache_s) if problem is None else problem

    def _keep(self, digest: bytes, answer: _Answer) -> None:
        self._answers[digest] = answer
        self._answers.move_to_end(digest)
        if len(self._answers) > _MOST_ANSWERS:
            self._answers.popitem(last=False)

    def _refuse(self, digest: bytes, found: Rejected, seconds: float) -> None:
        now = time.monotonic()
        if len(self._refused) >= _MOST_REFUSED:
            self._refused = {key: each for key, each in self._refused.items() if each[0] > now}
            while len(self._refused) >= _MOST_REFUSED:
                del self._refused[next(iter(self._refused))]
        # After it, so that the newest is last.
        self._refused.pop(digest, None)
        self._refused[digest] = (now + seconds, found)

    def _failed(self, problem: str, *, is_for_all: bool = True) -> Rejected:
        now = time.monotonic()
        self._problem = problem
        if is_for_all:
            self._down_until = now + _DOWN_S
            self._issuer.forget_metadata()
        if now >= self._warns_at:
            self._warns_at = now + _WARN_EVERY_S
            _log.warning("cannot look up tokens of clients: %s", problem)
        return _DOWN


def _digest(token: str) -> bytes:
    return hashlib.blake2b(token.encode(), digest_size=16).digest()


async def _result_of(task: asyncio.Task[Verdict]) -> Verdict:
    """Wait for a task that others wait for as well: to cancel this does not cancel the task."""
    await asyncio.wait({task})
    if task.cancelled():
        return _DOWN
    error = task.exception()
    if error is not None:
        _log.error("cannot look up a token: %s", kind_of(error))
        return _DOWN
    return task.result()
