"""SSL contexts: one for the same settings, made once, made anew when a file changed, and not without end."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import weakref
from pathlib import Path

import pytest
from support.authority import Authority
from support.calls import eventually

from mcp_manager import TlsConfig
from mcp_manager.transports.http.connections import tls as contexts
from mcp_manager.transports.http.connections.tls import TlsContexts, UnusableTlsError


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusted(context: ssl.SSLContext) -> set[str]:
    return {
        value
        for each in context.get_ca_certs()
        for part in each["subject"]  # type: ignore[union-attr]
        for key, value in part
        if key == "commonName"
    }


async def test_the_same_settings_share_one_context(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TlsConfig] = []
    make = contexts._make

    def counted(tls: TlsConfig, elsewhere: bool) -> ssl.SSLContext:
        made.append(tls)
        return make(tls, elsewhere)

    monkeypatch.setattr(contexts, "_make", counted)
    kept = TlsContexts()
    found = await asyncio.gather(*(kept.of(TlsConfig(ca_file=str(authority.ca_file))) for _ in range(50)))
    assert len(made) == 1
    assert len(set(found)) == 1
    other = await kept.of(TlsConfig(ca_file=str(authority.ca_file), verify=False))
    assert other is not found[0]
    assert other.verify_mode == ssl.CERT_NONE
    assert found[0].verify_mode == ssl.CERT_REQUIRED
    assert found[0].check_hostname


async def test_a_private_authority_replaces_the_others_except_elsewhere(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = Authority(tmp_path, "Public Authority")
    monkeypatch.setenv("SSL_CERT_FILE", str(public.ca_file))
    kept, tls = TlsContexts(), TlsConfig(ca_file=str(authority.ca_file))
    assert trusted(await kept.of(tls)) == {"Test Authority"}
    assert trusted(await kept.of(tls, elsewhere=True)) >= {"Test Authority", "Public Authority"}
    assert "Public Authority" in trusted(await kept.of(TlsConfig()))


async def test_without_verification_it_is_the_server_alone_that_is_not_verified(authority: Authority) -> None:
    mine = authority.issue("agent")
    tls = TlsConfig(verify=False, cert_file=str(mine.certificate), key_file=str(mine.key))
    kept = TlsContexts()
    assert (await kept.of(tls)).verify_mode == ssl.CERT_NONE
    elsewhere = await kept.of(tls, elsewhere=True)
    assert (elsewhere.verify_mode, elsewhere.check_hostname) == (ssl.CERT_REQUIRED, True)


async def test_private_keys_are_not_kept_for_servers_that_are_gone(authority: Authority) -> None:
    mine = authority.issue("agent", password="secret")
    tls = TlsConfig(cert_file=str(mine.certificate), key_file=str(mine.key), key_password="secret")
    trusting = TlsConfig(ca_file=str(authority.ca_file))
    kept = TlsContexts()
    context, plain = weakref.ref(await kept.of(tls)), await kept.of(trusting)
    kept.drop_identities()
    gc.collect()
    # The thread that has loaded it lets go of it a moment later.
    await eventually(lambda: context() is None, "the end of the key")
    assert await kept.of(trusting) is plain
    assert kept._kept.keys() == {(trusting, False)}


async def test_a_file_that_changed_is_read_again(authority: Authority, tmp_path: Path) -> None:
    place = tmp_path / "ca"
    place.write_bytes(authority.ca_file.read_bytes())
    kept, tls = TlsContexts(), TlsConfig(ca_file=str(place))
    first = await kept.of(tls)
    assert await kept.of(tls) is first
    place.write_bytes(Authority(tmp_path, "New Authority").ca_file.read_bytes())
    second = await kept.of(tls)
    assert trusted(second) == {"New Authority"}
    # What makes no sense changes nothing; what is not there does.
    place.write_text("nonsense")
    assert await kept.of(tls) is second
    place.unlink()
    with pytest.raises(UnusableTlsError, match=r"tls\.ca_file: cannot be read"):
        await kept.of(tls)


async def test_a_caller_who_gives_up_leaves_the_loading_to_the_others(authority: Authority) -> None:
    kept, tls = TlsContexts(), TlsConfig(ca_file=str(authority.ca_file))
    first, second = asyncio.create_task(kept.of(tls)), asyncio.create_task(kept.of(tls))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).verify_mode == ssl.CERT_REQUIRED
    assert first.cancelled()


async def test_contexts_do_not_add_up(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "_MOST", 3)
    kept = TlsContexts()
    for number in range(8):
        path = f"{authority.ca_file}{number}"
        os.link(authority.ca_file, path)
        await kept.of(TlsConfig(ca_file=path))
    assert len(kept._kept) == 3
