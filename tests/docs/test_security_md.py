"""docs/security.md: the tests it names are there, and so are its settings; its examples are accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kvserver.access.users import Users
from kvserver.cli import parser
from kvserver.commands.needs import CATALOGUE
from kvserver.config import OPTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("file", "test"), TESTS)
def test_what_is_named_is_there(file: str, test: str) -> None:
    assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_promise_is_shown() -> None:
    promises = [
        line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("| promise", "|---"))
    ]
    assert len(promises) > 20
    assert all("`tests/" in line for line in promises)


def test_settings_are_there() -> None:
    flags = {option.flag for option in OPTIONS}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= flags


def test_scripts_are_there() -> None:
    for name in re.findall(r"`(scripts/\w+(?:\.py)?)`", PAGE):
        assert (ROOT / name).exists(), name


def test_the_command_is_accepted() -> None:
    for block in SHELL:
        words = shlex.split(block.replace("\\\n", " "))
        assert words[0] == "kvserver"
        parser().parse_args(words[1:])


def test_the_user_is_accepted(tmp_path: Path) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("user "))
    file = tmp_path / "users.acl"
    file.write_text(line + "\n", encoding="utf-8")
    users = Users(lambda: None)
    users.load(str(file), CATALOGUE)
    assert users.find(b"sessions") is not None
