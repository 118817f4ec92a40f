"""Which scopes an authorization asks for."""

from __future__ import annotations

import re
from typing import Final

from mcp_manager.auth.challenge import Challenge
from mcp_manager.auth.oauth.metadata import AuthorizationServer
from mcp_manager.auth.oauth.resource_metadata import ProtectedResource
from mcp_manager.auth.token_store import Grant
from mcp_manager.config import AuthConfig

__all__ = ["MAX_SCOPES", "scopes_to_request"]

MAX_SCOPES: Final = 100
"""How many scopes an authorization asks for at most; a server that requires more is refused."""

_SCOPE: Final = re.compile(r"[!#-\[\]-~]{1,1024}")


def scopes_to_request(
    config: AuthConfig,
    challenge: Challenge,
    resource: ProtectedResource,
    server: AuthorizationServer,
    before: Grant | None,
) -> tuple[str, ...]:
    """Choose the scopes to ask for (2026-07-28, authorization, scope selection and step-up).

    Parameters
    ----------
    challenge, resource
        What the server requires, by its refusal and by its metadata.
    server
        The authorization server's metadata.
    before
        The grant that did not suffice, ``None`` if there is none: its scopes are asked for again.
    """
    is_step_up = challenge.error == "insufficient_scope"
    more = resource.scopes if is_step_up else ()
    scopes = challenge.scopes or more or config.scopes or resource.scopes or ()
    earlier = before.scopes if before is not None and (challenge.scopes or is_step_up) else ()
    wanted = dict.fromkeys(each for each in (*earlier, *scopes) if _SCOPE.fullmatch(each))
    # Only beside other scopes: alone, it would request less than no scope at all, which means the server's default
    # (RFC 6749, section 3.3).
    if wanted and config.grant == "authorization_code" and "offline_access" in server.scopes:
        wanted["offline_access"] = None
    return tuple(wanted)
