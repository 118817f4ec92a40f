"""The ``server.json`` of the MCP registry: a package becomes the command that runs it, a remote becomes a URL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mcp_manager.config._plain import describe
from mcp_manager.config._problem import FieldProblem, join, shown

__all__ = ["as_server"]

_RUNNERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "npm": ("npx", ("-y",)),
    "pypi": ("uvx", ()),
    "oci": ("docker", ("run", "-i", "--rm")),
    "docker": ("docker", ("run", "-i", "--rm")),
    "nuget": ("dnx", ("--yes",)),
}
"""The program that runs a package, and its first arguments, by the kind of the package."""
_VARIABLE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def as_server(settings: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the fields of a server: of its first package that can be run, else of its first remote.

    Raises
    ------
    FieldProblem
        It has neither, or something in them is malformed.
    """
    packages = _objects(settings, "packages", path)
    for index, package in enumerate(packages):
        kind = package.get("registryType", package.get("registry_type", package.get("registry_name")))
        if kind in _RUNNERS and _transport(package) == "stdio":
            return _command(package, str(kind), f"{join(path, 'packages')}[{index}]")
    for index, remote in enumerate(_objects(settings, "remotes", path)):
        return _remote(remote, f"{join(path, 'remotes')}[{index}]")
    kinds = ", ".join(sorted({shown(str(each.get("registryType"))) for each in packages})) or "no package"
    raise FieldProblem(path, f"has no remote, and no package that can be run ({kinds})", "give a command")


def _command(package: Mapping[str, Any], kind: str, path: str) -> dict[str, Any]:
    runner, first = _RUNNERS[kind]
    identifier = package.get("identifier", package.get("name"))
    if not isinstance(identifier, str) or not identifier:
        raise FieldProblem(join(path, "identifier"), "missing", "it names the package")
    hint = package.get("runtimeHint", package.get("runtime_hint"))
    command = hint if isinstance(hint, str) and hint else runner
    variables = list(_inputs(package, ("environmentVariables", "environment_variables"), path))
    env = {name: text for name, text in variables if text is not None}
    runtime = list(_arguments(package, ("runtimeArguments", "runtime_arguments"), path))
    args = [*(first if command == runner or not runtime else ()), *(each for each in runtime if each not in first)]
    if runner == "docker":
        # The program in the container gets only the variables that are named to docker.
        for name, _ in variables:
            args += ["-e", name]
    args += [_versioned(identifier, package.get("version"), kind)]
    args += _arguments(package, ("packageArguments", "package_arguments"), path)
    optional = [name for name, text in variables if text is None]
    return {"command": command, "args": args, "env": env, "inherit_env": optional}


def _versioned(identifier: str, version: object, kind: str) -> str:
    if not isinstance(version, str) or not version or version == "latest":
        return identifier
    if kind in ("oci", "docker"):
        return identifier if ":" in identifier.rpartition("/")[2] or "@" in identifier else f"{identifier}:{version}"
    return f"{identifier}@{version}" if kind != "pypi" else f"{identifier}=={version}"


def _remote(remote: Mapping[str, Any], path: str) -> dict[str, Any]:
    url = remote.get("url")
    if not isinstance(url, str):
        raise FieldProblem(join(path, "url"), "missing" if url is None else f"expected a string, got {describe(url)}")
    headers = {name: text for name, text in _inputs(remote, ("headers",), path) if text is not None}
    return {
        "url": _filled(url, remote.get("variables"), path),
        "transport": _transport(remote),
        "headers": headers,
    }


def _transport(holder: Mapping[str, Any]) -> str:
    """Return the transport of a package, or of a remote, which names it as a text."""
    kind: Any = holder.get("transport", holder.get("type", holder.get("transport_type", "stdio")))
    kind = kind.get("type", "stdio") if isinstance(kind, dict) else kind
    return str(kind)


def _inputs(holder: Mapping[str, Any], names: tuple[str, ...], path: str) -> Iterator[tuple[str, str | None]]:
    """Yield name and value of each variable or header; ``None`` for one that may be left out."""
    for field in names:
        for index, each in enumerate(_objects(holder, field, path)):
            name = each.get("name")
            where = f"{join(path, field)}[{index}]"
            if not isinstance(name, str) or not name:
                raise FieldProblem(join(where, "name"), "missing")
            yield name, _value(each, name, where)


def _value(given: Mapping[str, Any], name: str, where: str) -> str | None:
    """Return what an input is: its value, or the environment variable of its name, with its default."""
    value = given.get("value")
    if isinstance(value, str):
        return _filled(value, given.get("variables"), where)
    default = given.get("default")
    variable = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
    variable = variable if name.replace("_", "a").isalnum() else variable.upper()
    if isinstance(default, str | int | float) and not isinstance(default, bool):
        return f"${{{variable}:-{default}}}"
    if given.get("isRequired", given.get("is_required")):
        return f"${{{variable}}}"
    return None


def _arguments(package: Mapping[str, Any], names: tuple[str, ...], path: str) -> Iterator[str]:
    for field in names:
        for index, each in enumerate(_objects(package, field, path)):
            where = f"{join(path, field)}[{index}]"
            name = each.get("name") if each.get("type") == "named" else None
            hint = each.get("valueHint", each.get("value_hint", name))
            value = _value(each, str(hint or f"argument_{index + 1}").lstrip("-"), where)
            has_value = any(each.get(key) is not None for key in ("value", "default", "isRequired"))
            if isinstance(name, str) and (value is not None or not has_value):
                yield name
            if value is not None:
                yield value


def _filled(text: str, variables: object, path: str) -> str:
    """Replace ``{name}`` by the environment variable of that name, with its default."""
    known = variables if isinstance(variables, dict) else {}

    def replacement(found: re.Match[str]) -> str:
        if found[1] not in known:
            return found[0]
        given = known[found[1]]
        value = _value(given if isinstance(given, dict) else {}, found[1], path)
        return f"${{{found[1]}}}" if value is None else value

    return _VARIABLE.sub(replacement, text)


def _objects(holder: Mapping[str, Any], name: str, path: str) -> list[dict[str, Any]]:
    value = holder.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise FieldProblem(join(path, name), f"expected an array of objects, got {describe(value)}")
    return value
