"""A real Chromium, its pages, and what they report: errors, refused content, and faults of accessibility."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from support.node import PACKAGES_VARIABLE, node_unavailable

__all__ = ["Browser", "Tab", "browser", "browser_unavailable"]

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
# Root has no sandbox of its own, and containers have a small /dev/shm.
_FLAGS: Final = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
_TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_LONGEST_MS: Final = 30_000
# What a browser says of every response that is no success.
_OF_RESPONSES: Final = "Failed to load resource: "
# Refused content is reported to the document, and text that became markup runs this.
_WATCH: Final = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) => window.refused.push(event.violatedDirective));
"""


def browser_unavailable() -> str:
    """Return why there can be no browser here, "" if there can."""
    if find_spec("playwright") is None:
        return "playwright is not installed (the dependency group browser has it)"
    if _chromium() is None:
        return "there is no Chromium on the path (Debian's package chromium)"
    return node_unavailable()


class Tab:
    """A page in a context of its own: no cookies, storage and history of others.

    Parameters
    ----------
    page
        The page of playwright.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.reports: list[str] = []
        page.on("console", lambda message: self._take(message.type, message.text))
        page.on("pageerror", lambda error: self.reports.append(f"uncaught: {error}"))

    def _take(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(_OF_RESPONSES):
            self.reports.append(f"{kind}: {text}")

    def assert_quiet(self) -> None:
        """Assert that nothing was refused or went wrong, and that no text has become markup."""
        assert self.page.evaluate("window.refused") == []
        assert self.reports == []
        assert self.page.evaluate("window.hacked") is None

    def accessibility_faults(self, *rules: str) -> list[str]:
        """Return what axe finds in what is shown now: by all rules of WCAG 2.2 AA and of good practice, or by some."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(_axe())
        chosen = {"type": "rule", "values": list(rules)} if rules else {"type": "tag", "values": _TAGS}
        found = self.page.evaluate(
            "(chosen) => axe.run(document, {runOnly: chosen, resultTypes: ['violations']})", chosen
        )
        return [
            f"{fault['id']}: {node['html'][:200]}: {node['failureSummary'][:300]}"
            for fault in found["violations"]
            for node in fault["nodes"]
        ]


class Browser:
    """A browser.

    Parameters
    ----------
    launched
        The browser of playwright.
    """

    def __init__(self, launched: Any) -> None:
        self._launched = launched

    @contextmanager
    def tab(self, *, width: int = 1600, height: int = 1000, scheme: str = "light") -> Iterator[Tab]:
        """Open a page, and close it at the end."""
        context = self._launched.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        try:
            context.set_default_timeout(_LONGEST_MS)
            context.add_init_script(_WATCH)
            yield Tab(context.new_page())
        finally:
            context.close()


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a Chromium, and end it; skip the test if there can be none."""
    if reason := browser_unavailable():
        pytest.skip(reason)
    # Not at the top: whoever has no browser can still collect the tests.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=_chromium(), args=list(_FLAGS))
        try:
            yield Browser(launched)
        finally:
            launched.close()


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


def _axe() -> str:
    source = Path(os.environ[PACKAGES_VARIABLE]) / "node_modules" / "axe-core" / "axe.min.js"
    return source.read_text(encoding="utf-8")
