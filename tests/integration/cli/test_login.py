"""``login``: a browser, a real authorization server, and what the other verbs do afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.authorization import ProtectedServer
from support.processes import HttpServerProcess, unused_port
from support.terminal import COMMAND, Terminal

from mcp_manager.cli import main
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.cli.grants import stored_in

# A browser whose user agrees to everything: it follows redirects until one leads back to the client.
BROWSER = f"{sys.executable} -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()' %s"


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServerProcess]:
    """The authorization server of the official SDK with a server that it protects."""
    with HttpServerProcess("authorizing_sdk.py") as process:
        yield process


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "BROWSER": BROWSER}


def write(folder: Path, url: str, **auth: object) -> str:
    path = folder / "fleet.json"
    settings = {"type": "oauth", "redirect_uri": f"http://127.0.0.1:{unused_port()}/callback", **auth}
    path.write_text(json.dumps({"servers": {"tracker": {"url": url, "auth": settings}}}), encoding="utf-8")
    return str(path)


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.slow
def test_a_login_serves_the_other_verbs(server: HttpServerProcess, environment: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path, server.url)
    before = run(environment, "tools", path)
    assert before.returncode == 1
    assert "run mcp-manager login" in before.stderr
    findings = json.loads(run(environment, "doctor", path, "--json").stdout)["findings"]
    assert [each["advice"] for each in findings] == [f"mcp-manager login {path} tracker"]

    done = run(environment, "login", path)
    assert (done.returncode, done.stdout.partition(";")[0]) == (0, "logged in to tracker"), done.stderr
    said, page = done.stderr.splitlines()
    assert said == "mcp-manager: to log in to tracker, open this page:"
    assert page.startswith(server.url.removesuffix("/mcp"))

    folder = tmp_path / "state" / "mcp-manager" / "authorizations"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}

    after = run(environment, "tools", path)
    assert (after.returncode, after.stderr) == (0, ""), after.stderr
    assert "echo" in after.stdout
    again = run(environment, "login", path, "tracker", "--json")
    assert (again.stderr, json.loads(again.stdout)["logged_in"]) == ("", False)


@pytest.mark.slow
def test_without_a_browser_the_page_is_named(
    server: HttpServerProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path, server.url)
    command = [*COMMAND, "login", path, "--no-browser"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as login:
        assert login.stderr is not None
        assert login.stderr.readline() == "mcp-manager: to log in to tracker, open this page:\n"
        urllib.request.urlopen(login.stderr.readline().strip(), timeout=10).close()
        out, errors = login.communicate(timeout=30)
    assert (login.returncode, errors) == (0, "")
    assert out.startswith("logged in to tracker")


@pytest.mark.slow
def test_a_browser_on_another_machine_is_served_by_pasting(
    server: HttpServerProcess, environment: dict[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path, server.url)
    with Terminal([*COMMAND, "login", path, "--no-browser"], 300, environment=environment) as terminal:
        # Both lines come at once, in any order.
        there = server.url.removesuffix("/mcp")
        terminal.wait_until(lambda it: "paste here" in it.text and any(line.startswith(there) for line in it.display))
        (page,) = [line for line in terminal.display if line.startswith(there)]
        redirected = urllib.request.build_opener(Stop).open(page, timeout=10).headers["Location"]
        terminal.type("something else\n")
        terminal.type(f"{redirected}\n")
        assert terminal.finish() == 0
        assert "logged in to tracker" in terminal.text


class Stop(urllib.request.HTTPRedirectHandler):
    """A browser that cannot reach the client."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        return fp


REFUSING = """
import sys
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

query = parse_qs(urlsplit(sys.argv[1]).query)
urlopen(f"{query['redirect_uri'][0]}?error=access_denied&state={query['state'][0]}").read()
"""


def test_a_user_who_refuses_is_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "browser.py"
    program.write_text(REFUSING, encoding="utf-8")
    environment = {**environment, "BROWSER": f"{sys.executable} {program} %s"}
    with ProtectedServer(metadata={"authorization_response_iss_parameter_supported": None}) as protected:
        done = run(environment, "login", write(tmp_path, protected.url), "--json")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["type"], error["server_id"]) == (1, "AuthError", "tracker")
    assert "access_denied" in error["message"]


@pytest.mark.slow
def test_a_url_is_logged_in_to_as_it_is(server: HttpServerProcess, environment: dict[str, str]) -> None:
    # The usual port for the redirect is in use: another one serves.
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", 33418)))
        done = run(environment, "login", server.url)
    assert done.returncode == 0, done.stderr
    after = run(environment, "tools", server.url)
    assert (after.returncode, after.stderr) == (0, ""), after.stderr


def test_who_names_a_url_is_told_to_log_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with ProtectedServer() as protected:
        for arguments in (["tools", protected.url], ["call", protected.url, "echo"], ["call", protected.url, "ping"]):
            assert main([*arguments, "--json"]) == 1
            told = json.loads(capsys.readouterr().out)
            error = (told[0] if isinstance(told, list) else told)["error"]
            assert error["hint"].startswith(f"run mcp-manager login {protected.url}")


def test_what_needs_no_login_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fleet.json"
    machine = {"type": "oauth", "grant": "client_credentials", "client_id": "a", "client_secret": "b"}
    servers = {
        "program": stdio_server_config(),
        "open": {"url": "http://h/mcp"},
        "machine": {"url": "http://h/mcp", "auth": machine},
    }
    path.write_text(json.dumps({"servers": servers}), encoding="utf-8")
    for name, why in (("program", "a program"), ("open", 'auth.type is "none"'), ("machine", "asks no user")):
        assert main(["login", str(path), name]) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith(f"no login to {name} is needed: ")
        assert why in shown.out


@pytest.mark.parametrize(
    ("given", "base"), [("/somewhere", "/somewhere"), ("relative", "HOME/.local/state"), ("", "HOME/.local/state")]
)
def test_where_logins_are_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, base: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", given)
    assert str(stored_in()) == f"{base.replace('HOME', str(tmp_path))}/mcp-manager/authorizations"
