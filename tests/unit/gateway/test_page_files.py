"""The files of the page for operators."""

from __future__ import annotations

import mimetypes

import pytest

from mcp_manager.gateway.admin.static_files import PageFiles


def test_scripts_can_run_whatever_the_system_calls_them(monkeypatch: pytest.MonkeyPatch) -> None:
    mimetypes.init()
    monkeypatch.setitem(mimetypes.types_map, ".js", "text/plain")
    assert mimetypes.guess_type("app.js")[0] == "text/plain"
    scripts = {name: each.content_type for name, each in PageFiles()._files.items() if name.endswith(".js")}
    assert "app.js" in scripts
    # Python 3.11 has the older name, later ones that of RFC 9239.
    assert {each.partition(";")[0] for each in scripts.values()} <= {"application/javascript", "text/javascript"}
