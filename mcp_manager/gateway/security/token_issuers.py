"""``TokenIssuers``: signed tokens of several authorization servers, each examined by the keys of the one it names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import msgspec

from mcp_manager.auth.oauth.issuers import same_issuer
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.gateway.security.principal import Principal
from mcp_manager.gateway.security.signed_tokens import SignedTokens, claims_of
from mcp_manager.gateway.security.token_claims import OTHER_ISSUER
from mcp_manager.gateway.security.verdicts import Verdict

__all__ = ["TokenIssuers", "configs_of_issuers", "names_of_issuers"]


def configs_of_issuers(config: ClientAuthConfig) -> list[ClientAuthConfig]:
    """Return the configuration of each issuer alone, that of ``issuer`` first."""
    alone = msgspec.structs.replace(config, issuers=())
    found = [] if config.issuer is None else [alone]
    found += [
        msgspec.structs.replace(
            alone,
            issuer=each.issuer,
            audience=each.audience or config.audience,
            jwks_url=each.jwks_url,
            algorithms=each.algorithms or config.algorithms,
            principal_claim=each.principal_claim or config.principal_claim,
            ca_file=each.ca_file or config.ca_file,
        )
        for each in config.issuers
    ]
    return found


def names_of_issuers(config: ClientAuthConfig) -> list[str]:
    """Return the issuer identifiers of all authorization servers."""
    names = (config.issuer, *(each.issuer for each in config.issuers))
    return [name for name in names if name is not None]


class TokenIssuers:
    """Examine signed tokens of several issuers.

    Each issuer has keys of its own: what one signs in the name of another is refused. Their keys are fetched each by
    itself, so that one that is down keeps only its own clients out.

    Parameters
    ----------
    configs
        How clients of each issuer authenticate; see :func:`configs_of_issuers`.

    Raises
    ------
    ConfigError
        The package joserfc is missing, or a file of certificate authorities cannot be used.
    """

    def __init__(self, configs: Sequence[ClientAuthConfig]) -> None:
        self._issuers = [(each.issuer or "", SignedTokens(each)) for each in configs]

    def verify(self, token: str) -> Verdict | Awaitable[Verdict]:
        """Examine a token: at once unless a key must be fetched."""
        tokens = self._named(token)
        return OTHER_ISSUER if tokens is None else tokens.verify(token)

    def latest(self, principal: Principal) -> Principal | None:
        """Return the principal of a token; ``None`` if its issuer does not have its key any more."""
        tokens = None if principal.credential is None else self._named(principal.credential)
        return principal if tokens is None else tokens.latest(principal)

    def _named(self, token: str) -> SignedTokens | None:
        """Return what examines the tokens of the issuer that a token names; ``None`` if it is none of them."""
        claims = claims_of(token)
        named = None if claims is None else claims.get("iss")
        for issuer, tokens in self._issuers:
            # Without a name of an issuer, any of them says what is wrong.
            if not isinstance(named, str) or same_issuer(named, issuer):
                return tokens
        return None

    async def start(self) -> None:
        """Fetch the keys of all issuers, without waiting for them."""
        for _, tokens in self._issuers:
            await tokens.start()

    async def probe(self) -> str:
        """Fetch the keys of all issuers; return why that failed for some, "" if it did not."""
        problems = await asyncio.gather(*(tokens.probe() for _, tokens in self._issuers))
        return "; ".join(
            f"{issuer}: {problem}" for (issuer, _), problem in zip(self._issuers, problems, strict=True) if problem
        )

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        for _, tokens in self._issuers:
            await tokens.aclose()
