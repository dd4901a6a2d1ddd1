"""What the program was told: options, the server's URL, and a command's words or one of the tools.

Not here: doing it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from kvclient.url import DEFAULT_URL, Options, default_url, parse_url

if TYPE_CHECKING:
    from collections.abc import Sequence


class Form(Enum):
    """How replies are shown."""

    RAW = "raw"  # as they are, for programs
    TYPED = "typed"  # with their types, for people
    JSON = "json"


@dataclass(frozen=True)
class Tool:
    """A tool of the program's own: its module has add_arguments(parser) and run(given)."""

    module: str
    summary: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the tool's options to its parser."""
        importlib.import_module(self.module).add_arguments(parser)

    def run(self, given: Given) -> int:
        """Run it; returns the exit status."""
        status: int = importlib.import_module(self.module).run(given)
        return status


TOOLS: Final = {
    "import": Tool("kvclient.cli.importing", "store keys from a file of JSON lines"),
    "export": Tool("kvclient.cli.exporting", "write keys as JSON lines"),
    "migrate": Tool("kvclient.cli.migrate", "copy all keys to another server while programs go on writing"),
    "watch": Tool("kvclient.cli.watch", "show changes of keys, or messages, as they come"),
    "top": Tool("kvclient.cli.top", "show what the server is doing"),
}
"""By their names, in lower case: WATCH and its like in capitals are the server's commands."""


@dataclass(frozen=True)
class Given:
    """The arguments, understood.

    Attributes:
        options: where the server is.
        words: the command; none: a prompt.
        form: how replies are shown.
        tool: the name of a tool, instead of a command.
        settings: the tool's arguments.
    """

    options: Options
    form: Form
    words: list[bytes] = field(default_factory=list)
    tool: str | None = None
    settings: argparse.Namespace = field(default_factory=argparse.Namespace)


def parse(argv: Sequence[str]) -> Given:
    """Understand the arguments. Ends the program with the usage if they make no sense.

    Raises:
        BadURLError: the URL makes no sense.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    words: list[str] = given.words
    url = default_url()
    if words and "://" in words[0]:
        url = words.pop(0)
    options = parse_url(url, timeout=given.timeout)
    if given.json:
        form = Form.JSON
    else:
        form = Form.RAW if given.raw or not (given.typed or sys.stdout.isatty()) else Form.TYPED
    if words and words[0] in TOOLS:
        name = words[0]
        tool_parser = argparse.ArgumentParser(
            prog=f"kv [URL] {name}", description=f"{TOOLS[name].summary.capitalize()}."
        )
        TOOLS[name].add_arguments(tool_parser)
        return Given(options, form, tool=name, settings=tool_parser.parse_args(words[1:]))
    return Given(options, form, [os.fsencode(word) for word in words])


def _parser() -> argparse.ArgumentParser:
    tools = "".join(f"  kv [URL] {name:8} {tool.summary}\n" for name, tool in TOOLS.items())
    parser = argparse.ArgumentParser(
        prog="kv",
        usage="kv [-h] [--timeout SECONDS] [--raw | --typed | --json] [URL] [COMMAND ARGS... | TOOL ...]",
        description="Run one command on a key-value server, or commands from a prompt if none is given.",
        epilog=f"tools (in lower case; with --help after them for their options):\n{tools}\n"
        f"Without a URL, $KV_URL is used, or {DEFAULT_URL}. Replies to a terminal show their types.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait for a reply (5)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="show replies as they are, even on a terminal")
    form.add_argument("--typed", action="store_true", help="show replies with their types, even in a pipe")
    form.add_argument("--json", action="store_true", help="show replies as JSON")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
