"""The grant of one authorization in its store: what is of use now, and what another process has put there since."""

from __future__ import annotations

import hashlib
import logging
import time

import msgspec

from mcp_manager.auth.oauth.issuers import same_issuer
from mcp_manager.auth.token_store import Grant, TokenStore
from mcp_manager.config import AuthConfig

__all__ = ["KeptGrant"]

_log = logging.getLogger(__name__)


class KeptGrant:
    """Keep the grant of one server's endpoint and principal from one run to the next.

    Parameters
    ----------
    store
        The user's own or ours; what it raises is never passed on but by :meth:`load`.
    server_id, url
        The server, and the URL of its endpoint, which tokens are for.
    config
        Its ``auth``: what was obtained for another principal, or issuer, is not its own.
    """

    def __init__(self, store: TokenStore, server_id: str, url: str, config: AuthConfig) -> None:
        self._store = store
        self._server_id = server_id
        self._config = config
        self._key = f"{server_id}\n{url}\n{_principal(config)}"
        self._is_kept = True

    async def load(self) -> Grant | None:
        """Return what the store has, if it is of use with the configuration of now; raises what the store does."""
        record = await self._store.load(self._key)
        if record is None:
            return None
        try:
            grant = msgspec.json.decode(record, type=Grant)
        except (msgspec.DecodeError, RecursionError):
            _log.warning("the kept authorization of server %r is damaged and not used", self._server_id)
            return None
        is_ours = self._config.issuer is None or same_issuer(self._config.issuer, grant.issuer)
        return grant if is_ours and (grant.dpop_key is not None) == self._config.dpop else None

    async def save(self, grant: Grant) -> None:
        """Replace what the store has."""
        try:
            await self._store.save(self._key, msgspec.json.encode(grant))
            self._is_kept = True
        except Exception as error:
            self._is_kept = False
            # A user's own store: what was obtained is good even so, for as long as this process lives.
            _log.warning("the authorization of server %r is not kept (%s)", self._server_id, type(error).__name__)

    async def newer_than(self, used: Grant) -> Grant | None:
        """Return what another process has put there since: a refresh token used twice ends them all (OAuth 2.1, 4.3.1)."""
        try:
            grant = await self.load() if self._is_kept else None
        except Exception:
            # A user's own store: then nothing is known of others.
            return None
        if grant is None or not same_issuer(grant.issuer, used.issuer) or grant.access_token == used.access_token:
            return None
        return None if 0 < grant.expires_at <= time.time() else grant


def _principal(config: AuthConfig) -> str:
    """Name whom tokens are for: what one got is not another's. An assertion says who the user is, and is a secret."""
    assertion = hashlib.sha256(config.assertion.encode()).hexdigest() if config.assertion is not None else ""
    names = (config.client_id or config.client_metadata_url, config.grant, config.idp_client_id, config.assertion_file)
    return "\n".join([*(each or "" for each in names), assertion])
