"""When two issuer identifiers are one authorization server's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["is_among", "is_template_of", "same_issuer"]

_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+")
_TENANT: Final = "{tenantid}"
_SHARED_TENANTS: Final = ("common", "organizations", "consumers")


def same_issuer(one: str, other: str) -> bool:
    """Tell whether two identifiers are equal, a slash as the whole path or none.

    RFC 8414 compares them as strings. Real documents differ in this slash alone, which libraries for URLs add, and which
    makes no difference (RFC 3986, section 6.2.3). Nothing else is overlooked: below a path, it may be another server.
    ``iss`` of RFC 9207 is not compared so, but as a string.
    """
    return one == other or _at_root(one) == _at_root(other) != ""


def is_among(issuer: str, others: Iterable[str | None]) -> bool:
    """Tell whether one of several identifiers, of which some may be missing, is the same."""
    return any(each is not None and same_issuer(issuer, each) for each in others)


def is_template_of(named: str, issuer: str) -> bool:
    """Tell whether metadata is that of the shared endpoints of Microsoft Entra ID, whose issuer is a template.

    Each tenant issues its own tokens there, so the document says ``{tenantid}`` where the URL has ``common``,
    ``organizations`` or ``consumers``. All else has to be equal.
    """
    return named.count(_TENANT) == 1 and any(named.replace(_TENANT, each) == issuer for each in _SHARED_TENANTS)


def _at_root(issuer: str) -> str:
    """Return the origin that an identifier consists of, "" if it has more."""
    bare = issuer.removesuffix("/")
    return bare if _ORIGIN.fullmatch(bare) else ""
