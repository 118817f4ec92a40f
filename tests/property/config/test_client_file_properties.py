"""Whatever stands in a client's file: it is loaded, or refused with places; nothing else happens, no secret is quoted."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.examples import examples

from mcp_manager.config.clients import fleet_toml, import_fleet
from mcp_manager.config.clients.dialects import COMMON_FIELDS, COMMON_HARMLESS, DIALECTS, FOREIGN_FIELDS
from mcp_manager.config.load import load_fleet_file
from mcp_manager.errors import ConfigError

SECRET = "s3cr3t-SENTINEL-value"
NAMES = sorted(
    {*COMMON_FIELDS, *FOREIGN_FIELDS, *COMMON_HARMLESS, *(name for each in DIALECTS for name in each.fields)}
    | {"packages", "remotes", "name", "settings", "env", "zoom"}
)
TEXTS = st.sampled_from(
    (
        "|run|a b|https://example.com/mcp|http|stdio|oauth|Bearer x|${TOKEN}|Bearer ${TOKEN}|https://${TOKEN}|$TOKEN|${NOPE}|"
        "{env:TOKEN}|{file:gone}|${input:x}|${{ secrets.T }}|{{USER}}|$(x)|${|~/x|5s|unix:///x#/y"
    ).split("|")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*NAMES, "allow", "x"]), inner, max_size=2)
    ),
    max_leaves=5,
)
SERVERS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4) | VALUES
FILES = sorted({end for each in DIALECTS for end in each.files if end.endswith(".json")} | {"/x.json", "/mcp.json"})
TABLES = sorted({table for each in DIALECTS for table in each.tables})


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    table = draw(st.sampled_from(TABLES))
    one = draw(SERVERS)
    holder: Any = {
        "map": {"a": one, "b.c": draw(SERVERS)},
        "list": [one, draw(SERVERS)],
        "one": one,
        "children": {"a": one},
        "registry": {"name": "x/y", "packages": [one], "remotes": draw(VALUES)},
    }[table.kind]
    for name in reversed(table.path):
        holder = {"/w" if name == "*" else name: holder}
    extra = draw(st.dictionaries(st.sampled_from(["inputs", "mcp", "projects", "zoom"]), VALUES, max_size=1))
    return {**extra, **holder} if isinstance(holder, dict) else {"mcpServers": holder}


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow])
@given(documents(), st.sampled_from(FILES))
def test_a_clients_file_is_loaded_or_refused(document: dict[str, Any], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document), encoding="utf-8")
        environment = {"TOKEN": SECRET, "HOME": "/home/u"}
        told: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
        logger = logging.getLogger("mcp_manager.config")
        logger.addHandler(handler)
        try:
            told.append(repr(load_fleet_file(path, environment=environment)))
        except ConfigError as error:
            told.append(f"{error!r} {error}")
            assert error.problems
        try:
            load_fleet_file(path, environment=environment, lenient=True)
        except ConfigError as error:
            told.append(str(error))
        finally:
            logger.removeHandler(handler)
        imported = import_fleet([path], environment)
        assert SECRET not in "".join([*told, *imported.warnings])
        fleet_toml(imported)
