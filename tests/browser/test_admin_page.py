"""The page of the admin API in a real Chromium, before a real gateway."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, Tab, browser
from support.catalog_server import CatalogServer, tool
from support.gateway_process import GatewayProcess
from support.processes import unused_port

from mcp_manager.gateway.security.api_keys import made_key
from mcp_manager.gateway.security.keys_file import write_keys

pytestmark = [
    pytest.mark.slow,
    pytest.mark.allow_leaks(
        "children", "descriptors", reason="the browser serves all tests, and has processes of its own"
    ),
]

log = logging.getLogger(__name__)

MARKUP = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
HOSTILE = f"evil{MARKUP}"

_ACT = """async ([method, path, body, token]) => {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const { status } = await fetch(`api/v1/${path}`, { method, headers, body });
  if (status > 202) throw new Error(`status ${status}`);
}"""


class Site:
    """A gateway as a process, with the keys of its clients."""

    def __init__(self, directory: Path, servers: dict[str, Any], port: int = 0) -> None:
        keys = {name: made_key(name) for name in ("boss", "clerk")}
        self.keys_file = directory / "keys"
        write_keys(str(self.keys_file), [kept for _, kept in keys.values()])
        self.tokens = {name: key for name, (key, _) in keys.items()}
        auth = {"type": "api_key", "keys_file": str(self.keys_file), "operators": ["boss"]}
        serve = {"auth": auth, "admin": {}}
        self.process = GatewayProcess(directory, servers, serve=serve, listen=f"127.0.0.1:{port}")

    @property
    def address(self) -> str:
        return self.process.url("/ui")

    def open(self, tab: Tab) -> Any:
        """Open the page as the operator, and return it."""
        tab.page.goto(f"{self.address}#token={self.tokens['boss']}")
        tab.page.locator("#fleet").wait_for()
        tab.page.locator("#connection", has_text="Live").wait_for()
        return tab.page

    def act(self, page: Any, method: str, path: str, body: str | None = None) -> None:
        """Send a request to the API that is none of the page's own."""
        page.evaluate(_ACT, [method, path, body, self.tokens["boss"]])

    def opened(self, tab: Tab, server: str) -> Any:
        """Open the details of a server, and return the page."""
        page = self.open(tab)
        page.get_by_role("link", name=server, exact=True).first.click()
        page.locator("#detail-title", has_text=server).wait_for()
        return page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as launched:
        yield launched


@pytest.fixture(scope="module")
def site(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    tools = [tool("find", title="Find things", description=f"Finds {MARKUP}"), tool(MARKUP, title=MARKUP)]
    with ExitStack() as stack:
        well = stack.enter_context(CatalogServer({"tools": tools}))
        servers: dict[str, Any] = {
            "alpha": {"url": well.url, "tags": ["eu"]},
            "beta": {"url": well.url, "instances": 2},
            "closed": {"url": f"http://127.0.0.1:{unused_port()}/mcp"},
            "idle": {"url": well.url, "instances": 0},
            HOSTILE: {"url": well.url, "tags": [MARKUP], "server_type": MARKUP},
        }
        made = Site(tmp_path_factory.mktemp("site"), servers, unused_port())
        stack.enter_context(made.process)
        yield made


def assert_accessible(tab: Tab, what: str, widths: tuple[int, ...] = (1600, 400)) -> None:
    """Assert that axe finds nothing in any width and colour scheme, and that nothing is wider than the screen."""
    faults = []
    for width in widths:
        tab.page.set_viewport_size({"width": width, "height": 900})
        tab.page.emulate_media(color_scheme="light")
        faults += [f"{what}, {width} px, light: {fault}" for fault in tab.accessibility_faults()]
        # The other rules do not depend on colours.
        tab.page.emulate_media(color_scheme="dark")
        faults += [f"{what}, {width} px, dark: {fault}" for fault in tab.accessibility_faults("color-contrast")]
        wide = tab.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        faults += [f"{what}, {width} px: {wide} px too wide"] if wide > 0 else []
    assert faults == []


def test_a_token_is_asked_for_and_kept_in_this_tab_only(chromium: Browser, site: Site) -> None:
    with chromium.tab() as tab:
        page = tab.page
        page.goto(site.address)
        page.locator("#sign-in").wait_for()
        assert page.locator("#fleet").is_hidden()
        assert_accessible(tab, "sign in")
        for wrong, said in ((site.tokens["boss"][:-1], "does not accept"), ("žluť", "ASCII")):
            page.get_by_label("Token").fill(wrong)
            page.keyboard.press("Enter")
            page.get_by_role("alert").filter(has_text=said).wait_for()
        assert page.evaluate("document.activeElement.id") == "token"
        assert_accessible(tab, "wrong token", (400,))
        page.get_by_label("Token").fill(site.tokens["clerk"])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").filter(has_text="operators").wait_for()
        page.get_by_label("Token").fill(site.tokens["boss"])
        page.get_by_role("button", name="Sign in").click()
        page.locator("#fleet").wait_for()
        assert page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0
        page.reload()
        page.locator("#fleet").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.locator("#sign-in").wait_for()
        assert page.evaluate("sessionStorage.length") == 0
        assert page.locator("#fleet-rows tr").count() == 0
        tab.assert_quiet()


def test_a_token_is_taken_from_the_address_and_removed_there(chromium: Browser, site: Site) -> None:
    with chromium.tab() as tab:
        page = site.open(tab)
        assert page.url == site.address
        assert site.tokens["boss"] not in page.content()
        assert page.evaluate("history.length") <= 2


def test_the_fleet_is_shown_for_every_screen(chromium: Browser, site: Site) -> None:
    with chromium.tab() as tab:
        page = site.open(tab)
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name="closed"))
        row.filter(has_text="Unhealthy").filter(has_text="0 / 1").wait_for()
        assert page.get_by_role("row").filter(has_text="beta").filter(has_text="2 / 2").count() == 1
        assert page.get_by_role("table", name=re.compile("Servers of the fleet")).count() == 1
        assert page.title().startswith("1 unhealthy")
        assert_accessible(tab, "fleet")
        for width in (2400, 1440, 1280, 1200, 1024, 800, 640, 500, 360):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(_OVERFLOWING) == [], width
        page.get_by_role("searchbox", name="Search").fill("nothing like this")
        page.get_by_role("heading", name="No server matches").wait_for()
        assert_accessible(tab, "no match", (400,))
        page.get_by_role("searchbox", name="Search").fill("eu")
        assert page.locator("#fleet-rows tr").count() == 1
        page.get_by_role("searchbox", name="Search").fill("")
        page.get_by_role("button", name=re.compile("Stopped")).click()
        assert page.locator("#fleet-rows .server-link").all_text_contents() == ["idle"]
        page.get_by_role("button", name=re.compile("All")).click()
        page.get_by_role("button", name="Server", exact=True).click()
        page.get_by_role("button", name="Server", exact=True).click()
        ids = page.locator("#fleet-rows .server-link").all_text_contents()
        assert ids == sorted(ids, reverse=True) and len(ids) == 5
        assert page.get_by_role("columnheader", name="Server").get_attribute("aria-sort") == "descending"
        tab.assert_quiet()


_OVERFLOWING = """() => [...document.querySelectorAll("th, td, .section-head, .top")]
  .filter((each) => each.scrollWidth > each.clientWidth + 1)
  .map((each) => each.textContent)"""


def test_names_errors_and_descriptions_are_never_markup(chromium: Browser, site: Site) -> None:
    with chromium.tab() as tab:
        page = site.opened(tab, HOSTILE)
        for title in ("Tools", "Configuration", "Last calls", "Standard error"):
            page.locator("summary", has_text=title).click()
        page.locator(".tool-list").get_by_text("Find things").wait_for()
        assert page.locator(".tool-list code").all_text_contents() == ["find", MARKUP]
        page.locator("pre").first.wait_for()
        page.get_by_role("button", name=f"Redeploy… {HOSTILE}").click()
        page.get_by_role("heading", name=f"Redeploy {HOSTILE}?").wait_for()
        page.get_by_role("button", name="Cancel").click()
        assert page.locator("main img, main script, dialog img").count() == 0
        # It goes on where it was, from the address alone.
        page.reload()
        page.locator("#detail-title", has_text=HOSTILE).wait_for()
        tab.assert_quiet()


def test_details_and_dialogs_are_accessible(chromium: Browser, site: Site) -> None:
    with chromium.tab() as tab:
        page = site.opened(tab, "closed")
        page.locator("#detail .error").first.wait_for()
        page.locator("summary", has_text="Tools").click()
        page.locator("details[open] button").wait_for()
        assert_accessible(tab, "details")
        page.get_by_role("button", name="Undeploy… closed").click()
        page.get_by_label("To confirm, enter the name of the server: closed").fill("open")
        page.keyboard.press("Enter")
        page.get_by_role("alert").filter(has_text="not the name").wait_for()
        assert_accessible(tab, "dialog")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        assert page.locator("#detail").is_hidden()
        assert page.evaluate("document.activeElement.textContent") == "closed"
        tab.assert_quiet()


def test_an_act_with_the_keyboard_alone(chromium: Browser, site: Site) -> None:
    with chromium.tab() as tab:
        page = site.open(tab)
        press(page, "Tab", until="alpha")
        page.keyboard.press("Enter")
        page.locator("#detail-title:focus").wait_for()
        press(page, "Tab", until="Scale… alpha")
        page.keyboard.press("Enter")
        page.get_by_role("spinbutton", name="Instances").wait_for()
        page.keyboard.type("3")
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text="alpha").wait_for()
        # The dialog gives the focus back to the button that opened it.
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Scale… alpha"
        page.locator("#detail").get_by_text("3 of 3 instances ready").wait_for()
        page.locator("#event-list").get_by_text("scaled from 1 to 3 instances").wait_for()
        assert_accessible(tab, "result of an act", (400,))
        tab.assert_quiet()


def press(page: Any, key: str, *, until: str) -> None:
    """Press a key until the element with this name has the focus; fail if the focus goes round without it."""
    names = []
    for _ in range(60):
        page.keyboard.press(key)
        name = page.evaluate(
            "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim()"
        )
        if name == until:
            return
        names.append(name)
    raise AssertionError(f"{until!r} never has the focus: {names}")


def test_suspended_servers_are_resumed(chromium: Browser, site: Site) -> None:
    with chromium.tab() as tab:
        page = site.opened(tab, "beta")
        page.get_by_role("button", name="Suspend… beta").click()
        assert page.evaluate("document.activeElement.textContent") == "Cancel"
        for act, state in (("Suspend", "Stopped"), ("Drain", "Maintenance")):
            if act == "Drain":
                page.get_by_role("button", name="Drain… beta").click()
            page.get_by_role("button", name=act, exact=True).click()
            page.locator(f"#detail .state[data-state={state}]").first.wait_for()
            page.get_by_role("button", name="Resume beta").click()
            page.locator("#detail > div > .state[data-state=Healthy]").wait_for()
        page.get_by_text("2 of 2 instances ready").wait_for()
        page.get_by_role("button", name="Redeploy… beta").click()
        page.get_by_role("button", name="Redeploy", exact=True).click()
        page.get_by_role("status").filter(has_text="redeployed").wait_for()
        # A row that moves because somebody else has acted keeps the focus.
        link = page.locator("#fleet-rows").get_by_role("link", name="beta")
        link.focus()
        before = row_number(page, "beta")
        site.act(page, "POST", "servers/beta/suspend")
        page.get_by_role("row", name="beta").filter(has_text="Stopped").wait_for()
        assert row_number(page, "beta") != before
        assert page.evaluate("document.activeElement.textContent") == "beta"
        site.act(page, "POST", "servers/beta/resume")
        tab.assert_quiet()


def row_number(page: Any, server: str) -> int:
    names: list[str] = page.locator("#fleet-rows .server-link").all_text_contents()
    return names.index(server)


def test_a_refused_act_says_why(chromium: Browser, site: Site) -> None:
    with chromium.tab(width=400) as tab:
        page = site.open(tab)
        page.get_by_role("button", name="Deploy a server…").click()
        page.get_by_label("Name").fill("gamma")
        page.get_by_label("Configuration (JSON)").fill("[1]")
        page.get_by_role("button", name="Deploy", exact=True).click()
        page.get_by_role("alert").filter(has_text="JSON object").wait_for()
        page.get_by_label("Configuration (JSON)").fill('{"url": "http://127.0.0.1:1/mcp", "instances": -1}')
        page.get_by_role("button", name="Deploy", exact=True).click()
        page.get_by_role("alert").filter(has_text="instances").wait_for()
        page.get_by_label("Configuration (JSON)").fill('{"url": "http://127.0.0.1:1/mcp", "instances": 0}')
        page.get_by_role("button", name="Deploy", exact=True).click()
        page.get_by_role("link", name="gamma").first.click()
        page.get_by_role("button", name="Undeploy… gamma").click()
        page.get_by_label("To confirm").fill("gamma")
        page.get_by_role("button", name="Undeploy", exact=True).click()
        page.get_by_text("no server of this name").wait_for()
        assert_accessible(tab, "a server that is gone", (400,))
        tab.assert_quiet()


def test_a_configuration_file_that_is_refused_is_shown_until_it_is_applied(chromium: Browser, site: Site) -> None:
    file = site.process.config
    written = file.read_text(encoding="utf-8")
    with chromium.tab() as tab:
        page = site.open(tab)
        problem = page.get_by_role("alert").filter(has_text="The configuration file was not applied")
        assert problem.count() == 0
        file.write_text(json.dumps({"servers": {MARKUP: {"url": "nowhere"}}}), encoding="utf-8")
        with pytest.raises(Exception, match="status 422"):
            site.act(page, "POST", "reload")
        # The next snapshot comes at once.
        page.evaluate("dispatchEvent(new Event('online'))")
        problem.filter(has_text="<script>").filter(has_text=f"Correct {file}, then read it again").wait_for()
        assert_accessible(tab, "refused file")
        page.keyboard.press("Home")
        press(page, "Tab", until="Read the file again")
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text="was not applied").wait_for()
        file.write_text(written, encoding="utf-8")
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text="is applied").wait_for()
        problem.wait_for(state="hidden")
        assert page.evaluate("document.activeElement.id") == "content"
        tab.assert_quiet()


def test_the_page_survives_a_restart_of_the_gateway(chromium: Browser, site: Site) -> None:
    with chromium.tab() as tab:
        page = site.opened(tab, "alpha")
        search = page.get_by_role("searchbox", name="Search")
        search.fill("a")
        link = page.locator("#fleet-rows .server-link", has_text="beta")
        link.focus()
        page.evaluate("window.kept = [document.activeElement, document.querySelector('#detail tbody')]")
        site.process.__exit__()
        page.get_by_text("The gateway cannot be reached").wait_for()
        assert_accessible(tab, "gateway that cannot be reached")
        page.set_viewport_size({"width": 1600, "height": 900})
        assert page.locator("#fleet-rows tr").count() > 0
        site.process.__enter__()
        page.get_by_role("button", name="Try now").click()
        page.locator("#connection", has_text="Live").wait_for()
        assert page.locator("#banner").is_hidden()
        # Nothing was drawn anew: what was typed, chosen and found is still there.
        assert search.input_value() == "a"
        assert page.evaluate("window.kept.every((each) => each.isConnected)")
        assert page.locator("#detail-title").text_content() == "alpha"
        tab.assert_quiet()


def test_five_hundred_servers_and_none(chromium: Browser, tmp_path: Path) -> None:
    servers = {f"server-{number:03}": {"url": "http://127.0.0.1:1/mcp", "instances": 0} for number in range(500)}
    site = Site(tmp_path, servers)
    with site.process, chromium.tab() as tab:
        began = time.perf_counter()
        page = site.open(tab)
        page.locator("#fleet-rows tr").first.wait_for()
        # Not asserted: it depends on the machine. Shown with --log-cli-level=INFO.
        log.info("500 servers are shown after %.2f s", time.perf_counter() - began)
        assert page.locator("#fleet-count").text_content() == "500 servers"
        log.info("milliseconds of acts: %s", page.evaluate(_TIMES))
        # The rest is drawn as one scrolls.
        page.evaluate(_SCROLL)
        page.evaluate("window.first = document.querySelector('#fleet-rows tr')")
        page.get_by_role("link", name="server-250", exact=True).focus()
        place = page.evaluate("scrollY")
        page.evaluate(_WATCH_CHANGES)
        page.get_by_role("button", name="Deploy a server…").dispatch_event("click")
        page.get_by_label("Name").fill("server-2500")
        page.get_by_label("Configuration (JSON)").fill('{"url": "http://127.0.0.1:1/mcp", "instances": 0}')
        page.keyboard.press("Tab")
        page.get_by_role("button", name="Deploy", exact=True).click()
        page.get_by_role("link", name="server-2500", exact=True).first.wait_for()
        # One row came, and no other was touched.
        assert page.evaluate("window.changes") <= 2
        assert page.evaluate("window.first.isConnected")
        assert page.evaluate("scrollY") == place
        site.act(page, "PUT", "config", '{"servers": {}}')
        page.get_by_role("heading", name="There are no servers").wait_for()
        page.get_by_role("button", name="Clear events").click()
        assert_accessible(tab, "no servers", (400,))
        # Whoever is shut out sees nothing any more.
        write_keys(str(site.keys_file), [])
        page.get_by_role("alert").filter(has_text="does not accept").wait_for()
        assert page.locator("#fleet").is_hidden()
        assert page.locator("#event-list li").count() == 0
        assert page.evaluate("sessionStorage.length") == 0
        tab.assert_quiet()


_TIMES = """() => {
  const timed = (act) => {
    const began = performance.now();
    act();
    document.body.offsetHeight;
    return Math.round(performance.now() - began);
  };
  const search = document.getElementById("search");
  const type = (text) => timed(() => { search.value = text; search.dispatchEvent(new Event("input")); });
  const sort = (column) => timed(() => document.querySelectorAll(".sort")[column].click());
  return { search: [type("1"), type("12"), type("")], sort: [sort(0), sort(0), sort(1)] };
}"""
_SCROLL = """async () => {
  while (document.querySelectorAll("#fleet-rows tr").length < 500) {
    scrollTo(0, document.documentElement.scrollHeight);
    await new Promise(requestAnimationFrame);
  }
}"""
_WATCH_CHANGES = """() => {
  window.changes = 0;
  const observer = new MutationObserver((found) => { window.changes += found.length; });
  observer.observe(document.getElementById("fleet-rows"), { childList: true, subtree: true, attributes: true });
}"""
