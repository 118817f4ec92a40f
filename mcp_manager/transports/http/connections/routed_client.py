"""Sends the requests of authorization flows by the route of the server's configuration."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
from yarl import URL

from mcp_manager.auth import UnreachableError
from mcp_manager.auth.addresses import address_rule, literal_address
from mcp_manager.config import ServerConfig
from mcp_manager.errors import ConfigError
from mcp_manager.transports.http.connections.failures import failure_of
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.connections.route import proxy_fields, request_options, route_of

__all__ = ["RoutedClient"]


class RoutedClient:
    """An HTTP client for obtaining authorization.

    The server's own origins are reached as the server itself. Authorization servers elsewhere are reached through the
    same proxy; they are trusted by ``ca_file`` or the system's store, and get neither the client certificate nor the
    unix socket.
    """

    def __init__(self, pool: HttpPool, config: ServerConfig) -> None:
        self._pool = pool
        self._config = config

    @functools.cached_property
    def _origins(self) -> frozenset[URL]:
        config = self._config
        count = config.url_limit or (config.max_instances if config.has_url_template else 1)
        found = set()
        for index in range(count):
            # A URL template may not have a URL for every index.
            with contextlib.suppress(ConfigError):
                found.add(URL(config.instance_url(index)).origin())
        return frozenset(found)

    @contextlib.asynccontextmanager
    async def request(
        self, verb: str, url: URL, *, headers: dict[str, str], **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request, as :meth:`aiohttp.ClientSession.request` does.

        Raises
        ------
        UnreachableError
            The connection failed; the text says why.
        TimeoutError
            It took too long.
        """
        route = route_of(self._config, url, os.environ, elsewhere=url.origin() not in self._origins)
        try:
            routed = await request_options(route, self._pool.tls, url, None)
            fields = {**headers, **proxy_fields(route, url)}
            with _rule_of_proxy(url) if route.proxy is not None else contextlib.nullcontext():
                # A new connection: the address rule is not applied to a kept one.
                response = await self._pool.clients.fresh.request(verb, url, headers=fields, **options, **routed)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            failure = failure_of(error, route, tls=url.scheme == "https")
            raise UnreachableError(failure.reason, failure.hint) from None
        async with response:
            yield response


@contextlib.contextmanager
def _rule_of_proxy(url: URL) -> Iterator[None]:
    """Apply the address rule to a URL behind a proxy: to a literal address only, as the proxy resolves names."""
    rule = address_rule.get()
    address = literal_address(url.host or "")
    if rule is not None and address is not None:
        rule.check(address)
    # Otherwise the rule would be applied to the address of the proxy.
    token = address_rule.set(None)
    try:
        yield
    finally:
        address_rule.reset(token)
