"""The discovery of a server's instances in DNS: A and AAAA records (RFC 1035, RFC 3596) or SRV records (RFC 2782)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mcp_manager.config import ServerConfig, split_nameserver
from mcp_manager.errors import ConfigError, ConnectError
from mcp_manager.session.endpoints import Endpoints
from mcp_manager.transports.http.connections.endpoint import Endpoint

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

    from mcp_manager.fleet.dns_backend import ClosingBackend

__all__ = ["Discovery", "require_dns"]

_log = logging.getLogger(__name__)

_EXTRA: Final = "install it with: pip install 'pymcp-manager[dns]'"
_HIGHEST_TIER: Final = 15
# RFC 2782: a weight of 0 means a very small share beside other records.
_LEAST_WEIGHT: Final = 0.1


class _Answer(NamedTuple):
    """The records of a name, or why there are none: it does not exist, or a failure that may end the whole lookup."""

    records: list[Any]
    failure: ConnectError | None = None
    is_missing: bool = False
    is_final: bool = False


def require_dns(server_id: str) -> None:
    """Raise :class:`ConfigError` unless dnspython is installed."""
    try:
        import dns.asyncresolver  # noqa: F401, PLC0415 - an extra, and slow to import
    except ImportError:
        raise ConfigError("discovery needs the package dnspython", server_id=server_id, hint=_EXTRA) from None


class Discovery:
    """Keep a server's endpoints up to date with its DNS records.

    A lookup that fails or finds nothing changes nothing; it is repeated after ``min_refresh_s`` seconds.

    Parameters
    ----------
    server_id, config
        The server's id and its configuration, with a single plain ``url``.
    endpoints
        The endpoints to update.
    in_use
        Returns the indexes of the endpoints that instances use, so that they keep their numbers.
    changed
        Called after each lookup of :meth:`run` that found something.
    """

    def __init__(
        self,
        server_id: str,
        config: ServerConfig,
        endpoints: Endpoints,
        in_use: Callable[[], Collection[int]],
        changed: Callable[[], None],
    ) -> None:
        # Imported late: yarl comes with aiohttp, which the first transport imports.
        from yarl import URL  # noqa: PLC0415

        url = URL(config.instance_url(0))
        self._server_id = server_id
        self._host = url.raw_host or ""
        self._port = url.port or 0
        self._template = config.discovery
        self._endpoints = endpoints
        self._in_use = in_use
        self._changed = changed
        self._resolver: Resolver | None = None
        self._backend: ClosingBackend | None = None
        # The last good answers, by name and record type.
        self._known: dict[tuple[str, str], list[Any]] = {}
        self._ttl_s = 0.0

    async def look(self) -> None:
        """Look the records up once and update the endpoints.

        Raises
        ------
        ConnectError
            Nothing was found, or no name server answered; the endpoints are unchanged.
        """
        self._ttl_s = self._template.refresh_s
        # dnspython waits with asyncio.wait_for, which may lose a cancellation on Python 3.11; asyncio.gather does not.
        [found] = await asyncio.gather(self._look_up())
        if not found:
            raise self._nothing("no DNS record names a usable address")
        self._endpoints.problem = None
        self._endpoints.replace(found, self._in_use())

    async def run(self) -> None:
        """Look the records up again whenever they expire, until cancelled."""
        while True:
            has_failed = self._endpoints.problem is not None
            least, most = self._template.min_refresh_s, self._template.refresh_s
            await asyncio.sleep(least if has_failed else min(max(self._ttl_s, least), most))
            try:
                await self.look()
                self._changed()
            except Exception as error:
                failure = (
                    error if isinstance(error, ConnectError) else self._nothing(f"{type(error).__name__}: {error}")
                )
                if not has_failed:
                    extra = {"event": "discovery_failed", "server_id": self._server_id, "error": failure.message}
                    _log.warning(
                        "server %r keeps its present instances: %s", self._server_id, failure.message, extra=extra
                    )
                self._endpoints.problem = failure.for_caller("not_sent")

    async def _look_up(self) -> list[Endpoint]:
        if self._template.kind == "srv":
            return await self._look_for_services()
        return [Endpoint(address, self._port) for address in await self._look_for_addresses(self._host)]

    async def _look_for_addresses(self, host: str) -> list[str]:
        found = await self._find(host, "A", "AAAA")
        return list(dict.fromkeys(record.address for record in found))

    async def _look_for_services(self) -> list[Endpoint]:
        services = [each for each in await self._find(self._host, "SRV") if str(each.target) != "."]
        if not services:
            raise self._nothing(f"{self._host} has no SRV record of a service")
        tiers = {priority: tier for tier, priority in enumerate(sorted({each.priority for each in services}))}
        places = await asyncio.gather(*(self._place_of(str(each.target)) for each in services))
        return list(
            dict.fromkeys(
                Endpoint(place, each.port, min(tiers[each.priority], _HIGHEST_TIER), each.weight or _LEAST_WEIGHT)
                for each, place in zip(services, places, strict=True)
                if place is not None and each.port
            )
        )

    async def _place_of(self, host: str) -> str | None:
        """Return the first address of a host; if the lookup fails, its last known one, or ``None``."""
        try:
            return (await self._look_for_addresses(host))[0]
        except ConnectError:
            known = [record for kind in ("A", "AAAA") for record in self._known.get((host, kind), [])]
            return known[0].address if known else None

    async def _find(self, host: str, *kinds: str) -> list[Any]:
        """Return the records of the first name that has any, in the order of the names that a host may stand for.

        As in glibc, a name is passed over that does not exist, has no such records, or whose name servers report a
        failure; but if it had records before, that failure ends the lookup, as every other does.
        """
        end_s = time.monotonic() + self._template.timeout_s
        reported: ConnectError | None = None
        missing: list[str] = []
        for name in self._names(host):
            answers = await self._ask_for_all(name, kinds, end_s)
            if any(each.failure is None for each in answers):
                found = {
                    # If the lookup of one record type failed, its last good answer is used.
                    (name, kind): answer.records if answer.failure is None else self._known.get((name, kind), [])
                    for kind, answer in zip(kinds, answers, strict=True)
                }
                if any(found.values()):
                    self._known |= found
                    return [record for records in found.values() for record in records]
            had_records = any(self._known.get((name, kind)) for kind in kinds)
            for answer in answers:
                if answer.failure is not None and not answer.is_missing:
                    if answer.is_final or had_records:
                        raise answer.failure
                    reported = reported or answer.failure
            missing.append(name)
        raise reported or self._nothing(f"there is no {' or '.join(kinds)} record of {', '.join(missing)}")

    def _names(self, host: str) -> list[str]:
        """Return the complete names that a host may stand for, by the search list of the system's ``resolv.conf``."""
        import dns.exception  # noqa: PLC0415 - see require_dns
        import dns.name  # noqa: PLC0415 - see require_dns

        if host.endswith(".") or self._template.nameservers:
            return [host]
        try:
            resolver = self._asked
            relative = dns.name.from_text(host, None)
            own_domain = [resolver.domain] if resolver.domain not in (None, dns.name.root) else []
            below = [str(relative + domain) for domain in resolver.search or own_domain]
        except dns.exception.DNSException as error:
            raise self._nothing(f"the lookup of {host} failed: {error}") from None
        is_tried_first = len(relative) > (1 if resolver.ndots is None else resolver.ndots)
        return [f"{host}.", *below] if is_tried_first else [*below, f"{host}."]

    async def _ask_for_all(self, name: str, kinds: tuple[str, ...], end_s: float) -> list[_Answer]:
        asked = (self._ask(name, kind, end_s) for kind in kinds)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                try:
                    raise answer
                finally:
                    # Its traceback holds this frame.
                    del answer, answers
        return [answer for answer in answers if isinstance(answer, _Answer)]

    async def _ask(self, name: str, kind: str, end_s: float) -> _Answer:
        import dns.resolver  # noqa: PLC0415 - see require_dns

        try:
            answer = await self._asked.resolve(
                name,
                kind,
                raise_on_no_answer=False,
                lifetime=max(0.0, end_s - time.monotonic()),
                search=False,
                backend=self._backend,
            )
        except dns.resolver.NXDOMAIN as error:
            return self._failed(name, kind, str(error), is_missing=True)
        except dns.resolver.NoNameservers as error:
            return self._failed(name, kind, str(error))
        except dns.exception.DNSException as error:
            return self._failed(name, kind, str(error), is_final=True)
        except Exception as error:
            # A malformed packet may raise anything in dnspython; discovery must survive it.
            return self._failed(name, kind, f"{type(error).__name__}: {error}", is_final=True)
        if answer.rrset is None:
            return _Answer([])
        self._ttl_s = min(self._ttl_s, float(answer.chaining_result.minimum_ttl))
        # Sorted, because the order of the records changes from answer to answer.
        return _Answer(sorted(answer.rrset))

    def _failed(self, name: str, kind: str, why: str, *, is_missing: bool = False, is_final: bool = False) -> _Answer:
        failure = self._nothing(f"the lookup of {name} ({kind}) failed: {why}")
        return _Answer([], failure, is_missing=is_missing, is_final=is_final)

    @property
    def _asked(self) -> Resolver:
        if self._resolver is None:
            import dns.asyncresolver  # noqa: PLC0415 - see require_dns
            import dns.nameserver  # noqa: PLC0415 - see require_dns

            from mcp_manager.fleet.dns_backend import ClosingBackend  # noqa: PLC0415 - see require_dns

            self._backend = ClosingBackend()
            self._resolver = dns.asyncresolver.Resolver(configure=not self._template.nameservers)
            if self._template.nameservers:
                self._resolver.nameservers = [
                    dns.nameserver.Do53Nameserver(address, port)
                    for address, port in map(split_nameserver, self._template.nameservers)
                ]
        return self._resolver

    def _nothing(self, why: str) -> ConnectError:
        return ConnectError(f"no instance was found: {why}", server_id=self._server_id)
