#!/usr/bin/env python3
"""Take the pictures of the live page that docs/operations.md shows, in headless Chromium, of a server with some load.

    .venv/bin/python scripts/screenshots.py [FOLDER]

Needs Debian's chromium, and playwright (scripts/setup --ecosystem installs it). Goes to this machine alone.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

import kvclient
import kvserver

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images"
WIDE, NARROW = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}
SECONDS = 90
"""How long there is load before the pictures are taken."""


def fill(client: kvclient.Client, source: random.Random) -> None:
    for number in range(400):
        profile = {"id": number, "name": f"user {number}", "plan": source.choice(["free", "team"]), "seen": [1, 2, 3]}
        client.set(f"user:{number}", json.dumps(profile), ttl=source.choice([None, 3600, 86400]))
        client.set(f"page:/product/{number}", "<p>" + "text " * source.randrange(400), ttl=600)
    for number in range(60):
        client.set(f"thumbnail:{number}", source.randbytes(source.randrange(500, 4000)))


def work(url: str, seed: int, over: threading.Event) -> None:
    """A client whose load swells and fades."""
    source = random.Random(seed)
    with kvclient.connect(url) as client:
        while not over.is_set():
            for _ in range(source.randrange(5, 90)):
                number = min(int(source.expovariate(0.012)), 430)
                client.get(f"user:{number}")
                client.incr(f"visits:{source.randrange(20)}")
                if source.random() < 0.3:
                    client.set(f"page:/product/{number % 400}", "<p>" + "text " * source.randrange(400), ttl=600)
                if source.random() < 0.01:
                    client.mget(*(f"user:{each}" for each in range(200)))
            over.wait(source.uniform(0.01, 0.05))


def take(browser: Browser, url: str, folder: Path) -> None:
    for view, scheme, name, size in (
        ("overview", "light", "desktop", WIDE),
        ("keys", "dark", "desktop", WIDE),
        ("overview", "dark", "phone", NARROW),
        ("keys", "light", "phone", NARROW),
    ):
        context = browser.new_context(viewport=size, color_scheme=scheme)
        page = context.new_page()
        page.goto(url)
        page.locator("#status[data-state=live]").wait_for()
        page.locator("#commands tbody tr").first.wait_for()
        if view == "keys":
            page.locator("#tab-keys").click()
            page.locator("#search").fill("user:1*")
            page.locator("#search").press("Enter")
            page.locator("#key-list li").nth(3).click()
            page.locator("pre.value").wait_for()
        page.screenshot(path=folder / f"{view}-{scheme}-{name}.png")
        context.close()


def main() -> int:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("screenshots: chromium is not installed (Debian: chromium).", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    folder.mkdir(parents=True, exist_ok=True)
    over = threading.Event()
    with (
        tempfile.TemporaryDirectory() as data,
        kvserver.Server(
            port=0, metrics_port=0, data_dir=data, fsync="everysec", slowlog_log_slower_than=3000, web_writes="yes"
        ) as server,
    ):
        with kvclient.connect(server.url) as client:
            fill(client, random.Random(1))
            client.execute("HOTKEYS", "START", "METRICS", "2", "CPU", "NET", "DURATION", "600")
        threads = [threading.Thread(target=work, args=(server.url, seed, over)) for seed in range(4)]
        for thread in threads:
            thread.start()
        try:
            over.wait(SECONDS)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                take(browser, server.metrics_url, folder)
                browser.close()
        finally:
            over.set()
            for thread in threads:
                thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
