"""The verb that makes, lists and revokes API keys of the gateway."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import note, print_json
from mcp_manager.cli.table import render
from mcp_manager.errors import ConfigError
from mcp_manager.gateway.client import ANONYMOUS
from mcp_manager.gateway.security.api_keys import ApiKey, made_key
from mcp_manager.gateway.security.keys_file import changing_keys, read_keys

__all__ = ["run"]

_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}


async def run(options: Options) -> int:
    """Do what the action says; return 0."""
    action, name = options.action, options.name
    if (name is None) == (action != "list"):
        text = "key list takes no name" if action == "list" else f"key {action} needs a name"
        raise ConfigError(text, hint="see mcp-manager key --help")
    if action == "list":
        _list(options)
    elif action == "new":
        _make(name or "", options)
    else:
        _revoke(name or "", options)
    return 0


def _make(name: str, options: Options) -> None:
    if name == ANONYMOUS:
        raise ConfigError(f"no key can be named {ANONYMOUS}", hint="clients without a key are called so")
    expires, claims = _expiry(options.expires), _claims(options.claims)
    try:
        key, kept = made_key(name, expires=expires, scopes=options.scopes, claims=claims)
    except ValueError:
        raise ConfigError(
            "this name, scope or claim cannot be used",
            hint="a name has 1 to 64 letters, digits, '.', '_', '-' and '@'; scopes and claims have at most 512 characters",
        ) from None
    with changing_keys(options.file) as keys:
        others = sum(each.name == name for each in keys)
        keys.append(kept)
    if options.json:
        print_json({"key": key, "file": options.file, **_described(kept)})
        return
    note(f"wrote the hash of key {kept.id} to {options.file}; the key itself is shown only now:", quiet=options.quiet)
    print(key)
    if others:
        note(f"{name} has {others + 1} keys now; mcp-manager key revoke ID removes one", quiet=options.quiet)


def _list(options: Options) -> None:
    keys = sorted(read_keys(options.file), key=lambda each: (each.name, each.id))
    if options.json:
        print_json([_described(each) for each in keys])
        return
    rows = [
        (each.name, each.id, _day(each.created), _until(each), " ".join(each.scopes) or None, _claims_text(each))
        for each in keys
    ]
    print(render(("name", "id", "created", "expires", "scopes", "claims"), rows, prose=("scopes", "claims")))


def _revoke(name: str, options: Options) -> None:
    with changing_keys(options.file, must_exist=True) as keys:
        gone = [each for each in keys if each.name == name] or [each for each in keys if each.id == name]
        if not gone:
            raise ConfigError(f"{options.file} has no key with this name or id", hint="see mcp-manager key list")
        keys[:] = [each for each in keys if each not in gone]
    if options.json:
        print_json({"file": options.file, "revoked": [_described(each) for each in gone]})
    else:
        note(f"revoked {', '.join(f'{each.name} ({each.id})' for each in gone)}", quiet=options.quiet)


def _expiry(text: str | None) -> datetime | None:
    """Return when a key expires: after a duration, or at a time of RFC 3339, in UTC unless it says otherwise."""
    if text is None:
        return None
    duration = _DURATION.fullmatch(text)
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        if duration is not None:
            return now + timedelta(**{_UNITS[duration[2]]: int(duration[1])})
        expires = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ConfigError("--expires is neither a duration nor a date", hint="write 90d, 12h or 2027-01-31") from None
    expires = expires.replace(tzinfo=UTC) if expires.tzinfo is None else expires
    if expires <= now:
        raise ConfigError("--expires has passed already", hint="write 90d, 12h or a later date")
    return expires


def _claims(given: tuple[str, ...]) -> dict[str, str | tuple[str, ...]]:
    """Return claims that are given as NAME=VALUE: one that is given several times is a list."""
    found: dict[str, list[str]] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise ConfigError("--claim has no name or no value", hint="write --claim groups=support")
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else tuple(values) for name, values in found.items()}


def _described(key: ApiKey) -> dict[str, Any]:
    times = {"created": key.created, "expires": key.expires}
    return {
        "name": key.name,
        "id": key.id,
        **{name: None if at is None else at.isoformat() for name, at in times.items()},
        "scopes": list(key.scopes),
        "claims": dict(key.claims),
    }


def _day(at: datetime | None) -> str | None:
    return None if at is None else f"{at.astimezone(UTC):%Y-%m-%d}"


def _until(key: ApiKey) -> str | None:
    day = _day(key.expires)
    return f"{day} (expired)" if key.expires is not None and key.expires <= datetime.now(UTC) else day


def _claims_text(key: ApiKey) -> str | None:
    texts = [
        f"{name}={each}"
        for name, value in key.claims.items()
        for each in ([value] if isinstance(value, str) else value)
    ]
    return " ".join(texts) or None
