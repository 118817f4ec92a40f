"""The settings of TLS, proxy and socket: what is accepted, what is refused by which field, and what is never shown."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority, Pair

from mcp_manager import ConfigError, ServerConfig, TlsConfig, load_manager_config
from mcp_manager.config import check_server_config, parse_server_config

SECRET = "sentinel-s3cr3t"
URL = "https://h.test/mcp"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def parsed(**fields: Any) -> ServerConfig:
    return parse_server_config({"url": URL, **fields}, server_id="a")


def refused(**fields: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parsed(**fields)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.hint
    return caught.value


def files(pair: Pair) -> dict[str, str]:
    return {"cert_file": str(pair.certificate), "key_file": str(pair.key)}


def test_defaults_are_those_of_everyday() -> None:
    config = parsed()
    assert config.tls == TlsConfig(ca_file=None, cert_file=None, key_file=None, key_password=None, verify=True)
    assert (config.proxy, config.unix_socket) == (None, None)


def test_all_settings_of_tls(authority: Authority) -> None:
    mine = authority.issue("agent", password=SECRET)
    tls = {"ca_file": str(authority.ca_file), **files(mine), "key_password": SECRET, "verify": True}
    config = parsed(tls=tls)
    assert config.tls == TlsConfig(**tls)
    assert check_server_config(config, server_id="a") == config
    assert SECRET not in repr(config)
    both = mine.certificate.with_name("both.pem")
    both.write_bytes(mine.key.read_bytes() + mine.certificate.read_bytes())
    parsed(tls={"cert_file": str(both), "key_password": SECRET})


def test_a_directory_of_the_home_directory(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(authority.ca_file.parent))
    parsed(tls={"ca_file": f"~/{authority.ca_file.name}"})


def test_what_is_wrong_with_files(authority: Authority, tmp_path: Path) -> None:
    mine, other = authority.issue("agent"), authority.issue("other")
    locked = authority.issue("locked", password="right")
    text = tmp_path / "text.txt"
    text.write_text("no certificate")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    empty, pipe = tmp_path / "empty", tmp_path / "pipe"
    empty.mkdir()
    os.mkfifo(pipe)
    missing = str(tmp_path / "missing.pem")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ca_file": missing}, "tls.ca_file: cannot be read: No such file"),
        ({"ca_file": str(text)}, "tls.ca_file: holds no PEM certificate"),
        ({"ca_file": str(broken)}, "tls.ca_file: holds a certificate that cannot be read"),
        ({"ca_file": str(empty)}, "tls.ca_file: is a directory without a PEM certificate"),
        ({"ca_file": str(pipe)}, "tls.ca_file: is not a file"),
        ({"ca_file": ""}, "tls.ca_file: must not be empty"),
        ({"ca_file": "a\x00b"}, "tls.ca_file: contains a NUL character"),
        ({**files(mine), "cert_file": missing}, "tls.cert_file: cannot be read: No such file"),
        ({**files(mine), "key_file": missing}, "tls.key_file: cannot be read: No such file"),
        ({**files(mine), "cert_file": str(text)}, "tls.cert_file: holds no PEM certificate"),
        ({**files(mine), "cert_file": str(broken)}, "tls.key_file: cannot be read with its certificate"),
        ({**files(mine), "key_file": str(text)}, "tls.key_file: holds no private key"),
        ({"cert_file": str(mine.certificate)}, "tls.cert_file: holds no private key"),
        ({**files(mine), "key_file": str(other.key)}, "tls.key_file: is not the key of the certificate"),
        ({"key_file": str(mine.key)}, "tls.cert_file: missing"),
        ({"key_password": SECRET}, "tls.cert_file: missing"),
        (files(locked), "tls.key_password: missing"),
        ({**files(locked), "key_password": SECRET}, "tls.key_password: does not decrypt the private key"),
        ({"ca": missing}, "tls: unknown field 'ca'"),
        ({"verify": "no"}, "tls.verify: expected true or false"),
        ({"ca_file": 7}, "tls.ca_file: expected a string"),
    ]
    for tls, expected in cases:
        with pytest.raises(ConfigError) as caught:
            parsed(tls=tls)
        assert expected in caught.value.message, tls
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_was_repaired_is_looked_at_again(authority: Authority, tmp_path: Path) -> None:
    place = tmp_path / "ca"
    place.write_bytes(authority.ca_file.read_bytes())
    parsed(tls={"ca_file": str(place)})
    place.write_text("nothing")
    refused(tls={"ca_file": str(place)})
    place.write_bytes(authority.ca_file.read_bytes())
    parsed(tls={"ca_file": str(place)})


@pytest.mark.parametrize(
    "proxy", ["http://proxy.test:3128", "https://u:p@proxy.test", "HTTP://10.0.0.1:1/", "http://[::1]:8", "env", ""]
)
def test_proxies_that_are_accepted(proxy: str) -> None:
    assert parsed(proxy=proxy).proxy == proxy


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        (f"socks5://u:{SECRET}@h:1080", "proxy: is a SOCKS proxy, which is not supported"),
        (f"socks5h://u:{SECRET}@h", "SOCKS"),
        ("proxy.test:3128", "proxy: is not an http:// or https:// URL"),
        (f"{SECRET}", "proxy: is not an http:// or https:// URL"),
        ("ftp://h", "proxy: is not an http:// or https:// URL"),
        (f"http://u:{SECRET}@", "proxy: has no host"),
        (f"http://u:{SECRET}@h:99999", "proxy: has an invalid port"),
        (f"http://u:{SECRET}@h/path", "proxy: has a path"),
        (f"http://u:{SECRET}@h?x=1", "proxy: has a path"),
        (f"http://u%3A:{SECRET}@h", "proxy: has a colon in its user name"),
        (f"http://u:{SECRET}%0A@h", "proxy: has a control character"),
        (f"http://u:{SECRET} @h", "proxy: contains a space"),
    ],
)
def test_proxies_that_are_refused(proxy: str, expected: str) -> None:
    assert expected in refused(proxy=proxy).message


def test_a_proxy_is_shown_without_credentials() -> None:
    config = parsed(proxy=f"http://u:{SECRET}@proxy.test:3128")
    assert SECRET not in repr(config)
    assert "proxy.test:3128" in repr(config)
    assert "proxy='env'" in repr(parsed(proxy="env"))


def test_what_does_not_go_together(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    plain = "http://h.test/mcp"
    discovery = {"kind": "dns"}
    assert "unix_socket: cannot be combined with proxy" in refused(url=plain, unix_socket=path, proxy="env").message
    assert (
        "unix_socket: cannot be combined with discovery"
        in refused(url=plain, unix_socket=path, discovery=discovery).message
    )
    assert "proxy: cannot be combined with discovery" in refused(proxy="env", discovery=discovery).message
    assert "unix_socket: cannot be combined with https" in refused(unix_socket=path).message
    assert parsed(url=plain, unix_socket=path, proxy="").unix_socket == path


@pytest.mark.parametrize(
    ("field", "value"),
    [("tls", {"verify": False}), ("proxy", "env"), ("unix_socket", "/run/s"), ("tls", {"ca_file": "x"})],
)
def test_a_program_has_none_of_it(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{field}: does not apply to a stdio server.*only a url"):
        parse_server_config({"command": "true", field: value}, server_id="a")
    config = check_server_config(ServerConfig(command="true"), server_id="a")
    assert config.command == "true"


def test_sockets_that_are_refused(tmp_path: Path) -> None:
    plain = "http://localhost/mcp"
    file = tmp_path / "file"
    file.write_text("")
    assert "unix_socket: is a file, not a socket" in refused(url=plain, unix_socket=str(file)).message
    assert "unix_socket: is a directory, not a socket" in refused(url=plain, unix_socket=str(tmp_path)).message
    assert "bytes long" in refused(url=plain, unix_socket=f"/tmp/{'x' * 110}").message
    assert "bytes long" in refused(url=plain, unix_socket=f"/tmp/{'ü' * 55}").message
    assert parsed(url=plain, unix_socket="/nowhere/yet.sock").unix_socket == "/nowhere/yet.sock"


def test_socket_urls_of_other_clients() -> None:
    config = parsed(url="http+unix://%2Frun%2Fmy%20server.sock/mcp?x=1")
    assert (config.url, config.unix_socket) == ("http://localhost/mcp?x=1", "/run/my server.sock")
    assert parsed(url="http+unix://%2Frun%2Fs").url == "http://localhost"
    assert "unix_socket" in refused(url="unix:///run/s").hint
    assert "unix_socket" in refused(url="https+unix://%2Frun%2Fs/").hint
    assert "url: names no unix socket" in refused(url="http+unix:///mcp").message
    unquoted = refused(url="http+unix://run/server.sock/mcp")
    assert "url: names the unix socket 'run', which is not an absolute path" in unquoted.message
    assert "http+unix://%2Frun%2Fserver.sock/mcp" in (unquoted.hint or "")
    assert "url: names a unix socket" in refused(url="http+unix://%2Frun%2Fs/", unix_socket="/run/t").message


def test_defaults_of_a_file_are_merged_and_filled_in(authority: Authority, tmp_path: Path) -> None:
    mine = authority.issue("agent", password=SECRET)
    document = {
        "defaults": {"tls": {"ca_file": "${CA}", "verify": True}, "proxy": "http://u:${PASSWORD}@proxy.test:3128"},
        "servers": {
            "own": {"url": URL, "tls": {**files(mine), "key_password": "${PASSWORD}"}, "proxy": ""},
            "shared": {"url": URL},
            "socket": {"url": "http://localhost/mcp", "unix_socket": "${RUN}/s.sock"},
        },
        "mcpServers": {"foreign": {"url": URL, "proxy": "env"}, "program": {"command": "true"}},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    environment = {"CA": str(authority.ca_file), "PASSWORD": SECRET, "RUN": "/run"}
    servers = load_manager_config(path, environment=environment).servers
    assert servers["own"].tls == TlsConfig(ca_file=str(authority.ca_file), **files(mine), key_password=SECRET)
    assert servers["own"].proxy == ""
    assert servers["shared"].tls.ca_file == str(authority.ca_file)
    assert servers["shared"].proxy == f"http://u:{SECRET}@proxy.test:3128"
    # What is for everybody else's connections means nothing to a socket.
    assert (servers["socket"].unix_socket, servers["socket"].proxy) == ("/run/s.sock", None)
    assert servers["foreign"].proxy == "env"
    assert servers["program"].proxy is None
    assert SECRET not in repr(servers)


def test_a_default_that_cannot_work_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[defaults.tls]\nca_file = "/missing/ca.pem"\n')
    with pytest.raises(ConfigError, match=r"defaults\.tls\.ca_file: cannot be read: No such file"):
        load_manager_config(path)
