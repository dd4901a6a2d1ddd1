"""docs/migrating.md: its commands are accepted, its options are those of the tool, and it is found from the README."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from kvclient.cli import migrate
from kvclient.cli.arguments import parse

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_commands_are_accepted(line: str) -> None:
    name, *argv = shlex.split(line)
    assert name == "kv"
    assert parse(argv).tool == "migrate"


def test_options_are_those_of_the_tool() -> None:
    parser = argparse.ArgumentParser()
    migrate.add_arguments(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
    told = {flag for line in PAGE.splitlines() if line.startswith("| `--") for flag in re.findall(r"--[a-z-]+", line)}
    assert told == flags - {"--help"}
    assert set(re.findall(r"`(--[a-z-]+)", PAGE)) <= flags


def test_it_is_found() -> None:
    for name in ("README.md", "docs/kvclient.md"):
        assert "migrating.md" in (ROOT / name).read_text(encoding="utf-8")
