"""``WWW-Authenticate``: what a refused request would have needed (RFC 9110, section 11.6.1; RFC 6750, section 3)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = ["Challenge", "parse_challenge", "read_challenges"]

_LONGEST: Final = 16_384
_SPACE: Final = re.compile(r"[ \t,]*")
_SCHEME: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]+|(?=,)|$)")
_PARAMETER: Final = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([!#$%&'*+.^_`|~0-9A-Za-z:/?@\[\]()=-]+))"
    r"(?=[ \t]*(?:,|$))"
)
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")


class Challenge(msgspec.Struct, frozen=True):
    """What a 401 or 403 says about credentials.

    Parameters
    ----------
    status
        The status of the response.
    error
        The error code of the challenge: ``invalid_token``, ``insufficient_scope``, ``use_dpop_nonce``, or "".
    scopes
        The scopes that the request needs; empty if it does not say.
    resource_metadata
        Where the protected resource's metadata is (RFC 9728, section 5.1), or "".
    """

    status: int
    error: str = ""
    scopes: tuple[str, ...] = ()
    resource_metadata: str = ""


def parse_challenge(status: int, value: str | None) -> Challenge:
    """Return the challenge for a bearer or DPoP token in a header's value, an empty one if there is none."""
    for scheme, parameters in read_challenges(value or ""):
        if scheme in ("bearer", "dpop"):
            return Challenge(
                status=status,
                error=parameters.get("error", ""),
                scopes=tuple(dict.fromkeys(parameters.get("scope", "").split())),
                resource_metadata=parameters.get("resource_metadata", ""),
            )
    return Challenge(status)


def read_challenges(value: str) -> list[tuple[str, dict[str, str]]]:
    """Return schemes and parameters, both names in lower case; what is malformed ends the reading."""
    found: list[tuple[str, dict[str, str]]] = []
    value = value[:_LONGEST]
    at = _after(_SPACE, value, 0)
    while at < len(value):
        parameter = _PARAMETER.match(value, at)
        if parameter is not None and found:
            text = parameter[3] if parameter[2] is None else re.sub(r"\\(.)", r"\1", parameter[2])
            found[-1][1].setdefault(parameter[1].lower(), text)
            at = parameter.end()
        else:
            scheme = _SCHEME.match(value, at)
            if scheme is None:
                break
            found.append((scheme[1].lower(), {}))
            at = scheme.end()
            if _PARAMETER.match(value, at) is None:
                at = _after(_TOKEN68, value, at)
        at = _after(_SPACE, value, at)
    return found


def _after(pattern: re.Pattern[str], value: str, at: int) -> int:
    match = pattern.match(value, at)
    return at if match is None else match.end()
