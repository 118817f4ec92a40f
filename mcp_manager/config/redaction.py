"""Masking of a server's credentials in texts: errors, logs and what the server itself writes."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from mcp_manager.config._secret_forms import forms_of, is_credential, plain_forms
from mcp_manager.config._struct import Settings
from mcp_manager.config._url import redact_url
from mcp_manager.config.model import ServerConfig

__all__ = [
    "CONTROL_SEQUENCE",
    "Secrets",
    "credentials_in",
    "is_credential",
    "masked",
    "masked_so_far",
    "printable",
    "shown_place",
]

CONTROL_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Colours and other control sequences of terminals."""
_MASK: Final = "***"
# Shorter values of a variable or header are words like "debug" or "1", which errors should still show.
_MIN_VALUE: Final = 8
# Values of fields named like credentials are masked from this length; shorter ones would match parts of many words.
_MIN_CREDENTIAL: Final = 4
_CREDENTIAL_FIELDS: Final = frozenset(
    {"key", "token", "client_secret", "private_key", "assertion", "idp_client_secret", "key_password", "password"}
)
_SESSION_KEYS: Final = "session_keys"
# At the end of a text that is cut off: fewer matching characters may be part of a word, more are not searched for.
_SHORTEST_BEGINNING: Final = 6
_LONGEST_BEGINNING: Final = 4096
# Replies may still quote tokens that have been replaced, and a server may set dozens of cookies at a time.
_MAX_OBTAINED: Final = 64


def printable(text: str) -> str:
    """Replace characters that would move a terminal's cursor or reorder a line of a log by blanks."""
    return "".join(char if char.isprintable() else " " for char in text)


def masked(text: str, hidden: Collection[str]) -> str:
    """Replace every hidden text by ``***``."""
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text


def masked_so_far(text: str, hidden: Collection[str]) -> str:
    """Replace every hidden text by ``***``, also one that a cut-off text ends within."""
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
    """Return a server's program or URL for display, with its secrets masked."""
    shown = redact_url(place) if config.url is not None else place
    return masked(shown, {form for each in config.hidden_texts for form in plain_forms(each)})


class Secrets:
    """Mask a server's secrets: credentials, headers, variables, tokens, and secrets in URLs and arguments.

    ``are_sent`` tells whether every request carries a configured credential. The texts to mask are computed on first
    use, which costs nothing as long as no text needs masking. Secrets of fewer than four characters are not masked,
    because they would match parts of many words; nor are those of fewer than eight whose name does not suggest a
    credential.

    Parameters
    ----------
    config
        The server's configuration.
    """

    __slots__ = ("_config", "_configured", "_obtained", "_texts", "_written", "are_sent")

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._configured: tuple[str, ...] | None = None
        # By the header that carries them, so that cookies that change with every reply displace no token.
        self._obtained: dict[str, dict[str, None]] = {}
        self.are_sent: bool = config.auth.request_header() is not None
        self._texts: tuple[str, ...] | None = None
        # The texts as JSON writes them, computed on first use.
        self._written: tuple[bytes, ...] | None = None

    def adjust(self, config: ServerConfig) -> None:
        """Mask what another configuration of the same connection names; what was obtained stays masked."""
        self._config = config
        self._configured = self._texts = self._written = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts to mask, the longest first."""
        texts = self._texts
        if texts is None:
            if self._configured is None:
                self._configured = tuple(dict.fromkeys(_configured(self._config)))
            # Copied first, because another thread may add to them.
            obtained = [(name, tuple(values)) for name, values in tuple(self._obtained.items())]
            found = (text for name, values in obtained for value in values for text in _of_header(name, value))
            texts = self._texts = tuple(sorted({*self._configured, *found}, key=len, reverse=True))
        return texts

    def add(self, header_value: str, name: str = "authorization") -> None:
        """Mask from now on a credential that was obtained; ``name`` is the header that carries ``header_value``."""
        obtained = self._obtained.setdefault(name.lower(), {})
        if header_value in obtained:
            return
        obtained[header_value] = None
        if len(obtained) > _MAX_OBTAINED:
            del obtained[next(iter(obtained))]
        self._texts = self._written = None

    def masked(self, text: str) -> str:
        """Return a text with the secrets masked."""
        return masked(text, self.texts)

    def masked_so_far(self, text: str) -> str:
        """Return a cut-off text, which may end within a secret, with the secrets masked."""
        return masked_so_far(text, self.texts)

    def quoted(self, text: str, length: int) -> str:
        """Return the masked beginning of a text on one line without control characters; the text may be cut off."""
        # Masked before it is shortened: part of a secret would not be found.
        shown = " ".join(printable(masked_so_far(text, self.texts)).split())
        return shown if len(shown) <= length else shown[: length - 1] + "…"

    def masked_json(self, data: bytes) -> bytes:
        """Return JSON with the secrets in its strings masked."""
        if self._written is None:
            self._written = tuple(dict.fromkeys(written for text in self.texts for written in _in_json(text)))
        for written in self._written:
            data = data.replace(written, _MASK.encode())
        return data

    def hide_in(self, error: Exception) -> None:
        """Mask the secrets in the message and hint of an error, and drop its cause if that quotes one."""
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


def credentials_in(settings: Settings) -> Iterator[str]:
    """Yield every form of the credentials in settings and in those within them, by the names of their fields."""
    for name in settings.__struct_fields__:
        value = getattr(settings, name)
        within = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for each in within:
            if isinstance(each, Settings):
                yield from credentials_in(each)
            elif isinstance(each, str) and (name in _CREDENTIAL_FIELDS or name == _SESSION_KEYS):
                yield from _forms(each, _MIN_CREDENTIAL)


def _in_json(text: str) -> Iterator[bytes]:
    """Yield a text as JSON writes it: with non-ASCII characters escaped, and as they are."""
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
    for arguments in (config.args, config.headers_command, config.auth.token_command):
        yield from _of_arguments(arguments)
    urls = (config.url,) if isinstance(config.url, str) else config.url or ()
    for url in (*urls, getattr(config, "proxy", None)):
        if isinstance(url, str):
            yield from _of_url(url)


def _values(settings: msgspec.Struct) -> Iterator[object]:
    for name in settings.__struct_fields__:
        yield getattr(settings, name)


def _forms(value: str, shortest: int) -> Iterator[str]:
    """Yield every form of each line of a value."""
    for line in map(str.strip, value.splitlines()):
        if len(line) >= shortest:
            yield from forms_of(line)


def _of_header(name: str, value: str) -> Iterator[str]:
    """Yield the value of a header; of a credential, also its parts without the scheme."""
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
    """Yield the values of options such as ``--api-key``, as separate arguments or after ``=``."""
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
    """Yield the password and the query values of a URL."""
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
