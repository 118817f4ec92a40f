"""``serve`` as a program: what it says, what its signals do, and how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.orphans import no_orphans
from support.terminal import COMMAND

from mcp_manager.cli import main
from mcp_manager.cli.demo_servers.processes import stdio_server_config
from mcp_manager.cli.options import CommandLine, Options
from mcp_manager.cli.serve import _admin_url, _fleet, _tell
from mcp_manager.cli.source import Fleet
from mcp_manager.config.gateway_tables import serve_config_of
from mcp_manager.config.load import load_fleet_file, load_fleet_mapping

ASLEEP = {"url": "http://127.0.0.1:9/mcp", "instances": 0}
FIELDS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": "2026-07-28",
}
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def write(path: Path, **tables: Any) -> None:
    """Replace a file in one step."""
    path.with_suffix(".part").write_text(json.dumps(tables), encoding="utf-8")
    path.with_suffix(".part").replace(path)


def posted(url: str, method: str, params: dict[str, Any], **fields: str) -> Any:
    """The response to a request of 2026-07-28."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
    headers = {**FIELDS, "Mcp-Method": method, **fields}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run the program, and read where it serves."""
    command = [*COMMAND, "serve", *arguments, "--json"]
    with no_orphans(), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()


def test_it_serves_reads_its_file_again_and_ends_in_order(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    serve = {"listen": "127.0.0.1:0", "session_keys": ["never shown, neither here nor there: 0123456789"]}
    write(path, servers={"one": stdio_server_config()}, serve=serve, views={"few": {"servers": ["one"]}})
    with serving(str(path)) as (process, places):
        assert process.stderr is not None
        url = places["url"]
        root = url.removesuffix("/mcp")
        assert places["views"] == {"few": f"{root}/mcp/few"}
        assert places["servers"] == {"one": f"{root}/servers/one/mcp"}
        listed = posted(places["views"]["few"], "tools/list", {})
        assert "one__add" in [tool["name"] for tool in listed["result"]["tools"]]

        # A bad file changes nothing, and is told.
        write(path, servers={"one": {"url": 5}}, serve=serve)
        process.send_signal(signal.SIGHUP)
        said = process.stderr.readline()
        assert "the configuration was not applied" in said
        assert "servers.one.url" in said

        # A good one is applied, views included. What needs a new start is told.
        changed = {
            **serve,
            "resume": {"keep_s": 7.0},
            "limits": [{"rate": 100.0}],
            "audit": {"path": str(tmp_path / "audit")},
        }
        write(path, servers={"one": stdio_server_config(), "two": ASLEEP}, serve=changed)
        process.send_signal(signal.SIGHUP)
        assert "restart the gateway to apply the changes in serve: resume\n" in process.stderr.readline()
        assert (tmp_path / "audit").exists()
        with pytest.raises(urllib.error.HTTPError) as refused:
            posted(places["views"]["few"], "tools/list", {})
        with refused.value as response:
            assert response.code == 404

        # A call under way ends before the program does.
        replies: list[Any] = []

        def call() -> None:
            params = {"name": "sleep", "arguments": {"seconds": 0.6}}
            replies.append(posted(places["servers"]["one"], "tools/call", params, **{"Mcp-Name": "sleep"}))

        calling = threading.Thread(target=call)
        calling.start()
        while "mcp_gateway_active_requests 1.0" not in _page(f"{root}/metrics"):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        calling.join(20)
        assert replies[0]["result"]["content"][0]["text"] == "slept 0.6 s"
        assert "never shown" not in process.stderr.read()


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:
        return str(response.read().decode())


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    write(path, servers={"one": stdio_server_config()}, serve={"listen": "127.0.0.1:0"})
    with serving(str(path)) as (process, places):
        root = places["url"].removesuffix("/mcp")
        failures: list[object] = []

        def call() -> None:
            params = {"name": "sleep", "arguments": {"seconds": 60}}
            try:
                posted(places["servers"]["one"], "tools/call", params, **{"Mcp-Name": "sleep"})
            except urllib.error.HTTPError as error:
                with error:
                    failures.append(json.load(error)["error"]["data"])

        calling = threading.Thread(target=call)
        calling.start()
        while "mcp_gateway_active_requests 1.0" not in _page(f"{root}/metrics"):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "requests still running: 1; the gateway waits up to 30 s" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 1
        calling.join(20)
        assert failures == [{"source": "gateway", "delivery": "unknown"}]


@pytest.mark.slow
def test_a_file_that_changes_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    write(path, servers={"one": ASLEEP}, serve={"listen": "127.0.0.1:0"})
    with serving(str(path), "--watch") as (process, places):
        root = places["url"].removesuffix("/mcp")
        write(
            path,
            servers={"one": ASLEEP, "two": stdio_server_config()},
            serve={"listen": "127.0.0.1:0"},
            views={"v": {}},
        )
        while status_of(f"{root}/ready") != 200 or "two" not in _page(f"{root}/"):
            pass
        while "/mcp/v" not in _page(f"{root}/"):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.slow
def test_the_demo_is_served() -> None:
    with serving("--demo", "--listen", "127.0.0.1:0") as (process, places):
        assert places["servers"].keys() == {"web", "local"}
        # Nothing is under way, so that the second one cuts nothing short.
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "cancelled" not in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give CONFIG, or --demo"),
        (("fleet.toml", "--demo"), "give CONFIG or --demo, not both"),
        (("--demo", "--stdio", "--listen", "127.0.0.1:0"), "--listen and --workers do not work with --stdio"),
        (("--demo", "--stdio", "--watch"), "--watch does not work with --stdio"),
        (("--demo", "--watch"), "--watch needs a file"),
        (("http://127.0.0.1:1/mcp", "--watch"), "--watch needs a file"),
        (("http://127.0.0.1:1/mcp", "--listen", "8080"), "--listen: has no port from 0 to 65535"),
        (
            ("http://127.0.0.1:1/mcp", "--listen", "0.0.0.0:0"),
            "clients on other machines would not have to authenticate",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_client_on_standard_input_without_a_rule_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fleet.json"
    auth = {"type": "api_key", "keys_file": "of-another-directory.jsonl"}
    write(path, servers={"one": ASLEEP}, serve={"auth": auth, "allow": [{"principals": ["alice"]}]})
    assert main(["serve", "--stdio", str(path)]) == 2
    assert 'add a rule with principals = ["anonymous"]' in capsys.readouterr().err


@pytest.mark.parametrize(
    "serve",
    [
        {"auth": {"type": "api_key", "keys_file": "missing.jsonl"}},
        {"pins": {"mode": "block", "path": "missing.jsonl"}},
        {"audit": {"path": "missing.jsonl/audit"}},
    ],
    ids=lambda serve: next(iter(serve)),
)
def test_a_file_that_is_missing_is_named_with_its_directory(
    serve: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "fleet.json", servers={"one": ASLEEP}, serve={"listen": "127.0.0.1:0", **serve})
    assert main(["serve", "fleet.json"]) == 2
    assert str(tmp_path / "missing.jsonl") in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["--workers=2", None])
def test_several_workers_watch_no_file(workers: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fleet.json"
    write(path, servers={"one": ASLEEP}, serve={"listen": "127.0.0.1:0", "workers": 1 if workers else 2})
    assert main(["serve", str(path), "--watch", *([workers] if workers else [])]) == 2
    assert "--watch needs a single worker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("admin", "url"),
    [
        (None, ""),
        ({}, "https://h:8443"),
        ({"listen": "127.0.0.1:9090"}, "https://127.0.0.1:9090"),
        ({"listen": "[::1]:9090"}, "https://[::1]:9090"),
        ({"listen": "unix:/run/admin.sock"}, "unix:/run/admin.sock"),
        # Only the first worker knows the port.
        ({"listen": "127.0.0.1:0"}, ""),
    ],
)
def test_it_says_where_workers_serve_the_admin_api(admin: dict[str, Any] | None, url: str) -> None:
    given = None if admin is None else {"token": "a-token-of-32-characters-or-more-0", **admin}
    assert _admin_url(serve_config_of({"admin": given}), "https://h:8443", "https") == url


async def test_the_workers_of_the_demo_read_what_it_has_made_up() -> None:
    async with _fleet(Options(verb="serve", demo=True, workers=2)) as (fleet, worker_options):
        assert (worker_options.demo, worker_options.workers) == (False, 2)
        file = Path(str(worker_options.config))
        assert file.parent.stat().st_mode & 0o777 == 0o700
        read = load_fleet_file(file)
        assert fleet.serve is not None and fleet.serve.admin is not None and read.serve is not None
        assert read.serve.admin == fleet.serve.admin
        assert read.config.servers["web"].url == fleet.servers["web"].url
    assert not file.parent.exists()


def test_it_says_how_to_connect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/nowhere/mcp-manager"])
    file = load_fleet_mapping({"servers": {f"s{number}": ASLEEP for number in range(30)}})
    options = Options(verb="serve", config="fleet.toml")
    _tell("unix:/run/g.sock", Fleet(file, "fleet.toml", ()), options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "serving 30 servers at http://localhost/mcp (at the unix socket /run/g.sock)"
    assert lines[1] == "  server s0: http://localhost/servers/s0/mcp"
    assert lines[21] == "  and 10 more servers"
    # A client starts a program in a directory of its own, and does not know this one's PATH.
    started = json.loads(lines[24].partition(": ")[2])["mcpServers"]["fleet"]
    assert started == {
        "command": sys.executable,
        "args": ["-P", "-m", "mcp_manager", "serve", "--stdio", str(Path("fleet.toml").absolute())],
    }

    _tell("http://127.0.0.1:80", Fleet(load_fleet_mapping({"servers": {"a": ASLEEP}}), "fleet.toml", ()), options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "serving 1 server at http://127.0.0.1:80/mcp"
    assert "claude mcp add --transport http fleet http://127.0.0.1:80/mcp" in lines[4]
    assert '{"servers": {"fleet": {"type": "http", "url": "http://127.0.0.1:80/mcp"}}}' in lines[5]
    assert '{"mcpServers": {"fleet": {"url": "http://127.0.0.1:80/mcp"}}}' in lines[6]

    serve = {"auth": {"type": "api_key", "keys_file": "keys.jsonl"}}
    file = load_fleet_mapping({"servers": {"a": ASLEEP}, "serve": serve})
    _tell("http://127.0.0.1:80", Fleet(file, "fleet.toml", ()), options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[7].endswith('fleet http://127.0.0.1:80/mcp --header "Authorization: Bearer KEY"')
    assert '"url": "http://127.0.0.1:80/mcp", "headers": {"Authorization": "Bearer KEY"}}' in lines[8]
    assert "--stdio" in lines[10]

    # With these rules, a client that starts the program could use nothing.
    for rule, is_shown in (({"principals": ["alice"]}, False), ({"principals": ["anonymous"]}, True)):
        file = load_fleet_mapping({"servers": {"a": ASLEEP}, "serve": {**serve, "allow": [rule]}})
        _tell("http://127.0.0.1:80", Fleet(file, "fleet.toml", ()), options)
        assert ("--stdio" in capsys.readouterr().out) == is_shown


def test_it_says_how_clients_authenticate(capsys: pytest.CaptureFixture[str]) -> None:
    def told(options: Options, **auth: Any) -> str:
        file = load_fleet_mapping({"servers": {"a": ASLEEP}, "serve": {"auth": auth}})
        _tell("http://127.0.0.1:80", Fleet(file, "fleet.toml", ()), options)
        return capsys.readouterr().out

    options = Options(verb="serve", config="fleet.toml")
    keys = told(options, type="api_key", keys_file="k.jsonl")
    assert "with: Authorization: Bearer KEY\n  to make a key: mcp-manager key new NAME --file k.jsonl\n" in keys
    assert 'fleet http://127.0.0.1:80/mcp --header "Authorization: Bearer KEY"' in keys
    assert '"headers": {"Authorization": "Bearer KEY"}' in keys
    jwt = {"type": "jwt", "issuer": "https://idp.example.com", "audience": ["https://gateway.example.com"]}
    tokens = told(options, **jwt)
    assert "with: Authorization: Bearer TOKEN, a token of https://idp.example.com" in tokens
    assert "KEY" not in tokens
    shown = json.loads(told(Options(verb="serve", config="fleet.toml", json=True), **jwt))
    assert shown["authentication"] == {"type": "jwt", "header": "Authorization: Bearer TOKEN"}
    assert "authenticate" not in told(options)


def test_values_of_variables_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    source = CommandLine(("program",))
    options = Options(verb="serve", config=source, environment=("KEY=secret",))
    file = load_fleet_mapping({"servers": {"a": {"command": "program"}}})
    _tell("http://127.0.0.1:80", Fleet(file, "program", (), "a"), options)
    assert "secret" not in capsys.readouterr().out


def test_what_a_view_names_in_vain_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fleet.json"
    views = {
        "good": {"servers": ["one"], "tools": ["one__add", "one__ec*"], "rename": {"one__add": "plus"}},
        "bad": {
            "servers": ["one", "ane"],
            "tools": ["one__x*", "one__add"],
            "descriptions": {"one__echo": "not shown"},
        },
        "off": {"servers": ["off"], "tools": ["off__*"]},
    }
    servers = {"one": stdio_server_config(), "off": {**ASLEEP, "disabled": True}}
    rules = [
        {"tools": ["one__nothing", "one__add", "off__*"]},
        {"views": ["goo*", "vain*"], "servers": ["o*", "z*", "nix"]},
    ]
    rules.append({"methods": ["tools/*", "tool/call", "skills/list", "Resources/Read"]})
    write(path, servers=servers, views=views, serve={"stateful": ["tow"], "allow": rules})
    assert main(["check", str(path)]) == 0
    said = capsys.readouterr().err
    expected = [
        "serve.allow[1].servers: there is no server 'nix'",
        "serve.stateful: there is no server 'tow'",
        "views.bad.servers: there is no server 'ane'; did you mean 'one'?",
        "views.bad.tools: 'one__x*' matches no tool",
        "views.bad.descriptions: 'one__echo' matches no tool",
        "serve.allow[0].tools: 'one__nothing' matches no tool",
        "serve.allow[1].servers: 'z*' matches no server",
        "serve.allow[1].views: 'vain*' matches no view",
        "serve.allow[2].methods: 'tool/call' is no method; did you mean 'tools/call'?",
        "serve.allow[2].methods: 'Resources/Read' is no method; did you mean 'resources/read'?",
    ]
    assert said.count("warning: ") == len(expected)
    assert all(each in said for each in expected)
    assert main(["doctor", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [each["seen"] for each in found if each["severity"] == "warning"] == expected


def test_check_and_doctor_say_why_a_gateway_would_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = tmp_path / "fleet.json", tmp_path / "folder"
    folder.mkdir()
    missing = str(tmp_path / "missing" / "file")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"listen": "0.0.0.0:0"}, "clients on other machines would not have to authenticate"),
        ({"listen": f"unix:{missing}"}, "No such file or directory"),
        ({"cert_file": missing}, "serve.cert_file: cannot be read"),
        ({"auth": {"type": "api_key", "keys_file": missing}}, "the file of API keys"),
        ({"pins": {"mode": "warn", "path": missing}}, "the file of pins"),
        ({"audit": {"path": missing}}, "serve.audit.path"),
        ({"audit": {"path": str(folder)}}, "Is a directory"),
        ({"admin": {"listen": "127.0.0.1:8080", "token": "t" * 32}}, "127.0.0.1:8080 is the address of serve.listen"),
    ]
    for serve, words in wrong:
        write(path, servers={"off": {**ASLEEP, "disabled": True}}, serve=serve)
        assert main(["check", str(path)]) == 0
        said = capsys.readouterr().err
        assert said.count("warning: mcp-manager serve cannot start on this machine: ") == 1 and words in said, serve
        assert main(["doctor", str(path), "--json"]) == 1
        found = json.loads(capsys.readouterr().out)["findings"]
        errors = [each for each in found if each["severity"] == "error"]
        assert len(errors) == 1 and words in errors[0]["seen"] and errors[0]["advice"], serve
    write(path, servers={"off": {**ASLEEP, "disabled": True}}, serve={"audit": {"path": str(folder / "audit")}})
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().err.count("cannot start") == 0
    assert not (folder / "audit").exists()


@pytest.mark.slow
def test_a_socket_of_systemd_is_served(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    write(path, servers={"one": ASLEEP}, serve={"min_ready": 0})
    passed = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True); "
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])"
    )
    with no_orphans(), socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        program = [*COMMAND, "serve", str(path), "--listen", "systemd", "--json"]
        command = [sys.executable, "-c", passed, str(number), *program]
        with subprocess.Popen(command, pass_fds=[number], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                places = json.loads(process.stdout.readline())
                assert places["url"] == f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
                assert status_of(places["url"].replace("/mcp", "/ready")) == 200
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
            finally:
                process.kill()
