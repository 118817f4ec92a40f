"""The verb that obtains an authorization from a user, in the browser."""

from __future__ import annotations

import threading
import webbrowser

import click
import msgspec

from mcp_manager.auth.redirect import LoopbackRedirect
from mcp_manager.cli.grants import manager_of, stored_in, with_oauth
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, print_json
from mcp_manager.cli.source import Fleet, is_url, lazy, load, only
from mcp_manager.config import ManagerConfig, ServerConfig

__all__ = ["run"]


async def run(options: Options) -> int:
    """Log in to a server; return 0, also if that was not needed."""
    fleet = await load(options)
    server_id = _chosen(fleet)
    server = only(fleet.config, server_id).servers[server_id]
    if is_url(fleet.place):
        server = with_oauth(server)
    if server.auth.type != "oauth" or server.auth.grant != "authorization_code":
        _tell(options, server_id, needed=False, why=_why_not(server))
        return 0
    asked = False

    def show(url: str) -> None:
        nonlocal asked
        asked = True
        complain(f"to log in to {server_id}, open this page: {url}")
        if options.browser:
            # A browser without windows runs until its user closes it.
            threading.Thread(target=_browse, args=(url,), daemon=True).start()

    # A call may have to wait for the user.
    patient = msgspec.structs.replace(
        server,
        connect_timeout_s=max(server.connect_timeout_s, server.auth.authorization_timeout_s),
        request_timeout_s=max(server.request_timeout_s, server.auth.authorization_timeout_s),
    )
    config = lazy(ManagerConfig(servers={server_id: patient}))
    async with manager_of(config, LoopbackRedirect(show)) as manager:
        await manager.list_tools(server_id)
    _tell(options, server_id, needed=asked, why="" if asked else "it already answers")
    return 0


def _chosen(fleet: Fleet) -> str:
    """Return the server that is named, or the only one that uses OAuth."""
    server_id = fleet.chosen()
    if server_id is not None:
        return server_id
    using = [name for name, server in fleet.servers.items() if server.auth.type == "oauth"]
    if len(using) == 1:
        return using[0]
    which = f"one of {', '.join(using)}" if using else 'no server has auth.type = "oauth"'
    raise click.UsageError(f"missing argument SERVER: {which}")


def _browse(url: str) -> None:
    if not webbrowser.open(url):
        complain("no browser could be opened here: open the page elsewhere on this machine")


def _why_not(server: ServerConfig) -> str:
    if server.transport == "stdio":
        return "a program is not logged in to"
    if server.auth.type == "oauth":
        return f'auth.grant = "{server.auth.grant}" asks no user'
    return f'auth.type is "{server.auth.type}"; set it to "oauth" if the server wants that'


def _tell(options: Options, server_id: str, *, needed: bool, why: str) -> None:
    if options.json:
        print_json({"server": server_id, "logged_in": needed, "why": why, "stored_in": str(stored_in())})
    elif needed:
        print(f"logged in to {server_id}; the authorization is stored in {stored_in()}")
    else:
        print(f"no login to {server_id} is needed: {why}")
