"""Hooks of Schemathesis for the admin API: what it makes up starts no program, and connects nowhere.

Schemathesis loads this file in a process of its own, by the variable ``SCHEMATHESIS_HOOKS``.
"""

from __future__ import annotations

import os
from typing import Any, Final

import schemathesis

URL: Final = "ADMIN_CASES_URL"
"""The variable with the URL of the server that stays."""
SERVER: Final = "fleet"
"""The server that requests are about; it stays, whatever they ask for."""
HARMLESS: Final = frozenset(
    {
        "name",
        "server_type",
        "priority",
        "tags",
        "connect_timeout_s",
        "request_timeout_s",
        "drain_timeout_s",
        "max_response_values",
        "breaker",
        "retry",
        "hedge",
        "fallback",
        "limits",
        "tools",
        "balancing",
        "validate_output",
    }
)
"""The fields of a server that may have any value."""
PLACE: Final = {"url": "http://127.0.0.1:1/mcp", "connect": "lazy"}
"""Where the servers are that a case describes: nobody listens there."""


def harmless(config: Any) -> Any:
    """A configuration of a server without what would start something."""
    if not isinstance(config, dict):
        return config
    return {**{name: value for name, value in config.items() if name in HARMLESS}, **PLACE}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Change a case just before it is sent."""
    path, body = case.operation.path, case.body
    # At an address where the server is known, but for the request that removes it.
    if "id" in case.path_parameters and case.method != "DELETE":
        case.path_parameters["id"] = SERVER
    if case.query and "wait" in case.query:
        case.query["timeout_s"] = 0.01
    if not isinstance(body, dict):
        return
    if path == "/servers" and "config" in body:
        body["config"] = harmless(body["config"])
    elif path == "/servers/{id}":
        case.body = {name: value for name, value in body.items() if name in HARMLESS}
        if case.method == "PUT":
            case.body["url"] = os.environ[URL]
    elif path == "/config":
        case.query = {**(case.query or {}), "dry_run": "true"}
        if isinstance(body.get("servers"), dict):
            body["servers"] = {name: harmless(each) for name, each in body["servers"].items()}
        case.body = {name: value for name, value in body.items() if name not in ("serve", "manager")}
    elif path.endswith("/scale") and isinstance(body.get("instances"), int):
        body["instances"] = min(body["instances"], 2)
