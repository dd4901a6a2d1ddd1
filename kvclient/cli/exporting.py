"""`kv export`: every key with its value and end of life, a line each. Not here: how a line looks (records.py)."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from kvclient.cli.progress import progress
from kvclient.cli.records import Record, to_line
from kvclient.client import Client, client_of
from kvclient.errors import UnknownCommandError, WrongTypeError
from kvclient.serializers import PLAIN

if TYPE_CHECKING:
    import argparse

    from kvclient.cli.arguments import Given

PAGE: Final = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The tool's options."""
    parser.add_argument("--match", metavar="PATTERN", help="only keys that match this glob pattern")
    parser.epilog = (
        "Writes to standard output. Strings only: other types are counted on standard error. Keys that come or go "
        "meanwhile may be missing or not; a server may tell a key twice, which does no harm when it is imported."
    )


def run(given: Given) -> int:
    """Write them all; returns the exit status."""
    written = others = 0
    with client_of(given.options, PLAIN) as client:
        client.check()
        with progress("exporting", None if given.settings.match else client.dbsize()) as advance:
            page: list[bytes] = []
            for key in client.scan_iter(match=given.settings.match, count=PAGE):
                page.append(key)
                if len(page) == PAGE:
                    some, strange = _write(client, page)
                    written, others = written + some, others + strange
                    advance(len(page))
                    page.clear()
            some, strange = _write(client, page)
            written, others = written + some, others + strange
    strange_text = f"; {others} of other types were left out" if others else ""
    sys.stderr.write(f"exported {written} keys{strange_text}\n")
    return 0


def _write(client: Client, keys: list[bytes]) -> tuple[int, int]:
    """Write a page; how many were written, and how many are of other types."""
    if not keys:
        return 0, 0
    pipeline = client.pipeline(raise_errors=False)
    found = [(key, pipeline.get(key), pipeline.pexpiretime(key), pipeline.pttl(key)) for key in keys]
    now = int(time.time() * 1000)
    pipeline.run()
    written = others = 0
    for key, value, end, left in found:
        if isinstance(value.error(), WrongTypeError):
            others += 1
        elif (data := value.result()) is not None:
            if isinstance(end.error(), UnknownCommandError):  # before Redis 7
                expires = now + left.result() if left.result() >= 0 else None
            else:
                expires = end.result() if end.result() >= 0 else None
            sys.stdout.write(to_line(Record(key, data, expires)) + "\n")
            written += 1
    return written, others
