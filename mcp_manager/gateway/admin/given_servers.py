"""Configurations of servers that clients send: read as those in a file, with secrets in place of masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mcp_manager.config import ServerConfig, validate_server_id
from mcp_manager.config._problem import join
from mcp_manager.config.load import load_fleet_mapping
from mcp_manager.errors import ConfigError
from mcp_manager.gateway.admin.masks import restored, shown_server, whole_server
from mcp_manager.gateway.admin.problems import Refusal, problem_of_error, refused

__all__ = ["merged", "server_of"]


def server_of(
    server_id: str, given: Mapping[str, Any], before: ServerConfig | None = None, path: str = ""
) -> ServerConfig:
    """Return the configuration that a client means.

    ``${VAR}`` stands for a variable of the gateway, as in its file.

    Parameters
    ----------
    server_id
        The server.
    given
        What the client has sent.
    before
        The present configuration, whose secrets masks stand for.
    path
        Where in the body it is.

    Raises
    ------
    Refusal
        Something is wrong with it.
    """
    validate_server_id(server_id)
    shown, whole = ({}, {}) if before is None else (shown_server(before), whole_server(before))
    fields = restored(dict(given), shown, whole, path)
    if before is not None and before.server is not None and fields.get("server") == shown["server"]:
        fields["server"] = before.server
    try:
        found = load_fleet_mapping({"servers": {server_id: fields}}).config.servers
    except ConfigError as error:
        problem = problem_of_error(error)
        field = problem.field.removeprefix(join("servers", server_id)).lstrip(".")
        where = f"{path}.{field}".strip(".")
        refusal = Refusal(msgspec.structs.replace(problem, field=where, server_id=server_id))
    else:
        if server_id not in found:
            raise refused(
                422,
                "A disabled server cannot be deployed",
                hint="leave disabled out, and suspend the server",
                field="disabled",
            )
        config = found[server_id]
        if before is None:
            return config
        # They hid what may still be in texts, and no client sees them.
        hidden = tuple(dict.fromkeys((*before.hidden_texts, *config.hidden_texts)))
        return msgspec.structs.replace(config, hidden_texts=hidden, extras=before.extras)
    try:
        raise refusal
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del refusal


def merged(target: Any, patch: Any) -> Any:
    """Return a value with a merge patch applied (RFC 7396, section 2)."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found
