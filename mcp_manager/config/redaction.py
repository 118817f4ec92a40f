"""What a server was trusted with, kept out of every text that comes from it."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from mcp_manager.config._secret_forms import forms_of, is_credential, plain_forms
from mcp_manager.config._struct import Settings
from mcp_manager.config._url import redact_url
from mcp_manager.config.model import ServerConfig

__all__ = ["Secrets", "is_credential", "masked", "masked_so_far", "printable", "shown_place"]

_MASK: Final = "***"
# Shorter values of a variable or header are words like "debug" or "1", which an error may well quote.
_MIN_VALUE: Final = 8
# What is said to be a credential is one, unless it is so short that half of all texts would be masked.
_MIN_CREDENTIAL: Final = 4
_CREDENTIAL_FIELDS: Final = frozenset(
    {"key", "token", "client_secret", "private_key", "assertion", "idp_client_secret", "key_password", "password"}
)
# Of a text that is still being written: fewer characters may well be the end of a word; more are not looked for.
_SHORTEST_BEGINNING: Final = 6
_LONGEST_BEGINNING: Final = 4096
# Tokens that were replaced may still be quoted by what was asked with them; of cookies there may be dozens at a time.
_MAX_OBTAINED: Final = 64


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
        start = secret[:_SHORTEST_BEGINNING]
        at = text.find(start, max(0, len(text) - min(len(secret) - 1, _LONGEST_BEGINNING)))
        while at >= 0:
            if secret.startswith(text[at:]):
                return f"{text[:at]}{_MASK}"
            at = text.find(start, at + 1)
    return text


def shown_place(config: ServerConfig, place: str) -> str:
    """Return the program, or a URL, of a server for people to read: without what is secret in it."""
    shown = place if config.command is not None else redact_url(place)
    return masked(shown, {form for each in config.hidden_texts for form in plain_forms(each)})


class Secrets:
    """Mask what a server was trusted with: credentials, headers, variables, secrets in URLs and arguments, tokens.

    ``are_sent`` tells whether every request carries a credential that is configured as one. What is to be masked is
    worked out when a text is masked: nothing is while all goes well. A secret of fewer than four characters is not
    masked, as it would be found in half of all texts, nor is one of fewer than eight that nothing says is a credential.

    Parameters
    ----------
    config
        The server's configuration.
    """

    __slots__ = ("_config", "_configured", "_obtained", "_texts", "_written", "are_sent")

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._configured: tuple[str, ...] | None = None
        # By the header that carries them: cookies that change with every reply are to push out no token.
        self._obtained: dict[str, dict[str, None]] = {}
        self.are_sent = config.auth.request_header() is not None
        self._texts: tuple[str, ...] | None = None
        # The texts as they stand in JSON, made when they are first needed.
        self._written: tuple[bytes, ...] | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts to mask, the longest first."""
        texts = self._texts
        if texts is None:
            if self._configured is None:
                self._configured = tuple(dict.fromkeys(_configured(self._config)))
            # Copied first: it may be asked for on another thread than that where they are obtained.
            obtained = [(name, tuple(values)) for name, values in tuple(self._obtained.items())]
            found = (text for name, values in obtained for value in values for text in _of_header(name, value))
            texts = self._texts = tuple(sorted({*self._configured, *found}, key=len, reverse=True))
        return texts

    def add(self, header_value: str, name: str = "authorization") -> None:
        """Mask a credential that was obtained, given as the value of the header that carries it, and that header's name."""
        obtained = self._obtained.setdefault(name.lower(), {})
        if header_value in obtained:
            return
        obtained[header_value] = None
        if len(obtained) > _MAX_OBTAINED:
            del obtained[next(iter(obtained))]
        self._texts = self._written = None

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
        """Take them out of the message and the hint of an error of this package, and whatever quotes them from its causes."""
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            told = str(cause)
            if self.masked(told) != told:
                error.__cause__ = None
                error.__suppress_context__ = True
        for attribute in ("message", "hint"):
            before = getattr(error, attribute, "")
            after = self.masked(before)
            if after != before:
                setattr(error, attribute, after)
                if attribute == "message":
                    error.args = (after, *error.args[1:])


def _in_json(text: str) -> Iterator[bytes]:
    """Yield what a text is in JSON: a server may write its letters as they are, or in escapes."""
    for ensure_ascii in (True, False):
        yield json.dumps(text, ensure_ascii=ensure_ascii)[1:-1].encode("utf-8", "surrogatepass")


def _configured(config: ServerConfig) -> Iterator[str]:
    for value in config.hidden_texts:
        yield from _forms(value, _MIN_CREDENTIAL)
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
    """Yield a value line by line, in every form it may turn up in."""
    for line in map(str.strip, value.splitlines()):
        if len(line) >= shortest:
            yield from forms_of(line)


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
