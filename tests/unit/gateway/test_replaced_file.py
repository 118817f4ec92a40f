"""Files that are replaced keep who may read them."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_manager.gateway.security.replaced_file import replace_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_mode_and_another_keeps_its_own(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    replace_file(str(link), b"one", mode=0o644)
    assert (path.read_bytes(), mode_of(path), link.is_symlink()) == (b"one", 0o644, True)
    path.chmod(0o640)
    replace_file(str(link), b"two", mode=0o644)
    assert (path.read_bytes(), mode_of(path), link.is_symlink()) == (b"two", 0o640, True)
    assert {each.name for each in tmp_path.iterdir()} == {"file", "link"}


def test_what_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        replace_file(str(tmp_path / "none" / "file"), b"", mode=0o600)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(str(folder), b"", mode=0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@contextlib.contextmanager
def acting_as(number: int) -> Iterator[None]:
    """Have the rights of another user and group alone."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(number)
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may act as another user")
def test_the_group_of_another_user_gets_no_rights() -> None:
    # Other users may not enter the folders of the tests.
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        path = Path(name, "file")
        path.write_bytes(b"one")
        path.chmod(0o640)
        os.chown(path, 1234, 2345)
        with acting_as(777):
            replace_file(str(path), b"two", mode=0o600)
        found = path.stat()
        assert (path.read_bytes(), found.st_uid, found.st_gid, mode_of(path)) == (b"two", 777, 777, 0o600)
