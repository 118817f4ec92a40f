"""Why a server gets no request of a client: its credentials for that client cannot be had, or were refused."""

from __future__ import annotations

from mcp_manager.errors import AuthError, Delivery

__all__ = ["ClientRefusedError", "CredentialsUnavailableError", "LoginRequiredError", "NotConfiguredError"]


class LoginRequiredError(AuthError):
    """The authorization server does not accept the token of the client any more, or the client has shown none.

    Attributes
    ----------
    way_out
        What the client is told to do. It names nothing that is not the client's.
    """

    way_out: str = "log in again: the authorization server does not accept your token any more"
    delivery: Delivery = "not_sent"


class CredentialsUnavailableError(AuthError):
    """The authorization server is not available at present."""

    delivery: Delivery = "not_sent"
    retryable = True


class NotConfiguredError(AuthError):
    """The authorization server refuses the gateway, or the server takes no credentials: the operator has to help."""

    delivery: Delivery = "not_sent"


class ClientRefusedError(AuthError):
    """The server refused the credentials that it got for the client, new ones as well."""
