"""``Issuer``: what is fetched from the authorization server whose tokens clients show."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from yarl import URL

from mcp_manager.auth.oauth.http import JsonReply, OAuthHttp
from mcp_manager.auth.oauth.metadata import discover_metadata
from mcp_manager.config import ServerConfig, TlsConfig
from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.config.tls_files import check_tls_files
from mcp_manager.errors import AuthError
from mcp_manager.transports.http.connections.pool import HttpPool
from mcp_manager.transports.http.connections.routed_client import RoutedClient

__all__ = ["Issuer"]

_TIMEOUT_S: Final = 10.0


class Issuer:
    """Fetch metadata, keys and answers of an authorization server: bounded in size, time and redirects.

    Its own documents cannot send the gateway into a network that the issuer is not on; URLs of the configuration can.

    Parameters
    ----------
    config
        How clients authenticate.

    Raises
    ------
    ConfigError
        The file of certificate authorities cannot be used.
    """

    def __init__(self, config: ClientAuthConfig) -> None:
        configured = (config.issuer, config.jwks_url, config.introspection_endpoint)
        base = next(each for each in configured if each is not None)
        self._config = config
        self._pool = HttpPool()
        tls = TlsConfig(ca_file=config.ca_file)
        _check_authorities(tls)
        client = RoutedClient(self._pool, ServerConfig(name="serve.auth", url=base, tls=tls))
        self._http = OAuthHttp(lambda: client, "serve.auth", URL(base), trusted=configured)
        self._metadata: Mapping[str, Any] | None = None

    async def get(self, member: Literal["jwks_uri"], what: str) -> JsonReply:
        """Fetch a document that is configured, or that the metadata names.

        Raises
        ------
        AuthError
            It is not there, or the issuer does not answer.
        """
        async with asyncio.timeout(_TIMEOUT_S):
            with _hints():
                return await self._http.get(await self._url(member, self._config.jwks_url, what), what)

    async def post(self, form: Mapping[str, str], headers: Mapping[str, str], what: str) -> JsonReply:
        """Send a form to the introspection endpoint; raises :class:`AuthError` as :meth:`get` does."""
        async with asyncio.timeout(_TIMEOUT_S):
            with _hints():
                url = await self._url("introspection_endpoint", self._config.introspection_endpoint, what)
                return await self._http.post_form(url, form, headers, what)

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._pool.aclose()

    def forget_metadata(self) -> None:
        """Fetch the metadata again before the next request, as after one that failed."""
        self._metadata = None

    async def _url(self, member: str, configured: str | None, what: str) -> URL:
        if configured is not None:
            return self._http.checked(configured, what, trusted=True)
        issuer = self._config.issuer
        assert issuer is not None
        if self._metadata is None:
            found = await discover_metadata(self._http, issuer)
            if found is None:
                raise self._error(f"the issuer {self._http.shown(issuer)} publishes no metadata", member)
            self._metadata = found.body
        named = self._metadata.get(member)
        if named is None:
            raise self._error(f"the metadata of the issuer {self._http.shown(issuer)} has no {member}", member)
        return self._http.checked(named, f"{member} of the issuer's metadata")

    def _error(self, text: str, member: str) -> AuthError:
        setting = "jwks_url" if member == "jwks_uri" else member
        return self._http.error(text, hint=f"set serve.auth.{setting}")


@contextlib.contextmanager
def _hints() -> Iterator[None]:
    """Let the errors of connections name the field that their certificates are from."""
    try:
        yield
    except AuthError as error:
        error.hint = error.hint.replace("tls.ca_file", "serve.auth.ca_file")
        raise


def _check_authorities(tls: TlsConfig) -> None:
    try:
        check_tls_files(tls, "serve.auth")
    except FieldProblem as problem:
        error = problem.error("Invalid config")
    else:
        return
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error
