"""``Denial``: the response to a client that has not shown who it is (RFC 6750, section 3; RFC 9728, section 5.1)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from mcp_manager.gateway.channels import Incoming
from mcp_manager.gateway.http.refusals import refusal
from mcp_manager.gateway.security.protected_resource import ResourceMetadata
from mcp_manager.gateway.security.verdicts import Rejected
from mcp_manager.protocol.error_codes import INVALID_REQUEST

__all__ = ["Challenges", "Denial"]

_log = logging.getLogger(__name__)

_TELL_EVERY_S: Final = 10.0
_STATUS: Final = {"invalid_request": 400, "invalid_token": 401, "insufficient_scope": 403, "unavailable": 503}
_MISSING: Final = "Authentication required"
_HINTS: Final = {
    "invalid_request": "send one Authorization: Bearer TOKEN",
    "invalid_token": "get a new API key or token",
    "insufficient_scope": "get a token with these scopes",
    "unavailable": "try again later",
}


class Denial(msgspec.Struct, frozen=True, eq=False):
    """A response in place of that of an endpoint.

    Parameters
    ----------
    status
        400, 401, 403 or 503.
    body
        A JSON-RPC error without an id, as JSON.
    fields
        Header fields as complete lines, ``WWW-Authenticate`` or ``Retry-After`` among them.
    reason
        Why, for logs: without secrets.
    """

    status: int
    body: bytes
    fields: bytes
    reason: str

    @property
    def cause(self) -> str:
        """What was missing, as the audit log calls it: ``scope``, or ``authentication``."""
        return "scope" if self.status == _STATUS["insufficient_scope"] else "authentication"


class Challenges:
    """Make denials.

    Parameters
    ----------
    metadata
        Where clients learn how to get a token.
    scopes
        The scopes that every token needs.
    hint
        How clients authenticate, for people.
    """

    def __init__(self, metadata: ResourceMetadata, scopes: Sequence[str], hint: str) -> None:
        self._metadata = metadata
        self._scopes = " ".join(scopes)
        self._hint = hint
        # By reason, when it is told again; there are only as many as there are texts.
        self._told: dict[str, float] = {}

    def missing(self, incoming: Incoming) -> Denial:
        """Answer a request without credentials: the challenge has no error then (RFC 6750, section 3.1)."""
        body = refusal(INVALID_REQUEST, _MISSING, self._hint)
        return Denial(401, body, self._challenge(incoming, []), "no credentials")

    def rejected(self, incoming: Incoming, found: Rejected) -> Denial:
        """Answer a request whose credential is not accepted."""
        body = refusal(INVALID_REQUEST, f"Not authenticated: {found.text}", _HINTS[found.error])
        if found.error == "unavailable":
            fields = b"Retry-After: %d\r\n" % max(1, found.retry_after_s)
        else:
            fields = self._challenge(incoming, [("error", found.error), ("error_description", _plain(found.text))])
        reason = f"{found.error}: {found.text}"
        now = time.monotonic()
        if now >= self._told.get(reason, 0.0):
            self._told[reason] = now + _TELL_EVERY_S
            _log.info("rejected the credentials of a client: %s", reason)
        return Denial(_STATUS[found.error], body, fields, reason)

    def _challenge(self, incoming: Incoming, parameters: list[tuple[str, str]]) -> bytes:
        url = self._metadata.url(incoming.path, incoming.header(b"host"))
        if url is not None:
            parameters.append(("resource_metadata", url))
        if self._scopes:
            parameters.append(("scope", self._scopes))
        if not parameters:
            parameters.append(("realm", "mcp-manager"))
        shown = ", ".join(f'{name}="{value}"' for name, value in parameters)
        return f"WWW-Authenticate: Bearer {shown}\r\nCache-Control: no-store\r\n".encode("ascii")


def _plain(text: str) -> str:
    """Return a text with the characters that ``error_description`` may have (RFC 6750, section 3)."""
    return "".join(each if " " <= each <= "~" and each not in '"\\' else "'" for each in text)
