"""Who may administer the gateway: whoever has the token, or the operators of ``serve.auth``."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from aiohttp import web

from mcp_manager.config.admin import AdminConfig
from mcp_manager.gateway.admin.problems import Refusal, refused
from mcp_manager.gateway.http.hosts import Hosts
from mcp_manager.gateway.http.web_requests import WebRequest, parsed
from mcp_manager.gateway.security.authentication import Denial
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.security import Security

__all__ = ["Authorization"]

_CHALLENGE: Final = 'Bearer realm="mcp-manager admin"'
_TOKEN_HINT: Final = "send Authorization: Bearer TOKEN with serve.admin.token"
_SCHEMES: Final = ("http://", "https://")


class Authorization:
    """Decide about requests to the admin API.

    Parameters
    ----------
    config
        The token, if there is one.
    security
        Knows the operators.
    hosts
        Returns which hosts and origins are accepted.
    """

    def __init__(self, config: AdminConfig, security: Security, hosts: Callable[[], Hosts]) -> None:
        self._token = None if config.token is None else config.token.encode("ascii")
        self._security = security
        self._hosts = hosts
        self._holder = Principal("admin")

    def check_source(self, request: web.Request) -> None:
        """Raise :class:`Refusal` for a foreign ``Host``, or for a web page that may not use the gateway.

        The page of the gateway itself has the origin that the request is sent to.
        """
        host = request.headers.get("Host", "").encode("utf-8", "surrogateescape")
        hosts = self._hosts()
        if not hosts.accepts_host(host or None):
            hint = "add the host to serve.allowed_hosts"
            raise _because("host", refused(403, "This gateway does not serve the host of the header Host", hint=hint))
        origin = request.headers.get("Origin")
        if origin is None or any(origin == scheme + request.headers["Host"] for scheme in _SCHEMES):
            return
        if not hosts.accepts_origin(origin.encode("utf-8", "surrogateescape")):
            hint = "add the origin to serve.allowed_origins"
            raise _because("origin", refused(403, "Web pages of this origin may not use this gateway", hint=hint))

    async def admit(self, request: web.Request) -> Principal:
        """Return whoever sends a request; raises :class:`Refusal` unless that party may administer the gateway."""
        if self._token is not None:
            return self._holder_of_token(request, self._token)
        incoming = WebRequest(request, b"")
        found = await self._security.identify(incoming)
        if isinstance(found, Denial):
            fields = dict(parsed(found.fields))
            status = found.status
            raise _because(
                "authentication", _with(refused(status, "Authentication required", hint=_hint(found)), fields)
            )
        if not self._security.is_named_operator(found):
            hint = f"add {found.name!a:.300} to serve.auth.operators"
            raise _because("rule", refused(403, "Only operators may use the admin API", hint=hint), found.name)
        return found

    def _holder_of_token(self, request: web.Request, token: bytes) -> Principal:
        fields = request.headers.getall("Authorization", ())
        scheme, _, shown = (fields[0] if len(fields) == 1 else "").partition(" ")
        # In constant time: how long it takes says nothing of how much is right.
        is_right = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), token)
        if scheme.lower() == "bearer" and is_right:
            return self._holder
        challenge = f'{_CHALLENGE}, error="invalid_token"' if fields else _CHALLENGE
        refusal = refused(
            401, "The token of the admin API is missing or wrong", hint=_TOKEN_HINT, WWW_Authenticate=challenge
        )
        raise _because("authentication", refusal)


def _hint(denial: Denial) -> str:
    return "send Authorization: Bearer TOKEN" if denial.reason == "no credentials" else denial.reason


def _with(refusal: Refusal, headers: dict[str, str]) -> Refusal:
    refusal.headers.update(headers)
    return refusal


def _because(reason: str, refusal: Refusal, principal: str = "") -> Refusal:
    refusal.reason = reason
    refusal.principal = principal
    return refusal
