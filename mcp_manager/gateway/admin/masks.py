"""Masks in configurations that clients send back: ``***`` stands for the secret that was there."""

from __future__ import annotations

from typing import Any, Final

from mcp_manager.config import ServerConfig
from mcp_manager.config._problem import entry
from mcp_manager.gateway.admin.problems import refused

__all__ = ["MASK", "restored", "shown_server", "whole_server"]

MASK: Final = "***"
_AUTOMATIC: Final = frozenset({"stdio", "http", "memory"})
# What only this package writes; it stays as it is whatever a client sends.
_OWN: Final = ("extras", "hidden_texts")


def shown_server(config: ServerConfig) -> dict[str, Any]:
    """Return the configuration of a server as a file has it, with ``***`` in place of secrets."""
    return _usual(config.to_dict())


def whole_server(config: ServerConfig) -> dict[str, Any]:
    """Return the configuration of a server as a file has it, with its secrets."""
    return _usual(config.to_dict(reveal_secrets=True))


def restored(given: Any, shown: Any, whole: Any, path: str = "") -> Any:
    """Return what a client means: with the secrets in place of their masks, and all else as given.

    A mask stands for the secret at the same place. Where none was shown, it is refused: nobody has ``***`` as a
    password.

    Parameters
    ----------
    given
        What the client has sent.
    shown, whole
        What it was shown at this place, and what is there.
    path
        The field, for errors.

    Raises
    ------
    Refusal
        There is a mask where no secret was shown.
    """
    if isinstance(given, dict):
        before, secrets = (each if isinstance(each, dict) else {} for each in (shown, whole))
        return {
            name: restored(value, before.get(name), secrets.get(name), entry(path, str(name)))
            for name, value in given.items()
        }
    if isinstance(given, list):
        is_alike = isinstance(shown, list) and isinstance(whole, list) and len(given) == len(shown) == len(whole)
        return [
            restored(value, shown[at] if is_alike else None, whole[at] if is_alike else None, f"{path}[{at}]")
            for at, value in enumerate(given)
        ]
    if not isinstance(given, str):
        return given
    if MASK not in given:
        return given
    if given == shown and isinstance(whole, str):
        # It is taken as it is: what looks like a variable is none.
        return whole.replace("${", "$${")
    hint = "give the value itself, or leave the mask where the secret was shown"
    raise refused(
        422, f"{path or 'The value'} has *** in a place where the gateway showed no secret", hint=hint, field=path
    )


def _usual(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields without those that follow from others."""
    if fields.get("transport") in _AUTOMATIC:
        del fields["transport"]
    for name in _OWN:
        fields.pop(name, None)
    return fields
