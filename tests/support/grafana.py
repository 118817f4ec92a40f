"""A check of dashboards against the types that Grafana publishes, with the TypeScript compiler."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from support.node import PACKAGES_VARIABLE, node_program

__all__ = ["type_errors"]

_TYPES: Final = "./node_modules/@grafana/schema/dist/types/raw/composable"
# Options of a panel, and of its fields if it has any; the rest of a panel is the same for all.
_KINDS: Final = {"stat": False, "bargauge": False, "timeseries": True, "heatmap": True, "table": True}
_PRELUDE: Final = """
import type { Dashboard, Panel, RowPanel } from "@grafana/schema";
// JSON has the values of enumerations in place of their names.
type Plain<T> = T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : number)
  : T extends Array<infer U> ? Array<Plain<U>>
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Part<T> = Plain<Partial<T>>;
"""


def type_errors(board: dict[str, Any], directory: Path) -> str:
    """Return what the compiler has to say of a dashboard: unknown fields and values of a wrong type; "" for nothing."""
    compiler = node_program("typescript")
    (directory / "node_modules").symlink_to(Path(os.environ[PACKAGES_VARIABLE]).resolve() / "node_modules")
    source = directory / "dashboard.ts"
    source.write_text(_PRELUDE + "\n".join(_statements(board)), encoding="utf-8")
    flags = ("--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler")
    done = subprocess.run(
        [*compiler, *flags, str(source)], cwd=directory, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 0 or done.stdout, done.stderr
    return done.stdout


def _statements(board: dict[str, Any]) -> Iterator[str]:
    for kind, has_fields in _KINDS.items():
        names = f"Options as {kind}Options" + (f", FieldConfig as {kind}Fields" if has_fields else "")
        yield f'import type {{ {names} }} from "{_TYPES}/{kind}/panelcfg/x/types.gen";'
    for panel in board["panels"]:
        name, kind = f"panel{panel['id']}", panel["type"]
        if kind == "row":
            yield _checked(name, panel, "Plain<RowPanel>")
            continue
        defaults = panel["fieldConfig"]["defaults"]
        yield _checked(f"{name}Options", panel["options"], f"Part<{kind}Options>")
        yield _checked(f"{name}Fields", defaults["custom"], f"Part<{kind}Fields>" if _KINDS[kind] else "{}")
        # A target is of the data source's type, which is not published.
        field_config = {**panel["fieldConfig"], "defaults": {**defaults, "custom": {}}}
        rest = {**panel, "options": {}, "targets": [], "fieldConfig": field_config}
        yield _checked(name, rest, "Plain<Panel<{}, {}>>")
    yield _checked("board", {**board, "panels": []}, "Plain<Dashboard>")


def _checked(name: str, value: Any, kind: str) -> str:
    return f"export const {name} = {json.dumps(value)} satisfies {kind};"
