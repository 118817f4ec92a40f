"""Parsing and checking of one server's configuration, from JSON, a mapping or a struct."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

import msgspec

from mcp_manager.config._checked_values import is_known, is_plain_id, learn
from mcp_manager.config._checks import check_settings, check_text
from mcp_manager.config._interpolate import has_placeholder
from mcp_manager.config._network import take_socket_url
from mcp_manager.config._plain import describe, kind_of, plain
from mcp_manager.config._problem import FieldProblem, at, entry, join, shown
from mcp_manager.config._transport import choose_transport, take_misplaced
from mcp_manager.config.auth import AuthConfig
from mcp_manager.config.health import BreakerConfig, HealthConfig, RestartConfig
from mcp_manager.config.model import ServerConfig
from mcp_manager.config.rates import RateConfig, RetryBudgetConfig
from mcp_manager.config.resilience import (
    BalancingConfig,
    DiscoveryConfig,
    FallbackConfig,
    HedgeConfig,
    LimitsConfig,
    RetryConfig,
)
from mcp_manager.config.tls import TlsConfig
from mcp_manager.config.tools import ToolsConfig

__all__ = ["check_server_config", "parse_server_config", "validate_server_id"]

logger: logging.Logger = logging.getLogger(__name__)

PREFIX: Final = "Invalid server config"
SERVER_FIELDS: Final = frozenset(ServerConfig.__struct_fields__)
_NEVER_LITERAL: Final = ("url", "headers", "env", "auth", "proxy")
_NULLABLE: Final = frozenset(
    {
        "url",
        "command",
        "server",
        "cwd",
        "args",
        "env",
        "headers",
        "headers_command",
        "auth",
        "tls",
        "proxy",
        "unix_socket",
    }
)
_SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "auth": AuthConfig,
    "tls": TlsConfig,
    "breaker": BreakerConfig,
    "health": HealthConfig,
    "restart": RestartConfig,
    "balancing": BalancingConfig,
    "discovery": DiscoveryConfig,
    "retry": RetryConfig,
    "retry.budget": RetryBudgetConfig,
    "hedge": HedgeConfig,
    "fallback": FallbackConfig,
    "limits": LimitsConfig,
    "limits.rate": RateConfig,
    "tools": ToolsConfig,
}
_CHOICES: Final = {
    "connect": ("eager", "lazy"),
    "auth.type": ("none", "api_key", "bearer", "oauth"),
    "balancing.policy": ("p2c", "least_connections", "round_robin", "weighted", "random", "consistent"),
    "balancing.affinity": ("none", "soft", "hard"),
    "discovery.kind": ("none", "dns", "srv"),
    "limits.concurrency": ("aimd", "gradient", "off"),
}
_WORDS: Final = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "an object",
}
_OTHER_NAMES: Final = {
    "timeout": "request_timeout_s",
    "timeoutms": "request_timeout_s",
    "startuptimeout": "start_timeout_s",
    "startuptimeoutsec": "start_timeout_s",
    "tooltimeoutsec": "request_timeout_s",
    "environment": "env",
    "envs": "env",
    "cmd": "command",
    "uri": "url",
    "serverurl": "url",
    "httpurl": "url",
    "httpheaders": "headers",
    "headershelper": "headers_command",
    "bearertoken": "auth",
    "oauth": "auth",
    "excludetools": "tools",
    "includetools": "tools",
    "enabledtools": "tools",
    "disabledtools": "tools",
    "host": "listen",
    "port": "listen",
    "address": "listen",
    "bind": "listen",
    "hosts": "allowed_hosts",
    "corsorigins": "allowed_origins",
    "tlscert": "cert_file",
    "sslcert": "cert_file",
    "tlskey": "key_file",
    "sslkey": "key_file",
    "rules": "allow",
    "users": "principals",
    "groups": "claims",
    "requests": "rate",
    "rps": "rate",
    "file": "path",
}
"""What clients call fields of ours, without case and separators."""
_FOREIGN: Final = frozenset({"oauth"})
# More fields than these are not listed in an error; the manual lists them under these topics.
_MOST_LISTED: Final = 16
_TOPICS: Final = {"url": "server-settings", "max_connections": "manager-settings", "legacy_sse": "gateway"}
"""Fields of other clients' formats that resemble ours but mean something else: no typing mistakes."""


def validate_server_id(server_id: object) -> str:
    """Return ``server_id`` if it is valid: 1 to 256 characters, not blank, without control characters.

    Raises
    ------
    ConfigError
        It is not.
    """
    if is_plain_id(server_id):
        return str(server_id)
    try:
        return check_server_id(server_id)
    except FieldProblem as found:
        error = found.error(PREFIX)
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def parse_server_config(
    text: str | bytes | bytearray | Mapping[str, Any], *, server_id: str, lenient: bool = False
) -> ServerConfig:
    """Parse and check the configuration of one server.

    Variables such as ``${VAR}`` are filled in only in files. Here they are an error in ``url``, ``headers``, ``env``,
    ``auth`` and ``proxy``, where they would be sent as they are; a :class:`ServerConfig` may have them.

    Parameters
    ----------
    text
        A JSON object as text or UTF-8 bytes, or an equivalent mapping.
    server_id
        The id of the server; also its ``name`` if the configuration gives none.
    lenient
        Keep unknown fields, and fields that do not apply to the transport, in ``extras`` instead of raising an error,
        as the files of MCP clients require. A field that looks misspelt or does not apply is logged as a warning.

    Raises
    ------
    ConfigError
        Something is malformed. The message names the field and the problem, never a value that may be a secret.
    """
    try:
        check_server_id(server_id)
        source = text if isinstance(text, Mapping) else _decode(text)
        for name in _NEVER_LITERAL:
            _refuse_placeholders(source.get(name), name)
        return build_server(source, server_id=server_id, lenient=lenient)
    except FieldProblem as found:
        # Raised below, outside this handler: its context and traceback would keep the input alive.
        error = found.error(PREFIX, server_id if isinstance(server_id, str) else None)
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def _refuse_placeholders(value: object, path: str) -> None:
    """Raise :class:`FieldProblem` for a text that has a variable to fill in."""
    if isinstance(value, str):
        if has_placeholder(value):
            text = "contains a variable such as ${VAR}, which is filled in only in configuration files"
            raise FieldProblem(path, text, "give its value, or a ServerConfig, which is taken as it is")
    elif isinstance(value, Mapping):
        for name, each in value.items():
            _refuse_placeholders(each, entry(path, name) if isinstance(name, str) else path)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            _refuse_placeholders(each, f"{path}[{index}]")


def check_server_config(config: ServerConfig, *, server_id: str) -> ServerConfig:
    """Check a configuration struct as strictly as a parsed one, and return it with its name set.

    A configuration whose values were all checked before is not checked again.

    Raises
    ------
    ConfigError
        See :func:`parse_server_config`.
    """
    try:
        if is_plain_id(server_id) and isinstance(config, ServerConfig) and is_known(config):
            return config if config.name else msgspec.structs.replace(config, name=server_id)
        check_server_id(server_id)
        if not isinstance(config, ServerConfig):
            raise FieldProblem("", f"expected a ServerConfig, got {describe(config)}")
        fields = _as_mapping(config)
        extras = fields.pop("extras")
        checked = build_server(fields, server_id=server_id, lenient=False)
        return msgspec.structs.replace(checked, extras=extras) if extras else checked
    except FieldProblem as found:
        error = found.error(PREFIX, server_id if isinstance(server_id, str) else None)
    try:
        raise error
    finally:
        # Break the reference cycle: the traceback refers to this frame.
        del error


def build_server(source: Mapping[Any, Any], *, server_id: str, lenient: bool, path: str = "") -> ServerConfig:
    """Build and check a configuration; raises :class:`FieldProblem` for a field below ``path``."""
    fields, foreign = _split(source, path, lenient=lenient)
    choose_transport(fields, path)
    misplaced = take_misplaced(fields, path, lenient=lenient)
    if foreign or misplaced:
        fields["extras"] = {**fields.get("extras", {}), **foreign, **misplaced}
    for name, section in _SECTIONS.items():
        outer, _, inner = name.rpartition(".")
        holder = fields.get(outer, {}) if outer else fields
        if inner in holder:
            check_object(holder[inner], section, at(path, name))
    _check_shapes(fields, path)
    take_socket_url(fields, path)
    config: ServerConfig = convert(fields, ServerConfig, path)
    check_settings(config, path)
    changes = learn(config)
    if not config.name:
        changes["name"] = server_id
    return msgspec.structs.replace(config, **changes) if changes else config


def check_object(value: object, kind: type[msgspec.Struct], path: str) -> None:
    """Raise :class:`FieldProblem` unless ``value`` is an object that has only fields of ``kind``."""
    if not isinstance(value, dict):
        raise FieldProblem(path, f"expected an object, got {describe(value)}")
    for name in value:
        if name not in kind.__struct_fields__:
            refuse_unknown(name, kind.__struct_fields__, path)


def refuse_unknown(name: str, known: Collection[str], path: str) -> NoReturn:
    """Raise :class:`FieldProblem` for an unknown field; the hint suggests the nearest known one."""
    meant = _OTHER_NAMES.get(nearest(name, _OTHER_NAMES, cutoff=0.9) or "")
    near = meant if meant in known else nearest(name, known, cutoff=0.65)
    topic = next((topic for field, topic in _TOPICS.items() if field in known and len(known) > _MOST_LISTED), None)
    if near:
        hint = f"did you mean {near!r}?"
    elif topic is not None:
        hint = f"mcp-manager help {topic} lists the known ones"
    else:
        hint = f"the known fields are {', '.join(known)}"
    raise FieldProblem(path, f"unknown field {shown(name)}", hint, name)


def nearest(name: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """Return the known name most similar to ``name``, regardless of case and separators, or ``None``."""
    import difflib  # noqa: PLC0415 - importing the package must not load it

    folded = {_fold(candidate): candidate for candidate in known}
    found = difflib.get_close_matches(_fold(name[:64]), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None


def warn_of_near_misses(names: Iterable[str], known: Iterable[str], path: str) -> None:
    """Log a warning for every unknown name that is probably a misspelt known one."""
    for name in names:
        near = None if name in _FOREIGN else nearest(name, known, cutoff=0.8)
        if near is not None:
            logger.warning("%s: unknown field, ignored; did you mean %r?", join(path, name), near)


def convert(fields: dict[str, Any], kind: type[Any], path: str) -> Any:
    """Convert ``fields`` to a struct of type ``kind``; raises :class:`FieldProblem` for a value of a wrong type."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as invalid:
        text, _, where = str(invalid).rpartition(" - at `$")
        text, where = (text, where.rstrip("`")) if text else (str(invalid), "")
    value: Any = fields
    for name, index in re.findall(r"\.([A-Za-z0-9_]+)|\[([0-9]+|\.\.\.)\]", where):
        if index == "...":
            # It is in an entry of a mapping, and nobody says in which.
            value = None
            break
        value = value[name] if name else value[int(index)]
    if text.startswith("Invalid enum value"):
        text = f"is not one of {', '.join(map(str, choices))}" if (choices := _choices(kind, where)) else text
    is_text_for_list = isinstance(value, str) and "array" in text.partition(", got")[0]
    hint = "write a list, with a text for each item" if is_text_for_list else ""
    raise FieldProblem(at(path, where.removeprefix(".")), _in_words(text, value), hint)


def _choices(kind: Any, where: str) -> tuple[Any, ...]:
    """Return the words that a field accepts, by its path below ``kind``; none if it does not choose among words."""
    from msgspec import inspect  # noqa: PLC0415 - importing the package must not load it

    found: list[Any] = [inspect.type_info(kind)]
    for name in re.findall(r"\.([A-Za-z0-9_]+)|\[(?:[0-9]+|\.\.\.)\]", where):
        found = [each for outer in found for each in _members(outer, name)]
    return tuple(word for each in found for option in _options(each) for word in getattr(option, "values", ()))


def _options(info: Any) -> tuple[Any, ...]:
    """Return the types that a type of :mod:`msgspec.inspect` is a union of."""
    inner = getattr(info, "type", None)
    return _options(inner) if inner is not None and hasattr(info, "extra") else getattr(info, "types", (info,))


def _members(info: Any, name: str) -> Iterator[Any]:
    """Yield the types that a member may have: a field with its name, or an entry of a list or a mapping without."""
    for option in _options(info):
        for field in getattr(option, "fields", ()) if name else ():
            if field.encode_name == name:
                yield field.type
        for entry_of in ("item_type", "value_type") if not name else ():
            if hasattr(option, entry_of):
                yield getattr(option, entry_of)


def decode_json(text: str) -> Any:
    """Decode JSON text; raises :class:`FieldProblem` if it is malformed or an object repeats a key."""
    import json  # noqa: PLC0415 - importing the package must not load it

    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as malformed:
        problem = f"malformed JSON at line {malformed.lineno}, column {malformed.colno}: {malformed.msg}"
    except RecursionError:
        problem = "malformed JSON: nested too deeply"
    except FieldProblem:
        raise
    except ValueError:
        problem = "malformed JSON: a number has too many digits"
    raise FieldProblem("", problem)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                where = entry("", name).removesuffix("[…]")
                raise FieldProblem(where, "malformed JSON: the key is given twice in one object")
            seen.add(name)
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise FieldProblem("", f"malformed JSON: {name} is not a JSON value")


def _decode(text: object) -> Mapping[str, Any]:
    if isinstance(text, (bytes, bytearray)):
        text = decode_utf8(bytes(text))
    if not isinstance(text, str):
        raise FieldProblem("", f"expected JSON text or a mapping, got {describe(text)}")
    value = decode_json(text)
    if not isinstance(value, dict):
        raise FieldProblem("", f"expected an object, got {describe(value)}")
    return value


def decode_utf8(data: bytes) -> str:
    """Decode UTF-8 bytes, without a byte order mark; raises :class:`FieldProblem` with the position."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as invalid:
        position = invalid.start
    raise FieldProblem("", f"byte {position} is not UTF-8")


def check_server_id(server_id: object, path: str = "server_id") -> str:
    """Return ``server_id`` if it is valid; raises :class:`FieldProblem` at ``path`` otherwise."""
    if not isinstance(server_id, str):
        raise FieldProblem(path, f"expected a string, got {describe(server_id)}", "the id of the server comes first")
    if not server_id.strip():
        raise FieldProblem(path, "must not be empty")
    check_text(server_id, path)
    return server_id


def _split(source: Mapping[Any, Any], path: str, *, lenient: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a plain copy of the known fields, and the unknown ones unchanged."""
    fields: dict[str, Any] = {}
    foreign: dict[str, Any] = {}
    for name, value in source.items():
        if not isinstance(name, str):
            raise FieldProblem(path, f"expected field names to be strings, got {describe(name)}")
        if name not in SERVER_FIELDS and name != "type":
            foreign[name] = value
        elif value is not None or name not in _NULLABLE:
            fields[name] = value if name == "server" else plain(value, join(path, name))
    if foreign and not lenient:
        refuse_unknown(next(iter(foreign)), ServerConfig.__struct_fields__, path)
    if not isinstance(fields.get("extras", {}), dict):
        raise FieldProblem(join(path, "extras"), f"expected an object, got {describe(fields['extras'])}")
    warn_of_near_misses(foreign, ServerConfig.__struct_fields__, path)
    return fields, foreign


def _check_shapes(fields: dict[str, Any], path: str) -> None:
    """Check what the typed conversion would report without the field's full name or with a secret in the message."""
    for name in ("headers", "env"):
        values = fields.get(name, {})
        where = join(path, name)
        if not isinstance(values, dict):
            raise FieldProblem(where, f"expected an object, got {describe(values)}")
        for key, value in values.items():
            if not isinstance(value, str):
                raise FieldProblem(entry(where, key), f"expected a string, got {kind_of(value)}")
    for field, choices in _CHOICES.items():
        section, _, name = field.rpartition(".")
        value = fields.get(section, {}).get(name) if section else fields.get(name)
        if isinstance(value, str) and value not in choices:
            quoted = f"{shown(value)} is not" if not section else "is not"
            raise FieldProblem(at(path, field), f"{quoted} one of {', '.join(choices)}")
    if isinstance(fields.get("instances"), int) and fields["instances"] < 0:
        raise FieldProblem(join(path, "instances"), f"expected an integer >= 0, got {describe(fields['instances'])}")


def _in_words(text: str, value: object) -> str:
    """Rewrite a message of msgspec in plain words; only a numeric value is quoted."""
    words = re.sub(
        r"`([^`]*)`", lambda kinds: re.sub(r"\w+", lambda kind: _WORDS.get(kind[0], kind[0]), kinds[1]), text
    )
    words = words.replace(" | ", " or ").replace("Expected", "expected").replace(" or null", "")
    if isinstance(value, (int, float)):
        expected = words.partition(", got")[0]
        return f"{expected}, got {kind_of(value) if 'string' in expected else describe(value)}"
    return words


def _as_mapping(struct: msgspec.Struct) -> dict[str, Any]:
    return {
        name: _as_mapping(value) if isinstance(value, msgspec.Struct) else value
        for name, value in msgspec.structs.asdict(struct).items()
    }


def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
