"""The live page in a browser: Debian's Chromium, headless, driven by Playwright."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis
from support import need
from web.asking import Web
from web.conftest import Serve

import kvserver

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="scripts/setup --ecosystem installs it")

pytestmark = [pytest.mark.ecosystem, pytest.mark.filterwarnings("ignore")]  # what Playwright warns of is its own

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Browser, web: Web, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": WIDE, **context})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(web.server.metrics_url)
        self.page.locator("#status[data-state=live]").wait_for()

    def keys(self, pattern: str = "*") -> None:
        self.page.locator("#tab-keys").click()
        self.page.locator("#search").fill(pattern)
        self.page.locator("#search").press("Enter")
        self.page.locator("#key-list li").first.wait_for()

    def only_key(self) -> Page:
        """Open the one key that there is."""
        self.keys()
        self.page.locator("#key-list li").click()
        self.page.locator("pre.value").wait_for()
        return self.page


Open = Any


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    visits: list[Visit] = []

    def start(web: Web, **context: Any) -> Visit:
        visits.append(Visit(browser, web, **context))
        return visits[-1]

    yield start
    for each in visits:
        each.context.close()
        assert each.errors == []


def test_it_shows_what_happens(web: Web, visit: Open) -> None:
    page = visit(web).page
    with redis.Redis(port=web.server.port) as client:
        client.config_set("slowlog-log-slower-than", 0)
        client.execute_command("HOTKEYS", "START", "METRICS", "2", "CPU", "NET")
        while not page.locator("#commands tbody tr").count():
            for number in range(200):
                client.set(f"k{number}", "v")
                client.get("k1")
        page.locator("#slow tbody tr").first.wait_for()
        page.locator("#hot-time tbody tr").first.wait_for()
    assert page.locator(".tile").count() == 8
    assert page.locator("#chart-ops path.series").count() == 1
    assert page.locator("#chart-latency path.series").count() == 3
    assert {"set", "get"} <= set(page.locator("#commands td:first-child").all_inner_texts())
    assert "k1" in page.locator("#hot-time td:first-child").all_inner_texts()


def test_nothing_is_asked_of_anybody_else(web: Web, visit: Open) -> None:
    seen = visit(web)
    seen.page.locator("#tab-keys").click()
    seen.page.locator("#key-count").wait_for()
    assert all(url.startswith((web.server.metrics_url, "data:")) for url in seen.asked)


def test_values_of_html_and_script_are_text(web: Web, visit: Open) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'><svg onload=alert(3)>"
    with redis.Redis(port=web.server.port) as client:
        client.set(attack, attack)
        client.config_set("slowlog-log-slower-than", 0)
        client.execute_command("HOTKEYS", "START", "METRICS", "2", "CPU", "NET")
        client.get(attack)
        seen = visit(web)
        seen.page.locator("#slow tbody tr").first.wait_for()
        seen.page.locator("#hot-time tbody tr").first.wait_for()
        assert attack in seen.page.locator("#hot-time").inner_text()
        seen.keys()
        assert seen.page.locator("#key-list .name").inner_text() == attack
        seen.page.locator("#key-list li").click()
        for form in ("Text", "Hex", "JSON"):
            button = seen.page.locator(f".segments button:text-is('{form}')")
            if button.is_enabled():
                button.click()
        seen.page.locator(".segments button:text-is('Text')").click()
        assert seen.page.locator("pre.value").inner_text() == attack
    assert seen.page.locator("img, main script, svg[onload]").count() == 0


def test_the_policy_stops_what_is_put_into_the_page(web: Web, browser: Browser) -> None:
    """Even if something slipped through, it would not run."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(web.server.metrics_url)
    refused = page.evaluate(
        """() => new Promise((told) => {
            document.addEventListener("securitypolicyviolation", (event) => told(event.violatedDirective));
            const script = document.createElement("script");
            script.append("window.ran = true");
            document.body.append(script);
        })"""
    )
    assert "script-src" in refused or "trusted-types" in refused
    assert page.evaluate("window.ran") is None
    context.close()


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (json.dumps({"a": [1]}).encode(), "JSON", '{\n  "a": [\n    1\n  ]\n}'),
        (b"plain \xc3\xbc", "Text", "plain \u00fc"),
        (b"\x00\x01\xff", "Hex", "00000000  00 01 ff" + " " * 41 + "···"),
        (b"", "Text", "(empty)"),
    ],
)
def test_a_value_in_the_form_that_suits_it(web: Web, visit: Open, value: bytes, form: str, shown: str) -> None:
    with redis.Redis(port=web.server.port) as client:
        client.set("k", value)
    seen = visit(web)
    seen.keys()
    seen.page.locator("#key-list li").click()
    assert seen.page.locator(".segments button[aria-pressed=true]").inner_text() == form
    assert seen.page.locator("pre.value").text_content() == shown


def test_a_name_that_is_too_long_cannot_be_opened(web: Web, visit: Open) -> None:
    web.server.direct("SET", "a" * 1_000_000, "v")
    web.server.direct("SET", "b", "the other one")
    visited = visit(web)
    visited.keys()
    page = visited.page
    long = page.locator("#key-list li[aria-disabled=true]")
    assert long.count() == 1
    assert long.get_attribute("title") == "A name of 977 KB: too long to be opened here"
    long.click(force=True)
    page.locator("#key-list").press("Home")
    page.locator("pre.value").wait_for()
    assert page.locator("pre.value").inner_text() == "the other one"


def test_by_keyboard_alone(web: Web, visit: Open) -> None:
    with redis.Redis(port=web.server.port) as client:
        client.mset({f"user:{number}": number for number in range(5)})
        client.set("other", 1)
    page = visit(web).page
    page.keyboard.press("/")
    page.keyboard.type("user:*")
    page.keyboard.press("Enter")
    page.locator("#key-list li").nth(4).wait_for()
    page.keyboard.press("Escape")  # to the list
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    name = page.locator("#key-list li").nth(1).locator(".name").inner_text()
    page.locator("#detail h3", has_text=re.compile(f"^{name}$")).wait_for()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "key-list"


def test_it_fits_a_phone(web: Web, visit: Open) -> None:
    with redis.Redis(port=web.server.port) as client:
        client.set("a-long-name:" + "x" * 300, "y" * 3000)
        client.config_set("slowlog-log-slower-than", 0)
        client.get("a-long-name:" + "x" * 300)
    seen = visit(web, viewport=NARROW)
    seen.page.locator("#slow tbody tr").first.wait_for()
    width = "document.documentElement.scrollWidth"
    assert seen.page.evaluate(width) <= NARROW["width"]
    seen.keys()
    seen.page.locator("#key-list li").click()
    seen.page.locator("pre.value").wait_for()
    assert seen.page.evaluate(width) <= NARROW["width"]
    assert not seen.page.locator("#key-list").is_visible()
    seen.page.locator("#detail button.phone").click()
    assert seen.page.locator("#key-list").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(web: Web, visit: Open, scheme: str) -> None:
    """WCAG's contrast of 4.5 to 1, for the colours that text has."""
    page = visit(web, color_scheme=scheme).page
    found = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const of = (name) => {
                const [r, g, b] = style.getPropertyValue(name).trim().slice(1).match(/../g)
                    .map((part) => parseInt(part, 16) / 255)
                    .map((part) => part <= .03928 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
                return .2126 * r + .7152 * g + .0722 * b;
            };
            const ratio = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            return ["--text", "--muted", "--bad", "--accent"].flatMap((ink) =>
                ["--surface", "--sunken", "--ground"].map((ground) => [ink, ground, ratio(of(ink), of(ground))]));
        }"""
    )
    assert [each for each in found if each[2] < 4.5] == []


def test_with_a_password(serve: Serve, visit: Open, browser: Browser) -> None:
    web = serve(requirepass="secret")
    with redis.Redis(port=web.server.port, password="secret") as client:
        client.set("k", "v")
    seen = visit(web, http_credentials={"username": "default", "password": "secret"})
    seen.keys()
    context = browser.new_context(http_credentials={"username": "default", "password": "wrong"})
    response = context.new_page().goto(web.server.metrics_url)
    assert response is not None
    assert response.status == 401
    context.close()


def test_writing(serve: Serve, visit: Open) -> None:
    web = serve(web_writes="yes")
    with redis.Redis(port=web.server.port) as client:
        page = visit(web).page
        page.locator("#tab-keys").click()
        page.locator("#new-key").click()
        page.locator("dialog .field").nth(0).fill("new")
        page.locator("dialog .field").nth(1).fill("v\u00e9")
        page.locator("dialog .field").nth(2).fill("100")
        page.locator("dialog button:text-is('Save')").click()
        page.locator("pre.value").wait_for()
        assert client.get("new") == "v\u00e9".encode()
        assert 0 < client.ttl("new") <= 100
        page.locator("button:text-is('Edit value')").click()
        page.locator("dialog textarea").fill("other")
        page.locator("dialog button:text-is('Save')").click()
        page.locator("pre.value:text-is('other')").wait_for()
        assert client.get("new") == b"other"
        page.locator("button:text-is('Delete')").click()
        page.locator("dialog button:text-is('Delete')").click()
        page.locator("#detail:has-text('Deleted.')").wait_for()
        assert client.exists("new") == 0


def test_line_ends_that_a_text_field_would_change_are_not_edited(serve: Serve, visit: Open) -> None:
    web = serve(web_writes="yes")
    with redis.Redis(port=web.server.port) as client:
        client.set("k", "a\r\nb")
    page = visit(web).only_key()
    page.locator("button:text-is('Set TTL')").wait_for()
    assert page.locator("button:text-is('Edit value')").count() == 0


def test_reading_only_offers_no_writing(web: Web, visit: Open) -> None:
    with redis.Redis(port=web.server.port) as client:
        client.set("k", "v")
    assert visit(web).only_key().locator("button:text-is('Delete'), #new-key:visible").count() == 0


def test_it_comes_back_when_the_server_does(serve: Serve, browser: Browser) -> None:
    web = serve()
    context = browser.new_context()
    page = context.new_page()
    page.goto(web.server.metrics_url)
    page.locator("#status[data-state=live]").wait_for()
    port = web.server.metrics_port
    web.server.stop()
    page.locator("#status[data-state=lost]").wait_for()
    with kvserver.Server(port=0, metrics_port=port):
        page.locator("#status[data-state=live]").wait_for(timeout=20_000)
    context.close()
