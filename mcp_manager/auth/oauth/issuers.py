"""The comparison of issuer identifiers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["is_among", "is_template_of", "same_issuer"]

_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+")
_TENANT: Final = "{tenantid}"
_SHARED_TENANTS: Final = ("common", "organizations", "consumers")


def same_issuer(one: str, other: str) -> bool:
    """Tell whether two identifiers are equal, except for a slash as the whole path.

    RFC 8414 compares them as strings. In practice URL libraries add this slash, which makes no difference (RFC 3986,
    section 6.2.3). A slash after a path does matter, because it may name another server. ``iss`` of RFC 9207 is
    compared as a string, not with this function.
    """
    return one == other or _at_root(one) == _at_root(other) != ""


def is_among(issuer: str, others: Iterable[str | None]) -> bool:
    """Tell whether an identifier equals one of several others, some of which may be ``None``."""
    return any(each is not None and same_issuer(issuer, each) for each in others)


def is_template_of(named: str, issuer: str) -> bool:
    """Tell whether ``named`` is the issuer template of Microsoft Entra ID's shared endpoints that ``issuer`` fits.

    Each tenant issues its own tokens there, so the metadata says ``{tenantid}`` where the URL has ``common``,
    ``organizations`` or ``consumers``. The rest has to be equal.
    """
    return named.count(_TENANT) == 1 and any(named.replace(_TENANT, each) == issuer for each in _SHARED_TENANTS)


def _at_root(issuer: str) -> str:
    """Return an identifier that is only an origin, without a slash at its end; "" if it has a path."""
    bare = issuer.removesuffix("/")
    return bare if _ORIGIN.fullmatch(bare) else ""
