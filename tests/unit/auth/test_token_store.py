"""Stores keep what they are given, whole, and to themselves."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_manager import FileTokenStore, MemoryTokenStore, TokenStore
from mcp_manager.auth.token_store import Grant, Registration


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_a_record_is_kept_replaced_and_removed(kind: str, tmp_path: Path) -> None:
    store: TokenStore = MemoryTokenStore() if kind == "memory" else FileTokenStore(tmp_path / "a" / "b")
    assert await store.load("k") is None
    await store.save("k", b"one")
    await store.save("other", b"x")
    await store.save("k", b"two")
    assert await store.load("k") == b"two"
    await store.save("k", None)
    await store.save("k", None)
    assert await store.load("k") is None
    assert await store.load("other") == b"x"


async def test_files_are_the_users_alone(tmp_path: Path) -> None:
    directory = tmp_path / "tokens"
    before = os.umask(0)
    try:
        await FileTokenStore(directory).save("https://h/mcp\n../../etc", b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_directory_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o755)
    await FileTokenStore(directory).save("k", b"secret")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    (file,) = directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def as_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, mode=0o600)


def as_socket(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFSOCK | 0o600)


def as_writable_by_all(path: Path) -> None:
    path.chmod(0o666)


def as_large(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(200 << 20)


def as_somebody_elses(path: Path) -> None:
    os.chown(path, 12_345, -1)


@pytest.mark.parametrize("become", [as_link, as_pipe, as_socket, as_writable_by_all, as_large, as_somebody_elses])
async def test_what_is_no_file_of_this_users_own_is_not_used_and_gets_replaced(
    become: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if become is as_somebody_elses and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    store = FileTokenStore(tmp_path)
    await store.save("k", b"planted")
    (path,) = map(tmp_path.joinpath, os.listdir(tmp_path))
    become(path)
    assert await store.load("k") is None
    assert f"{path} is not used" in caplog.text
    await store.save("k", b"own")
    assert await store.load("k") == b"own"
    assert not path.is_symlink()


async def test_a_record_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileTokenStore(tmp_path)
    await store.save("k", b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        await store.save("k", b"new")
    monkeypatch.undo()
    assert await store.load("k") == b"old"
    assert len(os.listdir(tmp_path)) == 1


def test_no_repr_shows_what_is_kept() -> None:
    client = Registration(issuer="https://as", client_id="sentinel", secret="sentinel")
    grant = Grant(resource="r", issuer="i", registration=client, access_token="sentinel", refresh_token="sentinel")
    assert "sentinel" not in repr(client) + repr(grant)
