"""The documents of well-known identity providers as they publish them, with ``{origin}`` for their origin."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["AUTH0", "ENTRA", "ENTRA_COMMON", "GITHUB", "GOOGLE", "KEYCLOAK", "OKTA", "Documents"]

Documents = dict[str, dict[str, Any]]

_RESOURCE: Final = "/.well-known/oauth-protected-resource/mcp"
_TENANT: Final = "11111111-2222-3333-4444-555555555555"


def _resource(issuer: str, *scopes: str) -> Documents:
    document: dict[str, Any] = {"resource": "{origin}/mcp", "authorization_servers": [issuer]}
    return {_RESOURCE: {**document, "scopes_supported": list(scopes)} if scopes else document}


# A realm has a path; before release 26.4 it has only OpenID Connect discovery.
KEYCLOAK: Final[Documents] = {
    **_resource("{origin}/realms/x", "mcp:tools"),
    "/realms/x/.well-known/openid-configuration": {
        "issuer": "{origin}/realms/x",
        "authorization_endpoint": "{origin}/realms/x/protocol/openid-connect/auth",
        "token_endpoint": "{origin}/realms/x/protocol/openid-connect/token",
        "registration_endpoint": "{origin}/realms/x/clients-registrations/openid-connect",
        "jwks_uri": "{origin}/realms/x/protocol/openid-connect/certs",
        "scopes_supported": ["openid", "offline_access", "mcp:tools", "profile"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "response_types_supported": ["code", "none"],
        "token_endpoint_auth_methods_supported": [
            "private_key_jwt",
            "client_secret_basic",
            "client_secret_post",
            "tls_client_auth",
            "client_secret_jwt",
        ],
        "code_challenge_methods_supported": ["plain", "S256"],
        "authorization_response_iss_parameter_supported": True,
    },
}


def _entra(tenant: str, issuer: str) -> Documents:
    return {
        **_resource(f"{{origin}}/{tenant}/v2.0", "api://mcp/tools.use"),
        f"/{tenant}/v2.0/.well-known/openid-configuration": {
            "issuer": issuer,
            "authorization_endpoint": f"{{origin}}/{tenant}/oauth2/v2.0/authorize",
            "token_endpoint": f"{{origin}}/{tenant}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "tenant_region_scope": None,
            "cloud_instance_name": "microsoftonline.com",
        },
    }


# No registration, no mention of PKCE, and it refuses resource indicators.
ENTRA: Final = _entra(_TENANT, f"{{origin}}/{_TENANT}/v2.0")
ENTRA_COMMON: Final = _entra("common", "{origin}/{tenantid}/v2.0")

# The resource's document names the issuer with a slash at its end, the issuer without; there is no registration.
GOOGLE: Final[Documents] = {
    **_resource("{origin}/", "https://www.googleapis.com/auth/drive.readonly"),
    "/.well-known/openid-configuration": {
        "issuer": "{origin}",
        "authorization_endpoint": "{origin}/o/oauth2/v2/auth",
        "device_authorization_endpoint": "https://oauth2.googleapis.com/device/code",
        "token_endpoint": "{origin}/o/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "scopes_supported": ["openid", "email", "profile"],
        "code_challenge_methods_supported": ["plain", "S256"],
    },
}

# The issuer has a slash at its end that the resource's document often lacks; tokens without an audience are useless.
AUTH0: Final[Documents] = {
    **_resource("{origin}"),
    "/.well-known/oauth-authorization-server": {
        "issuer": "{origin}/",
        "authorization_endpoint": "{origin}/authorize",
        "token_endpoint": "{origin}/oauth/token",
        "registration_endpoint": "{origin}/oidc/register",
        "scopes_supported": ["openid", "profile", "offline_access"],
        "code_challenge_methods_supported": ["S256", "plain"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "none",
        ],
    },
}

# Registration needs a token of an administrator.
OKTA: Final[Documents] = {
    **_resource("{origin}/oauth2/default", "mcp.use"),
    "/oauth2/default/.well-known/openid-configuration": {
        "issuer": "{origin}/oauth2/default",
        "authorization_endpoint": "{origin}/oauth2/default/v1/authorize",
        "token_endpoint": "{origin}/oauth2/default/v1/token",
        "registration_endpoint": "{origin}/oauth2/v1/clients",
        "scopes_supported": ["openid", "offline_access", "mcp.use"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
    },
}

# The authorization server publishes no metadata.
GITHUB: Final = _resource("{origin}/login/oauth", "repo", "read:org")
