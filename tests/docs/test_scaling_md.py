"""docs/scaling.md: its examples run on a real cluster, its pages and settings are there, its arithmetic is right."""

from __future__ import annotations

import re
from pathlib import Path

from cluster.harness import Cluster

from kvserver import config

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "scaling.md").read_text("utf-8")


def test_the_examples_run(shared_cluster: Cluster) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for block in blocks:
        source = block.replace("valkey+cluster://h1:7000,h2:7001", shared_cluster.url)
        assert source != block
        exec(compile(source, "scaling.md", "exec"), {})


def test_what_it_links_to_is_there() -> None:
    for page, anchor in re.findall(r"\]\((?!https)([\w.-]*)(?:#([\w-]+))?\)", PAGE):
        text = PAGE if not page else (DOCS / page).read_text("utf-8")
        titles = {
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert not anchor or anchor in titles, (page, anchor)


def test_its_settings_are_settings() -> None:
    flags = {option.flag for option in config.OPTIONS}
    assert set(re.findall(r"(?:^|`)kvserver (--[\w-]+)", PAGE, re.MULTILINE)) <= flags


def test_its_arithmetic() -> None:
    rows = re.findall(r"^\| ([\d,]+) times \| ([\d,]+) \| (\d+), ([\d,]+) processes", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for times, rate, primaries, processes in ([int(cell.replace(",", "")) for cell in row] for row in rows):
        assert rate == 24_000 * times
        assert primaries == -(-rate // 47_500)
        assert processes == 2 * primaries
