"""What the authorization scenarios of the conformance suite need: the server's configuration, and who agrees."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import aiohttp

# What the suite's authorization server takes for the client's own document.
CLIENT_METADATA_URL = "https://conformance-test.local/client-metadata.json"


async def agree(authorization_url: str) -> str:
    """Do what a user who agrees does: go there, and come back to where the authorization server sends them."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(authorization_url, allow_redirects=False) as response,
    ):
        location = response.headers.get("Location", "")
    assert urlsplit(location).query, f"the authorization endpoint answered {response.status} without a redirect"
    return location


def settings(scenario: str, context: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the server's configuration, and the manager's keyword arguments, for a scenario."""
    auth: dict[str, Any] = {"type": "oauth"}
    name = scenario.removeprefix("auth/")
    if name == "client-credentials-jwt":
        auth |= {
            "grant": "client_credentials",
            "client_id": context["client_id"],
            "private_key": context["private_key_pem"],
            "signing_algorithm": context["signing_algorithm"],
        }
    elif name == "client-credentials-basic":
        auth |= {
            "grant": "client_credentials",
            "client_id": context["client_id"],
            "client_secret": context["client_secret"],
        }
    elif name == "enterprise-managed-authorization":
        auth |= {
            "grant": "enterprise",
            "client_id": context["client_id"],
            "client_secret": context["client_secret"],
            "assertion": context["idp_id_token"],
            "idp_client_id": context["idp_client_id"],
            "idp_token_endpoint": context["idp_token_endpoint"],
        }
    elif name == "wif-jwt-bearer":
        auth |= {"grant": "jwt_bearer", "client_id": context["client_id"], "assertion": context["valid_jwt"]}
    elif name == "pre-registration":
        auth |= {"client_id": context["client_id"], "client_secret": context["client_secret"]}
    elif name in ("dpop", "dpop-nonce"):
        auth |= {"dpop": True}
    elif name == "basic-cimd":
        auth |= {"client_metadata_url": CLIENT_METADATA_URL}
    return {"auth": auth}, {"redirect_handler": agree}
