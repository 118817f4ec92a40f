"""``Limits``: how much of the gateway each principal may use at a time, and per second."""

from __future__ import annotations

import fnmatch
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mcp_manager._core.client_limits import Counter, UseCounts, take
from mcp_manager.config.access import ClientLimitConfig
from mcp_manager.errors import RpcError
from mcp_manager.gateway.endpoints.name_patterns import NamePatterns
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.rules import claims_match

__all__ = ["LIMIT_REACHED", "Account", "Counter", "LimitReachedError", "Limits", "Scope"]

LIMIT_REACHED: Final = -32017
"""The code of the error for a request beyond a limit of its principal."""

_MOST_ACCOUNTS: Final = 20_000
_MOST_SCOPES: Final = 1_000
_VIEW: Final = "view/"
_SERVER: Final = "server/"
_ALL: Final = "*"
_REQUESTS: Final = "requests under way"
_STREAMS: Final = "open streams"


class LimitReachedError(RpcError):
    """A limit of the principal is reached; nothing was sent.

    Parameters
    ----------
    text
        Which limit, for the client.
    retry_after_s
        Seconds after which to try again; ``None`` if that depends on other requests.
    """

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        data: dict[str, Any] = {"source": "gateway", "delivery": "not_sent"}
        if retry_after_s is not None:
            data["retryAfterMs"] = max(round(retry_after_s * 1000), 1)
            data["hint"] = f"try again in {retry_after_s:.{1 if retry_after_s >= 1 else 2}f} s"
        else:
            data["hint"] = "wait until one of them ends"
        super().__init__(LIMIT_REACHED, text, data)
        self.retry_after_s: float | None = retry_after_s

    @property
    def fields(self) -> bytes:
        """The header fields of a response that says so."""
        return b"Retry-After: %d\r\n" % max(math.ceil(self.retry_after_s or 0.0), 1)


class Scope:
    """The limits of one principal that count the requests to one endpoint.

    Attributes
    ----------
    counters
        Those of all requests.
    has_tools
        Whether there are some that count the calls of certain tools only.
    """

    __slots__ = ("_by_tool", "counters", "has_tools", "of_tools")

    def __init__(self, counters: Sequence[Counter], of_tools: Sequence[tuple[NamePatterns, Counter]]) -> None:
        self.counters: tuple[Counter, ...] = tuple(counters)
        self.of_tools: tuple[tuple[NamePatterns, Counter], ...] = tuple(of_tools)
        self.has_tools: bool = bool(of_tools)
        self._by_tool: dict[tuple[str, str], tuple[Counter, ...]] = {}

    def of_tool(self, server_id: str, tool: str) -> tuple[Counter, ...]:
        """Return the counters of the calls of one tool alone."""
        key = server_id, tool
        found = self._by_tool.get(key)
        if found is None:
            found = tuple(counter for patterns, counter in self.of_tools if patterns.match(server_id, tool))
            if len(self._by_tool) >= _MOST_SCOPES:
                self._by_tool.clear()
            self._by_tool[key] = found
        return found


class Account(UseCounts):
    """What one principal uses.

    Attributes
    ----------
    principal
        The principal, with its newest credentials.
    """

    __slots__ = ("_known", "_limits", "_scopes", "counters", "generation", "principal")
    epoch: object
    streams: int

    def __init__(self, limits: Limits, principal: Principal) -> None:
        self._limits = limits
        self.principal: Principal = principal
        self.generation: int = -1
        self.counters: tuple[Counter, ...] = ()
        # Of all limits that have applied, by their numbers: another token of the principal starts none of them anew.
        self._known: dict[int, Counter] = {}
        self._scopes: dict[str, Scope] = {}

    @property
    def is_used(self) -> bool:
        """Whether anything of it is under way."""
        return self.running > 0 or self.streams > 0

    def follow(self, configs: Sequence[ClientLimitConfig], generation: int) -> None:
        """Take note of the limits in force; those that were in force before go on counting."""
        self.generation = generation
        left, self._known = list(self._known.values()), {}
        for number, config in enumerate(configs):
            counter = next((each for each in left if each.config == config), None)
            if counter is not None:
                left.remove(counter)
                self._known[number] = counter

    def show(self, applying: Mapping[int, ClientLimitConfig], workers: int) -> None:
        """Have these limits, by their numbers, from now on."""
        for number, config in applying.items():
            if number not in self._known:
                self._known[number] = Counter(config, workers)
        counters = tuple(self._known[number] for number in applying)
        if counters != self.counters:
            self.counters = counters
            self._scopes = {}
            self.epoch = object()

    def scope(self, endpoint: str) -> Scope:
        """Return the limits that count requests to an endpoint, by its name."""
        scope = self._scopes.get(endpoint)
        if scope is None:
            counting = [each for each in self.counters if _counts(each.config, endpoint)]
            scope = Scope(
                [each for each in counting if not each.config.tools],
                [(NamePatterns(each.config.tools), each) for each in counting if each.config.tools],
            )
            if len(self._scopes) >= _MOST_SCOPES:
                self._scopes.clear()
            self._scopes[endpoint] = scope
        return scope

    def begin(self, counters: tuple[Counter, ...]) -> None:
        """Count a request, or raise :class:`LimitReachedError`; :meth:`end` takes it back.

        Parameters
        ----------
        counters
            The limits that count it.
        """
        refused = self.begin_request(counters, self._limits.most_running, self._limits.clock() if counters else 0)
        if refused is not None:
            raise self.refusal(*refused)

    def end(self, counters: tuple[Counter, ...]) -> None:
        """Take note that a request has ended."""
        self.end_request(counters)

    def take(self, counters: tuple[Counter, ...]) -> None:
        """Count a request that is counted already in further limits as well, or raise :class:`LimitReachedError`."""
        refused = take(counters, self._limits.clock())
        if refused is not None:
            raise self.refusal(*refused)

    def refusal(self, counter: Counter | None, wait_ns: int) -> LimitReachedError:
        """Return the error for a request that is refused, as :meth:`UseCounts.begin_request` says why."""
        if counter is None:
            return LimitReachedError(_too_many(self._limits.most_running, _REQUESTS))
        if wait_ns == 0:
            return LimitReachedError(_too_many(counter.config.max_concurrent, _REQUESTS))
        return LimitReachedError(f"Too many requests: you may send {counter.config.rate:g} per second", wait_ns / 1e9)

    def open_stream(self, counters: tuple[Counter, ...]) -> None:
        """Count a stream, or raise :class:`LimitReachedError`; :meth:`close_stream` takes it back."""
        if 0 < self._limits.most_streams <= self.streams:
            raise LimitReachedError(_too_many(self._limits.most_streams, _STREAMS))
        for counter in counters:
            if 0 < counter.most_streams <= counter.streams:
                raise LimitReachedError(_too_many(counter.config.max_streams, _STREAMS))
        self.streams += 1
        for counter in counters:
            counter.streams += 1

    def close_stream(self, counters: tuple[Counter, ...]) -> None:
        """Take note that a stream has ended."""
        self.streams -= 1
        for counter in counters:
            counter.streams -= 1


class Limits:
    """Keep an account for each principal that uses the gateway.

    Accounts of 20,000 principals are kept, and of those that use something right now. Only whoever has authenticated has
    one; clients that need not are one principal together.

    Parameters
    ----------
    configs
        The limits, ``serve.limits``.
    workers
        How many processes serve the address. Each admits its part, rounded up, so that all of them together do not
        admit more than the limits say; a client whose requests all come to one process is bound by that part.
    most
        The requests under way, and the streams, that one principal may have in this process whatever the limits say; 0
        for none, if all clients are one principal.
    clock
        Returns monotonic nanoseconds.

    Attributes
    ----------
    epoch
        Another object as soon as an account may have other limits, or be another one; what changes the limits of one
        account alone is told by the account.
    """

    def __init__(
        self,
        configs: Sequence[ClientLimitConfig],
        *,
        workers: int = 1,
        most: tuple[int, int] = (0, 0),
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clock: Callable[[], int] = clock
        self.most_running: int
        self.most_streams: int
        self.most_running, self.most_streams = most
        self.epoch: object = object()
        self._configs = tuple(configs)
        self._workers = workers
        self._generation = 0
        # Those used last are in the first one.
        self._newer: dict[str, Account] = {}
        self._older: dict[str, Account] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    @property
    def applies(self) -> bool:
        """Whether there are limits for anybody."""
        return bool(self._configs) or self.most_running > 0

    def apply(self, configs: Sequence[ClientLimitConfig], most: tuple[int, int] = (0, 0)) -> None:
        """Have these limits from now on; limits that stay go on counting."""
        self.most_running, self.most_streams = most
        self.epoch = object()
        if tuple(configs) != self._configs:
            self._configs = tuple(configs)
            self._generation += 1

    def of(self, principal: Principal) -> Account:
        """Return the account of a principal."""
        account = self._newer.get(principal.name)
        if account is None:
            account = self._older.pop(principal.name, None) or Account(self, principal)
            if len(self._newer) >= _MOST_ACCOUNTS // 2:
                used = {name: each for name, each in self._older.items() if each.is_used}
                self._older, self._newer = self._newer, used
                # Some are not known any more.
                self.epoch = object()
            self._newer[principal.name] = account
        if account.principal is not principal or account.generation != self._generation:
            self._decide(account, principal)
        return account

    def _decide(self, account: Account, principal: Principal) -> None:
        """Find the limits that apply to a principal; those that did before go on counting."""
        is_same = account.generation == self._generation and account.principal.claims == principal.claims
        account.principal = principal
        if is_same:
            return
        if account.generation != self._generation:
            account.follow(self._configs, self._generation)
        applying = {number: each for number, each in enumerate(self._configs) if _applies(each, principal)}
        account.show(applying, self._workers)


def _too_many(most: int, what: str) -> str:
    return f"Too many requests: you may have {most} {what}"


def _applies(config: ClientLimitConfig, principal: Principal) -> bool:
    if config.principals and not any(fnmatch.fnmatchcase(principal.name, each) for each in config.principals):
        return False
    return claims_match(config.claims, principal.claims)


def _counts(config: ClientLimitConfig, endpoint: str) -> bool:
    """Return whether requests to an endpoint count."""
    if not config.views:
        return True
    if _ALL in config.views:
        return not endpoint.startswith(_SERVER)
    return endpoint.startswith(_VIEW) and endpoint.removeprefix(_VIEW) in config.views
