"""Writes the TypedDicts of `mcp_manager/config/fields/`: the fields of each configuration struct, with what they mean.

``python -m tests.support.field_types`` writes them again after a change to a struct.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import types
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

import mcp_manager
from mcp_manager.config import (
    AdminConfig,
    AllowConfig,
    AuditConfig,
    AuthConfig,
    BalancingConfig,
    BreakerConfig,
    ClientAuthConfig,
    ClientLimitConfig,
    DiscoveryConfig,
    FallbackConfig,
    HealthConfig,
    HedgeConfig,
    IssuerConfig,
    LimitsConfig,
    ManagerConfig,
    PinsConfig,
    RateConfig,
    RestartConfig,
    ResumeConfig,
    RetryBudgetConfig,
    RetryConfig,
    ServeConfig,
    ServerConfig,
    ServerCredentialsConfig,
    TelemetryConfig,
    TlsConfig,
    ToolsConfig,
    TracesConfig,
    ViewConfig,
)

FOLDER: Final = Path(mcp_manager.__file__).parent / "config" / "fields"
STRUCTS: Final[dict[str, tuple[type[msgspec.Struct], ...]]] = {
    "access": (AllowConfig, ClientAuthConfig, ClientLimitConfig),
    "admin": (AdminConfig,),
    "audit": (AuditConfig, PinsConfig),
    "auth": (AuthConfig,),
    "health": (BreakerConfig, HealthConfig, RestartConfig),
    "issuers": (IssuerConfig,),
    "manager": (ManagerConfig,),
    "rates": (RateConfig, RetryBudgetConfig),
    "resilience": (BalancingConfig, DiscoveryConfig, FallbackConfig, HedgeConfig, LimitsConfig, RetryConfig),
    "resume": (ResumeConfig,),
    "serve": (ServeConfig, ViewConfig),
    "server": (ServerConfig,),
    "server_credentials": (ServerCredentialsConfig,),
    "telemetry": (TelemetryConfig,),
    "tls": (TlsConfig,),
    "tools": (ToolsConfig,),
    "traces": (TracesConfig,),
}
"""The structs by the module that gets their fields."""

WIDTH: Final = 120
_FIELD: Final = re.compile(r"^([a-z_][a-z_, ]*)\n((?:    .*\n?|\n)+)", re.MULTILINE)
_BLANK_LINE: Final = "\n\n"
_END: Final = '\n"""'
_PLAIN: Final = {str: "str", int: "int", float: "float", bool: "bool", type(None): "None", Any: "Any"}


def fields_name(kind: type[msgspec.Struct]) -> str:
    """The name of the TypedDict of a struct."""
    return f"{kind.__name__.removesuffix('Config')}Fields"


def module_of(kind: type[msgspec.Struct]) -> str:
    """The name of the module that has the fields of a struct."""
    return next(name for name, kinds in STRUCTS.items() if kind in kinds)


class Writer:
    """Writes one module, and notes what it has to import."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.imports: dict[str, set[str]] = {"typing": {"TypedDict"}}

    def need(self, module: str, name: str) -> str:
        """Import a name, and return it."""
        self.imports.setdefault(module, set()).add(name)
        return name

    def type_of(self, hint: Any) -> str:
        """The type of a field as a caller may give it: any sequence for a tuple, any mapping for a struct."""
        origin, inner = get_origin(hint), get_args(hint)
        if hint in _PLAIN:
            if hint is Any:
                self.need("typing", "Any")
            return _PLAIN[hint]
        if origin in (Union, types.UnionType):
            parts = sorted(inner, key=lambda each: each is type(None))
            return " | ".join(self.type_of(each) for each in parts)
        if origin is Literal:
            values = ", ".join(json.dumps(each) for each in inner)
            return f"{self.need('typing', 'Literal')}[{values}]"
        if origin is tuple:
            of = self.type_of(inner[0])
            if inner[0] is str:
                return f"{self.need('mcp_manager.types', 'SequenceNotStr')}[{of}]"
            return f"{self.need('collections.abc', 'Sequence')}[{of}]"
        if origin is dict:
            # Whatever describes a server will do.
            is_server = inner[1] is ServerConfig
            values = self.need("mcp_manager.config.spec", "ServerSpec") if is_server else self.type_of(inner[1])
            return f"{self.need('collections.abc', 'Mapping')}[str, {values}]"
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            fields = fields_name(hint)
            if module_of(hint) != self.module:
                self.need(f"mcp_manager.config.fields.{module_of(hint)}", fields)
            return f"{self.need(hint.__module__, hint.__name__)} | {fields}"
        raise TypeError(hint)

    def field(self, kind: type[msgspec.Struct], field: msgspec.structs.FieldInfo, text: str) -> str:
        """One key with its text."""
        if (kind, field.name) == (ServerConfig, "server"):
            shown = f"{self.need('mcp_manager.config.memory', 'ServerObject')} | None"
        else:
            shown = self.type_of(get_type_hints(kind)[field.name])
        line = f"    {field.name}: {shown}"
        if len(line) > WIDTH:
            line = re.sub(r"\[(.*)\]", r"[\n        \1\n    ]", line)
        return f"{line}\n{_quoted(text + _default_of(field, text))}"

    def write(self) -> str:
        """The whole module."""
        classes = []
        for kind in STRUCTS[self.module]:
            texts = descriptions(kind)
            fields = [
                self.field(kind, field, texts[field.name])
                for field in msgspec.structs.fields(kind)
                if not field.name.startswith("_")
            ]
            classes.append(
                f"class {fields_name(kind)}(TypedDict, total=False):\n"
                f'    """The fields of :class:`~mcp_manager.{kind.__name__}`, as keyword arguments or as a mapping."""\n\n'
                + "\n".join(fields)
            )
        names = sorted(fields_name(kind) for kind in STRUCTS[self.module])
        head = [
            '"""The fields of the configuration as ``TypedDict``; `tests/support/field_types.py` writes this file."""',
            "from __future__ import annotations",
            *self._imports(),
            f"__all__ = {json.dumps(names)}",
        ]
        return "\n\n".join(head) + "\n\n\n" + "\n\n\n".join(classes) + "\n"

    def _imports(self) -> list[str]:
        blocks: dict[bool, list[str]] = {}
        for module in sorted(self.imports):
            line = f"from {module} import {', '.join(sorted(self.imports[module]))}"
            if len(line) > WIDTH:
                inner = "".join(f"    {name},\n" for name in sorted(self.imports[module]))
                line = f"from {module} import (\n{inner})"
            blocks.setdefault(module.startswith("mcp_manager"), []).append(line)
        return ["\n".join(lines) for _, lines in sorted(blocks.items())]


def descriptions(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What the docstring of a struct says of each field; several may share one text."""
    _, _, parameters = (inspect.getdoc(kind) or "").partition("Parameters\n----------\n")
    return {
        name.strip(): textwrap.dedent(text).strip()
        for names, text in _FIELD.findall(parameters)
        for name in names.split(",")
    }


def _default_of(field: msgspec.structs.FieldInfo, text: str) -> str:
    value = field.default
    if "efault" in text or isinstance(value, msgspec.Struct) or value in (None, "", ()):
        return ""
    if value is msgspec.NODEFAULT or value is msgspec.UNSET:
        return ""
    return f" Default: ``{value}``."


def _quoted(text: str) -> str:
    paragraphs = [" ".join(each.split()) for each in re.split(r"\n\s*\n", text)]
    if len(paragraphs) == 1 and len(paragraphs[0]) + 6 <= WIDTH - 4:
        return f'    """{paragraphs[0]}"""'
    # The quotes take three characters of the first line.
    filled = [_filled(f"xxx{paragraphs[0]}")[3:], *map(_filled, paragraphs[1:])]
    return textwrap.indent(f'"""{_BLANK_LINE.join(filled)}{_END}', "    ")


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH - 4, break_long_words=False, break_on_hyphens=False)


def modules() -> dict[Path, str]:
    """The text of each module by its path."""
    return {FOLDER / f"{name}.py": Writer(name).write() for name in STRUCTS}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in modules().items():
        path.write_text(text, encoding="utf-8")
