"""The verb that obtains an authorization from a user, in the browser."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import click
import msgspec

from mcp_manager.auth.redirect import LoopbackRedirect
from mcp_manager.cli.grants import manager_of, stored_in, with_oauth
from mcp_manager.cli.options import Options
from mcp_manager.cli.screen import complain, one_line, print_json
from mcp_manager.cli.source import Fleet, is_url, lazy, load, only
from mcp_manager.config import ManagerConfig, ServerConfig

__all__ = ["run"]

_LONGEST_URL: Final = 65_536


async def run(options: Options) -> int:
    """Log in to a server; return 0, also if that was not needed."""
    fleet = await load(options)
    server_id = _chosen(fleet)
    server = only(fleet.config, server_id).servers[server_id]
    if is_url(fleet.place):
        server = _with_free_port(with_oauth(server))
    if server.auth.type != "oauth" or server.auth.grant != "authorization_code":
        _tell(options, server_id, needed=False, why=_why_not(server))
        return 0
    asked = False

    def show(url: str) -> None:
        nonlocal asked
        asked = True
        complain(f"to log in to {server_id}, open this page:")
        # On a line of its own and never wrapped, so that it can be copied.
        print(one_line(url), file=sys.stderr, flush=True)
        if options.browser:
            # A browser without windows runs until its user closes it.
            threading.Thread(target=_browse, args=(url,), daemon=True).start()

    async def ask(url: str) -> str:
        if options.browser:
            return await LoopbackRedirect(show)(url)
        return await _redirected_or_pasted(url, show)

    # A call may have to wait for the user.
    patient = msgspec.structs.replace(
        server,
        connect_timeout_s=max(server.connect_timeout_s, server.auth.authorization_timeout_s),
        request_timeout_s=max(server.request_timeout_s, server.auth.authorization_timeout_s),
    )
    config = lazy(ManagerConfig(servers={server_id: patient}))
    async with manager_of(config, ask) as manager:
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
    which = f"one of {', '.join(using)}" if using else f'no server in {fleet.shown} has auth.type = "oauth"'
    raise click.UsageError(f"missing argument SERVER: {which}")


def _with_free_port(server: ServerConfig) -> ServerConfig:
    """Return a configuration whose redirect comes to another port, if the usual one is in use."""
    usual = urlsplit(server.auth.redirect_uri)
    try:
        with socket.create_server(("127.0.0.1", usual.port or 80)):
            return server
    except OSError:
        with socket.create_server(("127.0.0.1", 0)) as free:
            there = usual._replace(netloc=f"127.0.0.1:{free.getsockname()[1]}").geturl()
    return msgspec.structs.replace(server, auth=msgspec.structs.replace(server.auth, redirect_uri=there))


async def _redirected_or_pasted(url: str, show: Callable[[str], object]) -> str:
    """Show the page, and return the URL that a browser on this machine is redirected to, or that the user pastes."""
    shown = asyncio.Event()

    def show_and_tell(url: str) -> None:
        show(url)
        shown.set()

    async def redirected() -> str:
        try:
            # Shows the page once it listens: a browser may be quick.
            return await LoopbackRedirect(show_and_tell)(url)
        except OSError:
            # Nothing can listen here. The address can still be pasted.
            if not shown.is_set():
                show_and_tell(url)
            raise

    async def pasted() -> str:
        await shown.wait()
        return await _pasted(url)

    return await _first_of(redirected(), pasted())


async def _first_of(*ways: Coroutine[Any, Any, str]) -> str:
    """Return the result of the first way that has one, and end the others; if all fail, raise the first failure."""
    tasks = [asyncio.get_running_loop().create_task(way) for way in ways]
    try:
        for ended in asyncio.as_completed(tasks):
            with contextlib.suppress(OSError):
                return await ended
        return await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pasted(url: str) -> str:
    """Return the URL that the user pastes: a browser on another machine cannot reach this one.

    Raises
    ------
    OSError
        Standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise OSError("standard input is no terminal")
    complain("if that browser is on another machine, paste here the address of the page that it could not load")
    back = parse_qs(urlsplit(url).query).get("redirect_uri", [""])[0]
    loop, typed = asyncio.get_running_loop(), sys.stdin.fileno()
    found: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        line = os.read(typed, _LONGEST_URL).decode("utf-8", "replace").strip()
        if line.startswith(back) and not found.done():
            found.set_result(line)
        elif not line:
            # The user has ended the input.
            loop.remove_reader(typed)

    loop.add_reader(typed, read)
    try:
        return await found
    finally:
        loop.remove_reader(typed)


def _browse(url: str) -> None:
    if not webbrowser.open(url):
        complain("no browser could be opened here: open the page elsewhere on this machine")


def _why_not(server: ServerConfig) -> str:
    if server.transport == "stdio":
        return "it is a program"
    if server.auth.type == "oauth":
        return f'auth.grant = "{server.auth.grant}" asks no user'
    return f'auth.type is "{server.auth.type}"; set it to "oauth" if the server wants that'


def _tell(options: Options, server_id: str, *, needed: bool, why: str) -> None:
    if options.json:
        print_json({"server_id": server_id, "logged_in": needed, "why": why, "stored_in": str(stored_in())})
    elif needed:
        print(f"logged in to {server_id}; the authorization is stored in {stored_in()}")
    else:
        print(f"no login to {server_id} is needed: {why}")
