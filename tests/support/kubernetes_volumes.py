"""Volumes of Kubernetes for ConfigMaps and Secrets, changed as kubelet changes them."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Volume"]


class Volume:
    """A folder whose files are links into ``..data``, itself a link to the folder with the present content.

    An update writes a new folder, replaces the link ``..data`` by renaming another over it, and deletes the old folder
    (``AtomicWriter`` in the sources of Kubernetes).
    """

    def __init__(self, path: Path, files: Mapping[str, str]) -> None:
        self.path = path
        self._numbers = itertools.count(1)
        path.mkdir()
        self.update(files)
        for name in files:
            (path / name).symlink_to(Path("..data") / name)

    def update(self, files: Mapping[str, str]) -> None:
        """Replace the content of all files at once."""
        present = self.path / "..data"
        old = present.resolve() if present.is_symlink() else None
        new = self.path / f"..2026_01_01_00_00_00.{next(self._numbers)}"
        new.mkdir()
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
        following = self.path / "..data_tmp"
        following.symlink_to(new.name)
        os.replace(following, present)
        if old is not None:
            shutil.rmtree(old)
