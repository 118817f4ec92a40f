"""What a server was trusted with, kept out of every text that comes from it."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import os
import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from mcp_manager.config._settings import Settings
from mcp_manager.config.model import ServerConfig

__all__ = ["Secrets", "is_credential", "masked", "masked_so_far", "printable"]

_MASK: Final = "***"
# Shorter values of a variable or header are words like "debug" or "1", which an error may well quote.
_MIN_VALUE: Final = 8
# What is said to be a credential is one, unless it is so short that half of all texts would be masked.
_MIN_CREDENTIAL: Final = 4
_CREDENTIAL: Final = re.compile(
    r"auth|cookie|token|secret|passw|pwd|credential|signature|\bsig\b|(^|[-_.])(api|access|private|x)?[-_.]?key$", re.I
)
_CREDENTIAL_FIELDS: Final = frozenset(
    {"key", "token", "client_secret", "private_key", "assertion", "idp_client_secret", "key_password", "password"}
)
# Of a text that is still being written: fewer characters may well be the end of a word; more are not looked for.
_SHORTEST_BEGINNING: Final = 6
_LONGEST_BEGINNING: Final = 4096
# Tokens that were replaced may still be quoted by what was asked with them.
_MAX_TOKENS: Final = 32


def printable(text: str) -> str:
    """Replace by blanks what would move a terminal's cursor or reorder a log's line."""
    return "".join(char if char.isprintable() else " " for char in text)


def masked(text: str, hidden: Collection[str]) -> str:
    """Replace texts that must not be shown."""
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text


def masked_so_far(text: str, hidden: Collection[str]) -> str:
    """Replace texts that must not be shown in one that is still being written, also the beginning of one at its end."""
    text = masked(text, hidden)
    for secret in sorted(hidden, key=len, reverse=True):
        for length in range(min(len(secret) - 1, len(text), _LONGEST_BEGINNING), _SHORTEST_BEGINNING - 1, -1):
            if text.endswith(secret[:length]):
                return f"{text[:-length]}{_MASK}"
    return text


def is_credential(name: str) -> bool:
    """Tell whether a header, parameter or option of this name carries a credential."""
    return _CREDENTIAL.search(name) is not None


class Secrets:
    """Mask what a server was trusted with: credentials, headers, variables, secrets in URLs and arguments, tokens.

    ``texts`` are the texts to mask, the longest first; ``are_sent`` tells whether every request carries a credential
    that is configured as one.

    Parameters
    ----------
    config
        The server's configuration.
    """

    __slots__ = ("_configured", "_obtained", "_written", "are_sent", "texts")

    def __init__(self, config: ServerConfig) -> None:
        self._configured = tuple(dict.fromkeys(_configured(config)))
        # By the header that carries them: cookies that change with every reply are to push out no token.
        self._obtained: dict[str, list[str]] = {}
        self.are_sent = config.auth.request_header() is not None
        self.texts: tuple[str, ...] = ()
        # The texts as they stand in JSON, made when they are first needed.
        self._written: tuple[bytes, ...] | None = None
        self._sort()

    def add(self, header_value: str, name: str = "authorization") -> None:
        """Mask a credential that was obtained, given as the value of the header that carries it, and that header's name."""
        obtained = self._obtained.setdefault(name.lower(), [])
        fresh = [text for text in _of_header(name, header_value) if text not in obtained]
        if fresh:
            obtained += fresh
            del obtained[:-_MAX_TOKENS]
            self._sort()

    def masked(self, text: str) -> str:
        """Return a text without them."""
        return masked(text, self.texts)

    def masked_so_far(self, text: str) -> str:
        """Return a text without them that was cut, and may end within one."""
        return masked_so_far(text, self.texts)

    def quoted(self, text: str, length: int) -> str:
        """Return the beginning of a text without them, in one line without control characters; it may be cut already."""
        # Masked first: half a secret would not be found.
        shown = " ".join(printable(masked_so_far(text, self.texts)).split())
        return shown if len(shown) <= length else shown[: length - 1] + "…"

    def masked_json(self, data: bytes) -> bytes:
        """Return JSON whose strings are without them."""
        if self._written is None:
            self._written = tuple(dict.fromkeys(written for text in self.texts for written in _in_json(text)))
        for written in self._written:
            data = data.replace(written, _MASK.encode())
        return data

    def hide_in(self, error: Exception) -> None:
        """Take them out of the message and the hint of an error of this package."""
        for attribute in ("message", "hint"):
            before = getattr(error, attribute, "")
            after = self.masked(before)
            if after != before:
                setattr(error, attribute, after)
                if attribute == "message":
                    error.args = (after, *error.args[1:])

    def _sort(self) -> None:
        self.texts = tuple(
            sorted({*self._configured, *itertools.chain.from_iterable(self._obtained.values())}, key=len, reverse=True)
        )
        self._written = None


def _in_json(text: str) -> Iterator[bytes]:
    """Yield what a text is in JSON: a server may write its letters as they are, or in escapes."""
    for ensure_ascii in (True, False):
        yield json.dumps(text, ensure_ascii=ensure_ascii)[1:-1].encode("utf-8", "surrogatepass")


def _configured(config: ServerConfig) -> Iterator[str]:
    for settings in (config, *(each for each in _values(config) if isinstance(each, Settings))):
        for name in _CREDENTIAL_FIELDS.intersection(settings.__struct_fields__):
            value = getattr(settings, name)
            if isinstance(value, str):
                yield from _forms(value, _MIN_CREDENTIAL)
    for name, value in config.headers.items():
        yield from _of_header(name, value)
    for name in config.inherit_env:
        yield from _forms(os.environ.get(name, ""), _MIN_VALUE)
    for value in config.env.values():
        yield from _forms(value, _MIN_VALUE)
    yield from _of_arguments(config.args)
    urls = (config.url,) if isinstance(config.url, str) else config.url or ()
    for url in (*urls, getattr(config, "proxy", None)):
        if isinstance(url, str):
            yield from _of_url(url)


def _values(settings: msgspec.Struct) -> Iterator[object]:
    for name in settings.__struct_fields__:
        yield getattr(settings, name)


def _forms(value: str, shortest: int) -> Iterator[str]:
    """Yield a value line by line, as it is and as it stands in a URL."""
    for line in map(str.strip, value.splitlines()):
        if len(line) >= shortest:
            yield line
            in_url = quote(line, safe="", errors="surrogatepass")
            if in_url != line:
                yield in_url


def _of_header(name: str, value: str) -> Iterator[str]:
    """Yield the value of a header, and of a credential its parts without the scheme."""
    if not is_credential(name):
        yield from _forms(value, _MIN_VALUE)
        return
    yield from _forms(value, _MIN_CREDENTIAL)
    scheme, _, rest = value.strip().partition(" ")
    yield from _forms(rest, _MIN_CREDENTIAL)
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(rest.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield from _forms(decoded, _MIN_CREDENTIAL)
        yield from _forms(decoded.partition(":")[2], _MIN_CREDENTIAL)
    elif name.lower() == "cookie":
        for pair in value.split(";"):
            yield from _forms(pair.partition("=")[2], _MIN_VALUE)


def _of_arguments(args: Collection[str]) -> Iterator[str]:
    """Yield what follows options such as ``--api-key``, and what they are set to."""
    follows = False
    for argument in args:
        option, equals, value = argument.partition("=")
        if follows and not argument.startswith("-"):
            yield from _forms(argument, _MIN_CREDENTIAL)
        elif equals and is_credential(option):
            yield from _forms(value, _MIN_CREDENTIAL)
        elif "://" in argument:
            yield from _of_url(argument)
        elif ":" in argument and is_credential(argument.partition(":")[0]):
            yield from _of_header(argument.partition(":")[0], argument.partition(":")[2])
        follows = not equals and argument.startswith("-") and is_credential(option)


def _of_url(url: str) -> Iterator[str]:
    """Yield the password of a URL, and the values of its parameters."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return
    if password:
        yield from _forms(unquote(password), _MIN_CREDENTIAL)
        yield from _forms(password, _MIN_CREDENTIAL)
    for name, value in parse_qsl(parts.query):
        yield from _forms(value, _MIN_CREDENTIAL if is_credential(name) else _MIN_VALUE)
