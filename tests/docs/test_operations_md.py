"""docs/operations.md: what it names is there, and its commands and files are accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kvserver.access.users import Users
from kvserver.cli import parser
from kvserver.commands.needs import CATALOGUE
from kvserver.config import OPTIONS, load

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
FILES = DOCS / "operations"
VARIABLES = {option.variable for option in OPTIONS}


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert target.startswith("https://") or (DOCS / target).exists(), target
    headings = {
        re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-") for line in PAGE.splitlines() if line[:3] == "## "
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


def test_every_file_is_named() -> None:
    for file in FILES.iterdir():
        assert f"operations/{file.name}" in PAGE


def test_settings_are_there() -> None:
    flags = {option.flag for option in OPTIONS}
    assert set(re.findall(r"`(--[a-z][a-z-]+)", PAGE)) <= flags
    assert set(re.findall(r"--(?:web|metrics|log|acl|fsync)[a-z-]*", PAGE)) <= flags


@pytest.mark.parametrize("file", ["kvserver.service", "Containerfile"])
def test_variables_in_the_files_are_accepted(file: str) -> None:
    text = (FILES / file).read_text(encoding="utf-8").replace("%S", "/var/lib")
    given = dict(re.findall(r"(KVSERVER_\w+)=(\S+)", text))
    assert given
    assert load({}, given).metrics_port == 9121


def test_variables_on_the_page_are_there() -> None:
    assert set(re.findall(r"KVSERVER_\w+", PAGE)) <= VARIABLES


def test_commands_are_accepted() -> None:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    starts = [shlex.split(line)[1:] for line in lines if line.startswith("kvserver ")]
    assert starts
    for words in starts:
        parser().parse_args(words)


def test_the_user_for_prometheus_is_accepted(tmp_path: Path) -> None:
    (line,) = re.findall(r"`(user prometheus .*?)`", PAGE)
    file = tmp_path / "users.acl"
    file.write_text(re.sub(r"<.*?>", "ab" * 32, line) + "\n", encoding="utf-8")
    users = Users(lambda: None)
    users.load(str(file), CATALOGUE)
    assert users.find(b"prometheus") is not None


def test_metrics_named_are_there() -> None:
    source = (DOCS.parent / "kvserver" / "web" / "metrics.py").read_text(encoding="utf-8")
    named = set(re.findall(r"`(kvserver_[a-z_]+)`", PAGE))
    assert len(named) > 5
    for name in named:
        assert f'"{name.removesuffix("_total")}"' in source, name
