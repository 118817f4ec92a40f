"""What is wrong with how clients of the gateway authenticate, and with the files that the gateway needs."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from typing import Final

from mcp_manager.cli.doctor.findings import Finding
from mcp_manager.cli.start_problems import start_problems
from mcp_manager.config import ServeConfig
from mcp_manager.errors import ConfigError
from mcp_manager.gateway.security.authentication import Authentication
from mcp_manager.gateway.security.keys_file import read_keys

__all__ = ["examine_clients", "examine_start"]

_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


async def examine_clients(serve: ServeConfig) -> list[Finding]:
    """Return what is wrong with the API keys, and with what the authorization server of clients answers."""
    try:
        authentication = Authentication(serve.auth, is_tls=serve.cert_file is not None)
    except ConfigError as error:
        return [Finding("error", None, error.message, error.hint or "correct it")]
    try:
        problem = await authentication.probe()
    finally:
        await authentication.aclose()
    found = [] if serve.auth.keys_file is None else _of_keys(serve.auth.keys_file)
    if serve.auth.type == "introspection" and not serve.auth.audience and serve.auth.resource is None:
        seen = "serve.auth has no audience: tokens that were issued for other services are accepted"
        found.append(Finding("warning", None, seen, "set serve.auth.audience, or serve.auth.resource"))
    if problem:
        seen = f"tokens of clients cannot be examined: {problem}"
        found.append(Finding("error", None, seen, "check serve.auth, and whether the authorization server runs"))
    return found


def examine_start(serve: ServeConfig) -> list[Finding]:
    """Return why the gateway would not start on this machine."""
    return [
        Finding("error", None, problem.message, problem.hint or "correct it in the file")
        for problem in start_problems(serve)
    ]


def _of_keys(path: str) -> list[Finding]:
    found = []
    path = os.path.expanduser(path)
    if os.stat(path).st_mode & _BY_OTHERS:
        seen = f"others can write the file of API keys {path}: they can give themselves a key"
        found.append(Finding("warning", None, seen, f"run chmod 600 {path}"))
    keys = read_keys(path)
    now = datetime.now(UTC)
    if all(each.expires is not None and each.expires <= now for each in keys):
        seen = f"the file of API keys {path} has no key that is valid"
        found.append(Finding("warning", None, seen, f"run mcp-manager key new NAME --file {path}"))
    return found
