"""The verb that serves the fleet at one address: the gateway as a program."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Final

import click
import msgspec

from mcp_manager.cli.demo_servers.processes import HttpServerProcess, stdio_server_config
from mcp_manager.cli.options import CommandLine, Options
from mcp_manager.cli.program import FAILED
from mcp_manager.cli.screen import print_json
from mcp_manager.cli.source import Fleet, file_of, load
from mcp_manager.config import ServeConfig
from mcp_manager.config._problem import FieldProblem
from mcp_manager.config.access import ClientAuthConfig
from mcp_manager.config.gateway_tables import serve_config_of
from mcp_manager.config.listen_address import parse_listen_address
from mcp_manager.config.load import load_fleet_mapping
from mcp_manager.gateway.http.descriptors import raise_limit
from mcp_manager.gateway.http.listener import Listener
from mcp_manager.gateway.security.principal import EVERYBODY
from mcp_manager.gateway.security.rules import Rules
from mcp_manager.gateway.security.token_issuers import names_of_issuers
from mcp_manager.gateway.workers.assignment import inherited
from mcp_manager.gateway.workers.parent import Parent, WorkersConfig

__all__ = ["run"]

_DEMO: Final = "the demo"
_MOST_SHOWN: Final = 20
_PARTS: Final = {"url": "API", "ui": "page"}
_HEADERS: Final = {
    "api_key": "Authorization: Bearer KEY",
    "jwt": "Authorization: Bearer TOKEN",
    "introspection": "Authorization: Bearer TOKEN",
}


async def run(options: Options) -> int:
    """Serve until a signal comes, or the input of ``--stdio`` ends; return 0 if no call was cut short, else 1."""
    _check(options)
    try:
        told = inherited()
    except EOFError:
        # The parent is gone, and nobody reads what this process says.
        return FAILED
    raise_limit()
    if told is not None:
        # The parent has read the same file, and told its warnings.
        logging.getLogger("mcp_manager.config").setLevel(logging.ERROR)
    async with _fleet(options) as (fleet, worker_options):
        serve = _configured(fleet, options)
        if options.watch and serve.workers > 1:
            raise click.UsageError("--watch needs a single worker: drop it, and send SIGHUP after a change")
        if told is None and serve.workers > 1 and not options.stdio:
            return await _run_workers(serve, lambda url, admin: _tell(url, fleet, options, admin), worker_options)
        from mcp_manager.cli.gateway_service import service_of  # noqa: PLC0415 - the parent of workers stays small

        gateway, service = service_of(fleet, serve, options, told)

        def tell() -> None:
            if told is None:
                _tell(gateway.url, fleet, options, "" if gateway.admin is None else gateway.admin.url)

        return await service.run(tell)


def _check(options: Options) -> None:
    """Refuse what does not go together."""
    if options.demo == (options.config is not None):
        raise click.UsageError(
            "give CONFIG, or --demo" if options.config is None else "give CONFIG or --demo, not both"
        )
    if options.stdio and options.watch:
        raise click.UsageError("--watch does not work with --stdio: drop it, and send SIGHUP after a change")
    if options.watch and (options.demo or file_of(options) is None):
        raise click.UsageError("--watch needs a file")
    if options.stdio and (options.listen is not None or options.workers is not None):
        raise click.UsageError("--listen and --workers do not work with --stdio: drop them")


def _configured(fleet: Fleet, options: Options) -> ServeConfig:
    """Return the configuration of the gateway, with what the options say."""
    serve = fleet.serve or ServeConfig()
    if options.listen is not None:
        try:
            parse_listen_address(options.listen, "--listen")
        except FieldProblem as problem:
            raise click.UsageError(str(problem)) from None
        serve = msgspec.structs.replace(serve, listen=options.listen)
    if options.workers is not None:
        serve = msgspec.structs.replace(serve, workers=options.workers)
    return serve_config_of(serve)


@contextlib.asynccontextmanager
async def _fleet(options: Options) -> AsyncIterator[tuple[Fleet, Options]]:
    """Provide the fleet that the command line names, or that of the demo; and the options for workers."""
    if not options.demo:
        yield await load(options), options
        return
    http = HttpServerProcess()
    try:
        await http.start()
        servers = {"web": {"url": http.url}, "local": stdio_server_config()}
        serve = {} if options.stdio else {"admin": {"token": token_urlsafe(32)}}
        tables = {"servers": servers, "serve": serve}
        fleet = Fleet(load_fleet_mapping(tables), _DEMO, options.words)
        with _written(tables, options) as worker_options:
            yield fleet, worker_options
    finally:
        await http.aclose()


@contextlib.contextmanager
def _written(tables: dict[str, Any], options: Options) -> Iterator[Options]:
    """Write what the demo has made up for its workers, if there are any: all have the same servers and token."""
    if options.workers in (None, 1):
        yield options
        return
    # Only its owner may read the directory.
    with tempfile.TemporaryDirectory(prefix="mcp-manager-") as directory:
        file = Path(directory) / "demo.json"
        file.write_text(json.dumps(tables), encoding="utf-8")
        yield dataclasses.replace(options, demo=False, config=str(file))


async def _run_workers(serve: ServeConfig, tell_places: Callable[[str, str], None], options: Options) -> int:
    """Let several processes serve the address, each with the same command line.

    Parameters
    ----------
    serve
        How the fleet is served.
    tell_places
        Is given the URL of the gateway and that of its admin API, once all serve.
    options
        The options of a worker.
    """
    listener = Listener(serve)
    address = listener.for_workers()
    host = str(listener.address).rpartition(":")[0]

    def tell(port: int) -> None:
        scheme = "http" if serve.cert_file is None else "https"
        url = f"{scheme}://{host}:{port}" if isinstance(address, tuple) else listener.url
        tell_places(url, _admin_url(serve, url, scheme))

    config = WorkersConfig(
        command=[sys.executable, "-P", "-m", "mcp_manager", *_arguments(options)],
        count=serve.workers,
        address=address,
        session_keys=serve.session_keys,
        drain_timeout_s=serve.drain_timeout_s,
    )
    try:
        return await Parent(config, tell).run()
    except OSError as error:
        raise listener.refused(error) from None
    finally:
        await listener.close()


def _admin_url(serve: ServeConfig, url: str, scheme: str) -> str:
    """Return where workers serve the admin API; "" if nowhere, or where only they know."""
    if serve.admin is None or serve.admin.listen is None:
        return "" if serve.admin is None else url
    address = parse_listen_address(serve.admin.listen)
    if address.socket_path:
        return str(address)
    return f"{scheme}://{address}" if address.port else ""


def _arguments(options: Options) -> list[str]:
    """Return the arguments of a worker."""
    given = ["serve", "--quiet", "--log-format", options.log_format]
    for name, value in (("--listen", options.listen), ("--log-level", options.log_level)):
        given += [] if value is None else [name, value]
    return [*given, *_source(options, str(options.config))]


def _source(options: Options, config: str) -> list[str]:
    """Return the arguments that name the fleet."""
    given = [word for each in options.environment for word in ("--env", each)]
    given += ["--lenient"] if options.lenient else []
    if options.demo:
        return [*given, "--demo"]
    if isinstance(options.config, CommandLine):
        return [*given, "--", *options.config.argv]
    return [*given, config]


def _tell(url: str, fleet: Fleet, options: Options, admin_url: str = "") -> None:
    """Print what is served, and how a client connects; on standard error if the output is that of a program."""
    if options.stdio:
        return
    is_unix = url.startswith("unix:")
    root = "http://localhost" if is_unix else url
    places = {
        "url": f"{root}/mcp",
        "views": {name: f"{root}/mcp/{name}" for name in fleet.views},
        "servers": {name: f"{root}/servers/{name}/mcp" for name in fleet.servers},
    }
    if admin_url:
        places["admin"] = _of_admin(admin_url, fleet, options)
    if is_unix:
        places["unix_socket"] = url.removeprefix("unix:")
    auth = (fleet.serve or ServeConfig()).auth
    if auth.type != "none":
        places["authentication"] = {"type": auth.type, "header": _HEADERS[auth.type]}
    if options.json:
        print_json(places, indent=None)
    elif not options.quiet:
        is_started = not options.environment and _is_for_stdio(fleet.serve)
        print("\n".join(_lines(places, options, _how_to_authenticate(auth), is_started=is_started)))
    sys.stdout.flush()


def _of_admin(url: str, fleet: Fleet, options: Options) -> dict[str, str]:
    """Return where the admin API and its page are; the link of the demo has the token, which nobody else knows."""
    root = "http://localhost" if url.startswith("unix:") else url
    admin = None if fleet.serve is None else fleet.serve.admin
    found = {"url": f"{root}/api/v1"}
    if admin is not None and admin.ui:
        found["ui"] = f"{root}/ui#token={admin.token}" if options.demo else f"{root}/ui"
    return found


def _how_to_authenticate(auth: ClientAuthConfig) -> list[str]:
    """Return the lines that say what clients send, without secrets; none if they need no credentials."""
    if auth.type == "none":
        return []
    issuers = names_of_issuers(auth)
    issuer = f", a token of {' or '.join(issuers[:_MOST_SHOWN])}" if issuers else ""
    lines = ["", f"clients authenticate with: {_HEADERS[auth.type]}{issuer}"]
    if issuers:
        lines.append("  clients that support OAuth get one by themselves")
    if auth.keys_file:
        lines.append(f"  to make a key: mcp-manager key new NAME --file {auth.keys_file}")
    return lines


def _is_for_stdio(serve: ServeConfig | None) -> bool:
    """Return whether a client that starts this program could use anything: nobody authenticates there."""
    grant = Rules(() if serve is None else serve.allow).grant_of(EVERYBODY)
    return grant is None or grant.sees_fleet()


def _lines(places: dict[str, Any], options: Options, authentication: list[str], *, is_started: bool) -> list[str]:
    """Return what is printed; with ``is_started``, how a client starts this program too."""
    count = len(places["servers"])
    shown = f" (at the unix socket {places['unix_socket']})" if "unix_socket" in places else ""
    lines = [f"serving {count} server{'' if count == 1 else 's'} at {places['url']}{shown}"]
    for kind in ("views", "servers"):
        named = list(places[kind].items())
        lines += [f"  {kind.removesuffix('s')} {name}: {url}" for name, url in named[:_MOST_SHOWN]]
        if len(named) > _MOST_SHOWN:
            lines.append(f"  and {len(named) - _MOST_SHOWN} more {kind}")
    if "admin" in places:
        lines += [f"  admin {_PARTS[name]}: {place}" for name, place in places["admin"].items()]
    lines += [*authentication, "", "to connect a client:"]
    if not shown:
        at: dict[str, Any] = {"url": places["url"]}
        shown_key = ""
        # With a token of an authorization server, these clients need nothing more.
        if places.get("authentication", {}).get("type") == "api_key":
            name, value = _HEADERS["api_key"].split(": ")
            at = {**at, "headers": {name: value}}
            shown_key = f' --header "{name}: {value}"'
        lines += [
            f"  Claude Code: claude mcp add --transport http fleet {places['url']}{shown_key}",
            f"  VS Code, in .vscode/mcp.json: {json.dumps({'servers': {'fleet': {'type': 'http', **at}}})}",
            f"  Cursor, in .cursor/mcp.json: {json.dumps({'mcpServers': {'fleet': at}})}",
        ]
    # Values of variables are not for the screen.
    if is_started:
        started = {"mcpServers": {"fleet": _command(options)}}
        lines.append(f"  Claude Desktop, in claude_desktop_config.json: {json.dumps(started)}")
    return [*lines, "more: mcp-manager help gateway; Ctrl-C stops it"]


def _command(options: Options) -> dict[str, Any]:
    """Return what a client starts in place of this program; it may do so in any directory, and with another PATH."""
    program = shutil.which(sys.argv[0])
    is_own = program is not None and os.path.basename(program).startswith("mcp-manager")
    command = [os.path.abspath(program)] if is_own and program else [sys.executable, "-P", "-m", "mcp_manager"]
    file = file_of(options)
    source = _source(options, str(options.config) if file is None else os.path.abspath(file))
    return {"command": command[0], "args": [*command[1:], "serve", "--stdio", *source]}
