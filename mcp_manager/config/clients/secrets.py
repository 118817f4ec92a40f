"""The literal secrets in a server's fields, and their replacement by variables, before the fields are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any, Final

from mcp_manager.config._interpolate import has_placeholder
from mcp_manager.config._secret_forms import is_credential

__all__ = ["looks_secret", "without_secrets"]

_SHORTEST: Final = 4
_TOKEN: Final = re.compile(
    r"(?:sk|pk|rk|ghp|gho|ghu|ghs|github_pat|glpat|xox[abprs]|npm|hf|AKIA|AIza|eyJ|ya29|shpat|lin_api|secret|ntn|tvly|fc|pplx)"
    r"[-_.]?[A-Za-z0-9_-]{10,}.*"
)
"""Beginnings of tokens that services hand out."""
_RANDOM: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9_+/=-]{24,}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SECRET_FIELDS: Final = frozenset(
    {"key", "token", "client_secret", "private_key", "assertion", "idp_client_secret", "key_password"}
)
_SCHEMES: Final = re.compile(r"(?:Bearer|Basic|Token|ApiKey|Key) +", re.IGNORECASE)

Replace = Callable[[str, str], str]


def looks_secret(text: str) -> bool:
    """Tell whether a text looks like a token: by its beginning, or because it is long and random."""
    return bool(_TOKEN.fullmatch(text) or _UUID.fullmatch(text) or (_RANDOM.fullmatch(text) and "/" not in text[:1]))


def without_secrets(fields: dict[str, Any], read: Collection[str], replace: Replace) -> dict[str, Any]:
    """Return a server's fields with each literal secret replaced.

    Parameters
    ----------
    fields
        The fields, with ``${VAR}`` for variables.
    read
        What was read from other files: secrets wherever they stand.
    replace
        Takes a secret and the name of where it stands, and returns what to write in place of it.
    """

    def text_of(text: str, name: str) -> str:
        if len(text) < _SHORTEST or has_placeholder(text):
            return text
        scheme = _SCHEMES.match(text)
        start = scheme.end() if scheme else 0
        rest = text[start:]
        if is_credential(name) or looks_secret(rest) or text in read:
            return text[:start] + replace(rest, name)
        return _within_url(text, replace) if "://" in text else text

    result = dict(fields)
    for name in ("env", "headers"):
        if isinstance(fields.get(name), dict):
            result[name] = {
                key: text_of(each, key) if isinstance(each, str) else each for key, each in fields[name].items()
            }
    for name in ("auth", "tls"):
        if isinstance(fields.get(name), dict):
            result[name] = {
                key: replace(each, key)
                if key in _SECRET_FIELDS and isinstance(each, str) and each and not has_placeholder(each)
                else each
                for key, each in fields[name].items()
            }
    for name in ("args", "headers_command"):
        if isinstance(fields.get(name), list):
            result[name] = _arguments(fields[name], text_of, replace)
    for name in ("url", "proxy"):
        if isinstance(fields.get(name), str):
            result[name] = _within_url(fields[name], replace)
    return result


def _arguments(words: list[Any], text_of: Replace, replace: Replace) -> list[Any]:
    """Replace the values of options such as ``--api-key``, and what looks like a secret."""
    result: list[Any] = []
    option = ""
    for word in words:
        if not isinstance(word, str) or has_placeholder(word):
            result.append(word)
            option = ""
            continue
        name, equals, value = word.partition("=")
        header, colon, rest = word.partition(":")
        if option and not word.startswith("-"):
            result.append(replace(word, option))
        elif equals and (is_credential(name) or looks_secret(value)) and len(value) >= _SHORTEST:
            result.append(f"{name}={replace(value, name.lstrip('-'))}")
        elif colon and is_credential(header) and "://" not in word and rest.strip():
            result.append(f"{header}: {text_of(rest.strip(), header)}")
        else:
            result.append(text_of(word, "argument"))
        option = name.lstrip("-") if not equals and word.startswith("-") and is_credential(name) else ""
    return result


def _within_url(url: str, replace: Replace) -> str:
    """Replace the password, the credentials in the query, and what looks like a secret in the path of a URL."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    authority, slash, tail = rest.partition("/")
    user, at, host = authority.rpartition("@")
    name, colon, password = user.partition(":")
    if at and colon and password and not has_placeholder(password):
        authority = f"{name}:{replace(password, 'password')}@{host}"
    path, question, query = tail.partition("?")
    segments = [
        replace(each, "path") if looks_secret(each) and not has_placeholder(each) else each for each in path.split("/")
    ]
    pairs = []
    for pair in query.split("&"):
        key, equals, value = pair.partition("=")
        secret = equals and value and not has_placeholder(value) and (is_credential(key) or looks_secret(value))
        pairs.append(f"{key}={replace(value, key)}" if secret else pair)
    return f"{scheme}://{authority}{slash}{'/'.join(segments)}{question}{'&'.join(pairs)}"
