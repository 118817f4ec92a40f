"""Why ``mcp-manager serve`` would not start with a configuration on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mcp_manager.config import ServeConfig
from mcp_manager.config.listen_address import parse_listen_address
from mcp_manager.errors import ConfigError
from mcp_manager.gateway.http.listener import Listener
from mcp_manager.gateway.security.keys_file import read_keys
from mcp_manager.gateway.security.pins import Pins

__all__ = ["start_problems"]


def start_problems(serve: ServeConfig) -> Iterator[ConfigError]:
    """Yield what is wrong with the address and the files that a configuration names; nothing is opened for writing.

    Whether the address is free is not looked at: the gateway may be running.
    """
    for check in (_check_address, _check_admin_address, _check_keys, _check_pins, _check_audit_log):
        try:
            check(serve)
        except ConfigError as error:
            yield error


def _check_address(serve: ServeConfig) -> None:
    listener = Listener(serve)
    path = listener.address.socket_path
    folder = os.path.dirname(os.path.abspath(os.path.expanduser(path))) if path else ""
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        raise listener.refused(_why_not(folder))


def _check_admin_address(serve: ServeConfig) -> None:
    if serve.admin is None or serve.admin.listen is None:
        return
    address = parse_listen_address(serve.admin.listen)
    if address == parse_listen_address(serve.listen) and (address.port or address.socket_path):
        hint = "remove serve.admin.listen to serve the admin API there, or choose another address"
        raise ConfigError(f"serve.admin.listen: {address} is the address of serve.listen", hint=hint)


def _check_keys(serve: ServeConfig) -> None:
    if serve.auth.type != "none" and serve.auth.keys_file is not None:
        read_keys(os.path.expanduser(serve.auth.keys_file))


def _check_pins(serve: ServeConfig) -> None:
    Pins.read(serve.pins)


def _check_audit_log(serve: ServeConfig) -> None:
    path = serve.audit.path
    if path in (None, "stderr"):
        return
    path = os.path.abspath(path)
    place = path if os.path.exists(path) else os.path.dirname(path)
    if os.path.isdir(path) or not os.access(place, os.W_OK):
        reason = "Is a directory" if os.path.isdir(path) else _why_not(place).strerror
        raise ConfigError(
            f"serve.audit.path: {path!r} cannot be written: {reason}",
            hint="make its directory, and let the user of the gateway write there; or leave serve.audit out",
        )


def _why_not(path: str) -> OSError:
    """Return why a path cannot be written."""
    try:
        os.stat(path)
    except OSError as error:
        return OSError(error.errno, error.strerror)
    return PermissionError(13, "Permission denied")
