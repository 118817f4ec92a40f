"""The configuration of further authorization servers whose tokens clients of the gateway may show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Unpack

from msgspec import Meta

from mcp_manager.config._struct import Settings

if TYPE_CHECKING:
    from mcp_manager.config.fields.issuers import IssuerFields

__all__ = ["IssuerConfig"]

_Text = Annotated[str, Meta(min_length=1, max_length=512)]
_Texts = Annotated[tuple[_Text, ...], Meta(max_length=1000)]


class IssuerConfig(Settings, frozen=True, kw_only=True):
    """Configure one more authorization server whose signed tokens clients may show.

    Parameters
    ----------
    issuer
        The issuer identifier, as ``iss`` in its tokens has it. The gateway tells it to clients (RFC 9728).
    jwks_url
        The URL of its signing keys. Default: from its metadata.
    audience, algorithms, principal_claim, ca_file
        As for :class:`ClientAuthConfig`. Default: the value of ``serve.auth``.
    """

    if TYPE_CHECKING:

        def __init__(self, **fields: Unpack[IssuerFields]) -> None: ...

    issuer: str | None = None
    audience: _Texts = ()
    jwks_url: str | None = None
    algorithms: _Texts = ()
    principal_claim: str | None = None
    ca_file: str | None = None
