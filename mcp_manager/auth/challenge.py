"""Parsing of ``WWW-Authenticate`` (RFC 9110, section 11.6.1; RFC 6750, section 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
    """What a 401 or 403 response says about credentials.

    Parameters
    ----------
    status
        The status of the response.
    error
        The error code of the challenge: ``invalid_token``, ``insufficient_scope``, ``use_dpop_nonce``, or "".
    scopes
        The scopes that the request needs; empty if the response does not say.
    resource_metadata
        The URL of the protected resource's metadata (RFC 9728, section 5.1), or "".
    """

    status: int
    error: str = ""
    scopes: tuple[str, ...] = ()
    resource_metadata: str = ""


def parse_challenge(status: int, values: str | Iterable[str] | None, *, dpop: bool = False) -> Challenge:
    """Return the challenge for a bearer or DPoP token, an empty one if there is none.

    Parameters
    ----------
    status
        The status of the response.
    values
        The values of all ``WWW-Authenticate`` fields; a malformed one does not hide the others.
    dpop
        Whether DPoP tokens are in use: decides which scheme's error counts. Scopes and metadata come from the other
        scheme if this one names none.
    """
    lines = [values] if isinstance(values, str) else values or ()
    found = [each for line in lines for each in read_challenges(line) if each[0] in ("bearer", "dpop")]
    found.sort(key=lambda each: (each[0] == "dpop") is not dpop)
    if not found:
        return Challenge(status)
    same = [parameters for scheme, parameters in found if scheme == found[0][0]]
    every = [parameters for _, parameters in found]
    return Challenge(
        status=status,
        error=_first(same, "error"),
        scopes=tuple(dict.fromkeys(_first(every, "scope").split())),
        resource_metadata=_first(every, "resource_metadata"),
    )


def read_challenges(value: str) -> list[tuple[str, dict[str, str]]]:
    """Return schemes and parameters, names in lower case; reading stops at malformed text."""
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


def _first(challenges: list[dict[str, str]], name: str) -> str:
    return next((each[name] for each in challenges if each.get(name)), "")


def _after(pattern: re.Pattern[str], value: str, at: int) -> int:
    match = pattern.match(value, at)
    return at if match is None else match.end()
