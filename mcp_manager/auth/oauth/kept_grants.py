"""The stored grant of one authorization."""

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
    """Store the grant of one endpoint and principal across runs.

    Parameters
    ----------
    store
        The token store, which may be user code. Only :meth:`load` passes its exceptions on.
    server_id, url
        The server, and the URL of its endpoint, which is the resource.
    config
        Its ``auth``. Grants of another principal or issuer are not used.
    """

    def __init__(self, store: TokenStore, server_id: str, url: str, config: AuthConfig) -> None:
        self._store = store
        self._server_id = server_id
        self._config = config
        self._key = f"{server_id}\n{url}\n{_principal(config)}"
        self._is_kept = True

    async def load(self) -> Grant | None:
        """Return the stored grant if it fits the current configuration, else ``None``; raises what the store raises."""
        record = await self._store.load(self._key)
        if record is None:
            return None
        try:
            grant = msgspec.json.decode(record, type=Grant)
        except (msgspec.DecodeError, RecursionError):
            extra = {"event": "authorization_damaged", "server_id": self._server_id}
            _log.warning("the stored authorization of server %r is damaged and not used", self._server_id, extra=extra)
            return None
        is_ours = self._config.issuer is None or same_issuer(self._config.issuer, grant.issuer)
        return grant if is_ours and (grant.dpop_key is not None) == self._config.dpop else None

    async def save(self, grant: Grant) -> None:
        """Store a grant, replacing the previous one; a failure is only logged."""
        try:
            await self._store.save(self._key, msgspec.json.encode(grant))
            self._is_kept = True
        except Exception as error:
            self._is_kept = False
            # The store may be user code, which can raise anything. The grant is valid even so, while this process
            # lives.
            kind = type(error).__name__
            extra = {"event": "authorization_not_stored", "server_id": self._server_id, "error": kind}
            _log.warning("the authorization of server %r is not stored (%s)", self._server_id, kind, extra=extra)

    async def newer_than(self, used: Grant) -> Grant | None:
        """Return a grant that another process has stored since ``used``, or ``None``.

        Using a refresh token that another process has used already revokes all tokens (OAuth 2.1, section 4.3.1).
        """
        try:
            grant = await self.load() if self._is_kept else None
        except Exception:
            # The store may be user code, which can raise anything.
            return None
        if grant is None or not same_issuer(grant.issuer, used.issuer) or grant.access_token == used.access_token:
            return None
        return None if 0 < grant.expires_at <= time.time() else grant


def _principal(config: AuthConfig) -> str:
    """Name the principal that the tokens are for. An assertion identifies the user but is secret, so it is hashed."""
    assertion = hashlib.sha256(config.assertion.encode()).hexdigest() if config.assertion is not None else ""
    names = (config.client_id or config.client_metadata_url, config.grant, config.idp_client_id, config.assertion_file)
    return "\n".join([*(each or "" for each in names), assertion])
